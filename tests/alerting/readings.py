"""Readings for alerting's tests."""

from __future__ import annotations

from opsloop.settings import AlertSettings, ObjectiveSettings, ReceiverSettings, Settings
from opsloop.verdict import Reading, Verdict

SECOND = 1_000_000_000
START = 1_767_603_600 * SECOND
GROUPS = {
    "latency": "latency",
    "latency-p99": "latency",
    "errors": "errors",
    "saturation": "saturation",
    "quality": "quality",
    "retrieval": "retrieval",
}
LETTERS = {"X": Verdict.BREACH, "0": Verdict.OK, "-": Verdict.NO_DATA, "?": Verdict.INSUFFICIENT}


def reading(name, verdict, *, end_ns=START, seconds=60, severe=False, value=None, labels=None):
    """Build a reading of 240 requests over the ``seconds`` that end at ``end_ns``, with threshold 1."""
    if value is None:
        value = {Verdict.BREACH: 2.0, Verdict.OK: 0.5}.get(verdict)
    return Reading(
        id=name,
        group=GROUPS.get(name, name),
        verdict=verdict,
        value=value,
        threshold=1.0,
        unit="score",
        n=240 if value is not None else 0,
        window_start_ns=end_ns - seconds * SECOND,
        window_end_ns=end_ns,
        reason="as the test says",
        severe=severe,
        labels=labels or {},
    )


def breach(name, end_ns=START, **fields):
    """Build a reading that breaches."""
    return reading(name, Verdict.BREACH, end_ns=end_ns, **fields)


def fine(name, end_ns=START, **fields):
    """Build a reading that is OK."""
    return reading(name, Verdict.OK, end_ns=end_ns, **fields)


def settings_of(*alerts, receivers=(), evaluate_seconds=15.0):
    """Build settings with one objective per known signal."""
    base = Settings(
        objective=tuple(
            ObjectiveSettings(id=name, group=group, measure=f"{name}_p95", threshold=1.0)
            for name, group in GROUPS.items()
        ),
        slo=(),
        alert=tuple(alerts),
        receiver=receivers or (ReceiverSettings(id="pager", path="never-written.jsonl"),),
    )
    return Settings(
        objective=base.objective,
        slo=(),
        alert=base.alert,
        receiver=base.receiver,
        server=type(base.server)(evaluate_seconds=evaluate_seconds),
    )


def alert(when="AT_LEAST(2, BREACH, (latency, latency-p99, errors, quality))", **fields):
    """Build an alert without damping."""
    return AlertSettings(**{"id": "unhealthy", "when": when, "clear_for_seconds": 0.0, **fields})
