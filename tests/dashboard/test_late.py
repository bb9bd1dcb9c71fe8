"""What arrives late, early or wrong: it changes its own window's numbers and no others, or is rejected and counted."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.alerting.worker import AlertWorker
from opsloop.clock import NANOSECONDS
from opsloop.dashboard import measure
from opsloop.dashboard.api import endpoints
from opsloop.dashboard.budgets import budget_series
from opsloop.dashboard.evaluation import read_series, read_signals
from opsloop.dashboard.worker import SignalWorker
from opsloop.errors import EventError, OpsloopError
from opsloop.event import Event, event_from_mapping
from opsloop.filter import Statement, equals
from opsloop.ingest.jsonl import read_json_lines
from opsloop.settings import AlertSettings, ObjectiveSettings, ReceiverSettings, Settings, SloSettings
from tests.dashboard.traffic import END_NS, MINUTE_NS, streams

twins = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
IDS = count()
UP = SloSettings(id="up", target=0.9)


def minutes(database, *, end_ns=END_NS):
    """Return the signals of each minute of the last half hour."""
    return read_series(database, start_ns=end_ns - 30 * MINUTE_NS, end_ns=end_ns, step_ns=MINUTE_NS)[1]


@twins
@given(events=streams, late=st.integers(0, 30 * 60 - 1), fails=st.booleans())
def test_a_late_event_changes_its_own_window_and_no_other(clickhouse, events, late, fails):
    """However late, exactly one minute counts one request more; sent again, it changes nothing at all."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(events)
    before = minutes(clickhouse)
    event = Event(ts_ns=END_NS - late * NANOSECONDS, event="request", event_id=f"late-{next(IDS)}", error=fails)
    clickhouse.append([event])
    after = minutes(clickhouse)
    changed = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert changed == [29 - late // 60]
    (place,) = changed
    old, new = before[place].errors, after[place].errors
    assert (new.requests - old.requests, new.failed - old.failed) == (1, int(fails))
    clickhouse.append([event])
    assert minutes(clickhouse) == after


def test_a_late_failure_is_spent_from_the_budget_at_its_own_time(clickhouse):
    """The burn-down falls where the failure was, not where it arrived, and its end says the same as the verdict."""
    clickhouse.append(Event(ts_ns=END_NS - hour * 60 * MINUTE_NS, event="request") for hour in range(720))
    before = budget_series(clickhouse, [UP], end_ns=END_NS)["up"][1]
    clickhouse.append([Event(ts_ns=END_NS - 60 * 60 * MINUTE_NS + 1, event="request", error=True)])
    after = budget_series(clickhouse, [UP], end_ns=END_NS)["up"][1]
    steps = [new.bad - old.bad for old, new in zip(before, after, strict=True)]
    ends = budget_series(clickhouse, [UP], end_ns=END_NS)["up"][0]
    assert steps == [int(end > END_NS - 60 * 60 * MINUTE_NS) for end in ends]
    assert 0 < sum(steps) < len(steps)


def test_the_next_evaluation_judges_what_arrived_late(clickhouse, clock, tmp_path):
    """A page that came ten minutes late fires at the next tick, once, and the page shows it in its own minute."""
    errors = ObjectiveSettings(
        id="errors", group="errors", measure="error_ratio", threshold=0.5, window_seconds=900, min_samples=10
    )
    watch = Settings(
        objective=(errors,),
        slo=(),
        alert=(AlertSettings(id="failing", when="BREACH(errors)"),),
        receiver=(ReceiverSettings(id="notices", path=str(tmp_path / "notices.jsonl")),),
    )
    signals, alerts = SignalWorker(clickhouse, watch, clock), AlertWorker(clickhouse, watch, clock)

    def tick():
        clock.advance(seconds=15)
        alerts.tick(signals.tick())
        return alerts.decisions[0].memory.alert.phase.value

    start_ns = clock.now_ns()
    clickhouse.append(Event(ts_ns=start_ns - k * NANOSECONDS, event="request") for k in range(15))
    told = [tick()]
    clickhouse.append(Event(ts_ns=start_ns - 600 * NANOSECONDS - k, event="request", error=True) for k in range(20))
    told += [tick(), tick()]
    assert told == ["inactive", "firing", "firing"]
    assert len((tmp_path / "notices.jsonl").read_text().splitlines()) == 1
    series = endpoints(clickhouse, watch, clock)[0].handler({"from": "20m"}, b"")["series"]
    failing = [ts for ts, value in zip(series["ts_ns"], series["error_ratio"], strict=True) if value]
    assert len(failing) == 1
    assert 0 <= failing[0] - (start_ns - 600 * NANOSECONDS) < series["step_seconds"] * NANOSECONDS
    said = [each.attributes["verdict"] for each in clickhouse.query(equals(event="breach", id="errors"))]
    assert said == ["OK", "BREACH"]


def test_what_is_older_than_the_objectives_window_changes_no_verdict_of_it(clickhouse, clock):
    """An objective looks back over its own window: a later event is in the series and in the budget only."""
    errors = ObjectiveSettings(id="errors", group="errors", measure="error_ratio", threshold=0.5, min_samples=10)
    watch = Settings(objective=(errors,), slo=(UP,))
    clickhouse.append(Event(ts_ns=clock.now_ns() - k, event="request") for k in range(10))
    clickhouse.append(
        Event(ts_ns=clock.now_ns() - 301 * NANOSECONDS - k, event="request", error=True) for k in range(90)
    )
    readings = {reading.id: reading for reading in SignalWorker(clickhouse, watch, clock).tick()}
    assert (readings["errors"].verdict, readings["errors"].n) == ("OK", 10)
    assert readings["burn-up"].n == 100


def test_an_event_of_the_near_future_counts_when_its_time_has_come(clickhouse, clock):
    """A clock that is fast by minutes puts an event into no window of now; it is there when now has reached it."""
    clickhouse.append([Event(ts_ns=clock.now_ns() + 5 * MINUTE_NS, event="request", error=True)])
    shown = endpoints(clickhouse, Settings(), clock)[0].handler
    assert (shown({}, b"")["totals"]["requests"], shown({}, b"")["slos"][0]["total"]) == (0, 0)
    clock.advance(seconds=300)
    assert (shown({}, b"")["totals"]["requests"], shown({}, b"")["slos"][0]["total"]) == (1, 1)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "-1", "1.5", "1e400", '"12"', "18446744073709551616"]
)
def test_a_duration_that_is_no_count_of_microseconds_is_rejected_and_counted(number):
    """Each such line is named with its field, the good one beside it is kept, and no window ever sees it."""
    good = b'{"ts_ns": 1, "event": "request", "duration_us": 5}'
    batch = read_json_lines(good + b'\n{"ts_ns": 1, "event": "request", "duration_us": ' + number.encode() + b"}\n")
    assert ([event.duration_us for event in batch.events], batch.rejected) == ([5], 1)
    assert batch.reasons[0].startswith("line 2: ")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1, 1.5, 2**64, True])
