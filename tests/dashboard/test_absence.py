"""Absence: silence is news of its own, never a good and never a bad value."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.alerting.rule import load_rules
from opsloop.alerting.worker import AlertWorker
from opsloop.clock import NANOSECONDS
from opsloop.dashboard.api import endpoints
from opsloop.dashboard.evaluation import read_absences
from opsloop.dashboard.worker import SignalWorker
from opsloop.event import Event
from opsloop.settings import AlertSettings, ObjectiveSettings, ReceiverSettings, Settings, SloSettings

LATENCY = ObjectiveSettings(
    id="latency", group="latency", measure="latency_us_p95", threshold=1e6, min_samples=1, absent_seconds=600
)
QUALITY = SloSettings(id="good", sli="quality", scorer="grounded", absent_seconds=600)
WATCH = Settings(
    objective=(LATENCY,),
    slo=(QUALITY,),
    alert=(AlertSettings(id="silent", when="BREACH(absent-latency)", severity="ticket"),),
)


def told(database, clock):
    """Return the absences of now as (verdict, reason)."""
    return [(str(each.verdict), each.reason) for each in read_absences(database, WATCH, end_ns=clock.now_ns())]


def test_a_store_that_never_received_anything_is_not_silent(clickhouse, clock):
    """Before the first event nothing is known, and our own events are none of the application's."""
    clickhouse.append([Event(ts_ns=clock.now_ns(), event="log", service="opsloop")])
    assert told(clickhouse, clock) == [("NO_DATA", "nothing was ever received")] * 2


def test_silence_after_something_is_a_breach_and_names_its_kind(clickhouse, clock):
    """No requests while other events arrive is an idle or broken route; nothing at all is a broken pipe."""
    scored = {"status": "scored", "score": 1.0, "scorer": "grounded"}
    clickhouse.append(
        [
            Event(ts_ns=clock.now_ns(), event="request", duration_us=5),
            Event(ts_ns=clock.now_ns(), event="score", attributes=scored),
        ]
    )
    assert told(clickhouse, clock) == [("OK", "1 requests in 10 m"), ("OK", "1 scores in 10 m")]
    clock.advance(seconds=599)
    assert [verdict for verdict, _ in told(clickhouse, clock)] == ["OK", "OK"]
    clock.advance(seconds=1)
    clickhouse.append([Event(ts_ns=clock.now_ns(), event="log")])
    assert told(clickhouse, clock) == [
        ("BREACH", "no requests in 10 m, though 1 other events arrived"),
        ("BREACH", "no scores in 10 m, though 1 other events arrived"),
    ]
    clock.advance(seconds=600)
    assert told(clickhouse, clock) == [
        ("BREACH", "no requests in 10 m, nor anything else: nothing is being received"),
        ("BREACH", "no scores in 10 m, nor anything else: nothing is being received"),
    ]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("request", {}),
        ("request", {"duration_us": 5, "error_type": "rate_limited"}),
        ("score", {"attributes": {"status": "unscored", "scorer": "grounded"}}),
        ("score", {"attributes": {"status": "scored", "score": 1.0, "scorer": "refusal"}}),
    ],
)
def test_what_an_objective_does_not_count_breaks_no_silence(kind, fields, clickhouse, clock):
    """A request without a duration, one that we turned away, an unscored answer, another scorer's score."""
    now_ns = clock.now_ns()
    clickhouse.append([Event(ts_ns=now_ns, event="log"), Event(ts_ns=now_ns, event=kind, **fields)])
    assert [verdict for verdict, _ in told(clickhouse, clock)] == ["BREACH", "BREACH"]


def test_a_silence_pages_by_its_own_signal_and_the_objective_stays_unknown(clickhouse, clock, tmp_path):
    """``absent-ID`` is a signal that an alert may name; the objective is NO_DATA meanwhile, and says what was last."""
    clickhouse.append([Event(ts_ns=clock.now_ns(), event="request", duration_us=400_000)])
    file = ReceiverSettings(id="notices", path=str(tmp_path / "notices.jsonl"))
    watch = msgspec.structs.replace(WATCH, receiver=(file,))
    signals, alerts = SignalWorker(clickhouse, watch, clock), AlertWorker(clickhouse, watch, clock)
    fired = []
    for _ in range(4):
        readings = {reading.id: reading for reading in signals.tick()}
        alerts.tick(list(readings.values()))
        (decision,) = alerts.decisions
        fired.append((str(readings["latency"].verdict), decision.memory.alert.phase.value))
        clock.advance(seconds=300)
    assert fired == [("OK", "inactive"), ("NO_DATA", "inactive"), ("NO_DATA", "firing"), ("NO_DATA", "firing")]
    assert load_rules(WATCH).groups["absent-latency"] == load_rules(WATCH).groups["absent-good"] == "traffic"

    answer = endpoints(clickhouse, WATCH, clock)[0].handler({}, b"")
    (reading, *_), last = answer["readings"], answer["last_known"]
    assert (reading.verdict, reading.value) == ("NO_DATA", None)
    assert list(last) == ["latency"]
    assert (last["latency"].value, clock.now_ns() - last["latency"].window_end_ns) == (400_000, 1200 * NANOSECONDS)
