"""The four verdicts, and a reading: one signal's value against its objective in one window.

A reading is how rooms speak about health without knowing each other: the dashboard and online eval make them, alerting
votes over them, and a ``breach`` event carries one through the stream.

Unknown is not zero and no data is not fine: ``NO_DATA`` (nothing arrived) and ``INSUFFICIENT`` (too little to tell) are
states of their own. Neither reads as met, neither votes as a breach, and neither resolves anything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from opsloop.errors import EventError
from opsloop.event import Event

__all__ = ["GROUPS", "Reading", "Verdict", "reading_event", "reading_from_event"]


class Verdict(StrEnum):
    """What a window says about an objective."""

    OK = "OK"
    BREACH = "BREACH"
    NO_DATA = "NO_DATA"
    INSUFFICIENT = "INSUFFICIENT"


GROUPS = ("latency", "traffic", "errors", "saturation", "quality", "cost", "retrieval", "upstream")
"""The distinct signals. A composite counts one vote per group: p95 and p99 of one latency are one signal."""


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One objective, judged in one window.

    >>> slow = Reading(
    ...     id="latency",
    ...     group="latency",
    ...     verdict=Verdict.BREACH,
    ...     value=2.1e6,
    ...     threshold=1.5e6,
    ...     unit="us",
    ...     n=240,
    ...     window_start_ns=0,
    ...     window_end_ns=60_000_000_000,
    ...     reason="p95 above 1.50 s",
    ... )
    >>> reading_from_event(reading_event(slow)) == slow
    True
    """

    id: str
    """The objective's id, as the configuration names it."""
    group: str
    """The signal that it measures, one of :data:`GROUPS`: distinct groups are distinct votes."""
    verdict: Verdict
    value: float | None
    """What was measured, in ``unit``; ``None`` when nothing was."""
    threshold: float | None
    """Where the breach begins, in ``unit``; ``None`` for a signal without an objective."""
    unit: str
    """``us``, ``ratio``, ``1/s``, ``burn``, ``score``, ``microusd``."""
    n: int
    """How many events the value rests on."""
    window_start_ns: int
    """The window is (start, end]: an event at the start is outside, one at the end is inside."""
    window_end_ns: int
    reason: str
    """One sentence with the numbers, from which a person can recompute the verdict."""
    severe: bool = False
    """Bad enough to page alone."""
    held: bool = False
    """It was in breach and has not been seen to clear: until then its clear threshold judges it."""
    clear_since_ns: int | None = None
    """Since when a held one has been clear without a pause; it stays in breach until that was long enough."""
    labels: dict[str, str] = {}
    """What the reading is about: service, tenant, route, model. Empty for everything."""


def reading_event(reading: Reading, *, service: str = "") -> Event:
    """Return the ``breach`` event that carries a reading through the stream; the same reading has the same id."""
    attributes: dict[str, Any] = msgspec.to_builtins(reading)
    labels = ",".join(f"{key}={value}" for key, value in sorted(reading.labels.items()))
    return Event(
        ts_ns=reading.window_end_ns,
        event="breach",
        event_id=f"breach:{reading.id}:{labels}:{reading.window_end_ns}",
        service=service or reading.labels.get("service", ""),
        tenant=reading.labels.get("tenant", ""),
        route=reading.labels.get("route", ""),
        model=reading.labels.get("model", ""),
        severity="WARN" if reading.verdict is Verdict.BREACH else "INFO",
        message=f"{reading.id}: {reading.verdict}, {reading.reason}",
        attributes=attributes,
    )


def reading_from_event(event: Event) -> Reading:
    """Read a reading back from its ``breach`` event. Raises :class:`EventError` for any other event."""
    if event.event != "breach":
        raise EventError(f"event {event.event!r} carries no reading", fix="hand in a breach event")
    try:
        return msgspec.convert(event.attributes, Reading)
    except msgspec.ValidationError as cause:
        raise EventError(f"breach event {event.event_id!r}: {cause}", fix="write it with reading_event()") from cause
