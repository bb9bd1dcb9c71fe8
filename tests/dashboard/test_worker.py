"""The worker: every reading each time, an event only where a verdict changed."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import burn_readings, dashboard
from opsloop.dashboard.api import endpoints
from opsloop.dashboard.worker import SignalWorker
from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.filter import equals
from opsloop.settings import ObjectiveSettings, Settings
from opsloop.verdict import reading_from_event

SETTINGS = Settings()
BREACHES = equals(event="breach")


def requests(clock, count, **fields):
    """Build requests that end now, three a second."""
    now_ns = clock.now_ns()
    return [Event(ts_ns=now_ns - i * NANOSECONDS // 3, event="request", **fields) for i in range(count)]


def said(stream, since_ns):
    """Return (id, verdict) of the breach events after a moment, in order of id."""
    readings = map(reading_from_event, stream.query(BREACHES, start_ns=since_ns))
    return sorted((reading.id, str(reading.verdict)) for reading in readings)


def test_readings_are_the_plain_ones(clickhouse, clock):
    """A tick returns what the plain functions say of the same events: objectives, then each budget's two pairs."""
    events = requests(clock, 400, duration_us=2_000_000, attributes={"in_flight": 31})
    clickhouse.append(events)
    plain = dashboard(events, end_ns=clock.now_ns(), slots=32)
    burns = [
        reading
        for slo, judged in zip(SETTINGS.slo, plain.slos, strict=True)
        for reading in burn_readings(slo, judged, end_ns=clock.now_ns())
    ]
    assert SignalWorker(clickhouse, SETTINGS, clock).tick() == [*plain.readings, *burns]


def test_only_a_changed_verdict_is_written(clickhouse, clock):
    """The first tick says everything once, a second one nothing, a worker that starts again nothing either."""
    worker = SignalWorker(clickhouse, SETTINGS, clock)
    clickhouse.append(requests(clock, 400, duration_us=1000))
    worker.tick()
    assert said(clickhouse, 0) == [
        ("burn-availability", "OK"),
        ("burn-fast", "OK"),
        ("errors", "OK"),
        ("latency", "OK"),
        ("quality", "NO_DATA"),
        ("retrieval", "NO_DATA"),
        ("saturation", "NO_DATA"),
        ("slow-burn-availability", "OK"),
        ("slow-burn-fast", "OK"),
    ]
    for _ in range(2):
        clock.advance(seconds=15)
        worker.tick()
        worker = SignalWorker(clickhouse, SETTINGS, clock)
    assert len(clickhouse.query(BREACHES)) == 9

    clock.advance(seconds=15)
    clickhouse.append(requests(clock, 40, duration_us=1000, error=True))
    before = clock.now_ns() - 1
    worker.tick()
    assert said(clickhouse, before) == [
        ("burn-availability", "BREACH"),
        ("errors", "BREACH"),
        ("slow-burn-availability", "BREACH"),
    ]

    clock.advance(seconds=400)
    before = clock.now_ns() - 1
    worker.tick()
    assert said(clickhouse, before) == [
        ("burn-availability", "BREACH"),  # the pair of 6 h still burns, but that is not severe
        ("errors", "NO_DATA"),
        ("latency", "NO_DATA"),
    ]


def test_a_breach_that_becomes_severe_is_said(clickhouse, clock):
    """Severity is part of the verdict: it may page alone, so its change is an event too."""
    worker = SignalWorker(clickhouse, SETTINGS, clock)
    clickhouse.append(requests(clock, 390) + requests(clock, 10, error=True))
    worker.tick()
    clock.advance(seconds=15)
    clickhouse.append(requests(clock, 90, error=True))
    worker.tick()
    severe = [
        reading.severe for reading in map(reading_from_event, clickhouse.query(BREACHES)) if reading.id == "errors"
    ]
    assert severe == [False, True]


def test_an_unknown_measure_is_refused_before_anything_runs(memory, clock):
    """The worker and the endpoints refuse to start over an objective that cannot be measured."""
    odd = ObjectiveSettings(id="odd", group="errors", measure="eror_ratio", threshold=1)
    settings = msgspec.structs.replace(SETTINGS, objective=(odd,))
    for start in (SignalWorker, endpoints):
        with pytest.raises(ConfigError, match="did you mean error_ratio"):
            start(memory, settings, clock)


def test_no_budgets_and_no_objectives_are_fine(clickhouse, clock):
    """An operator may watch nothing."""
    assert SignalWorker(clickhouse, msgspec.structs.replace(SETTINGS, objective=(), slo=()), clock).tick() == []