def test_a_wrong_duration_from_the_sdk_is_refused_with_its_field(number):
    """In process a mapping with such a duration raises before anything is written."""
    with pytest.raises(EventError, match="duration_us"):
        event_from_mapping({"ts_ns": 1, "event": "request", "duration_us": number})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "NaN"])
def test_a_text_that_is_no_number_is_no_measurement(value, clickhouse):
    """A score, a gauge or a share that says nan is left out in SQL as in Python: the measures stay unknown."""
    clickhouse.append(
        [
            Event(ts_ns=END_NS, event="score", attributes={"status": "scored", "score": value}),
            Event(ts_ns=END_NS, event="gauge", attributes={"name": "queue", "value": value, "limit": 10}),
            Event(ts_ns=END_NS, event="limit", attributes={"limits": {"rpm": {"used_ratio": value}}}),
        ]
    )
    found = read_signals(clickhouse, start_ns=END_NS - MINUTE_NS, end_ns=END_NS)
    assert [measure(name).read(found).value for name in ("quality_mean", "saturation_ratio")] == [None, None]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"objective": (ObjectiveSettings(id="x", group="errors", measure="eror_ratio", threshold=1),)}, "error_ratio"),
        ({"alert": (AlertSettings(id="a", when="BREACH(speed)"),)}, "speed"),
        ({"alert": (AlertSettings(id="a", when="BREACH(absent-errors)"),)}, "absent-errors"),
    ],
)
def test_what_watches_nothing_is_refused_before_it_runs(change, says, clickhouse, clock):
    """An objective without a measure, an alert on a signal that nobody makes, an absence that is not set."""
    watch = msgspec.structs.replace(Settings(), **change)
    worker = SignalWorker if "objective" in change else AlertWorker
    with pytest.raises(OpsloopError, match=says):
        worker(clickhouse, watch, clock)
