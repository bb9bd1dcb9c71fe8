"""One request as spans: steps on a line of time, and the events that they become.

A :class:`Step` is what one stage did, with its place in the request's time; :class:`Served` is the whole request. Steps
are cheap and events are made from them only when somebody reads them, so the world can be moved on fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from opsloop.event import Event, Severity
from opsloop.sim.traffic import Arrival

__all__ = ["ENVIRONMENT", "SERVICE", "Served", "Step", "span_id", "spans"]

SERVICE: Final = "support-bot"
ENVIRONMENT: Final = "production"
_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: an odd step that visits every 64-bit number before it repeats one."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a request. ``offset_us`` counts from the request's start; a log line has no duration."""

    kind: str
    offset_us: int
    duration_us: int | None = None
    severity: Severity = "INFO"
    message: str = ""
    fields: dict[str, Any] = {}
    """Further promoted columns."""
    attributes: dict[str, Any] = {}
    within: int = 0
    """For a log line, the number of the step that wrote it; 0 is the request itself."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One request from its arrival to its answer."""

    arrival: Arrival
    release: str
    request: Step
    """The canonical line."""
    steps: tuple[Step, ...]
    """Everything under it, in the order in which it was noted."""

    @property
    def end_ns(self) -> int:
        """When the answer was sent."""
        return self.arrival.ts_ns + 1_000 * (self.request.duration_us or 0)


def span_id(root: int, number: int) -> str:
    """Return the id of a request's span: 0 is the request, the stages count from 1.

    >>> span_id(5, 0), span_id(5, 1)
    ('0000000000000005', '9e3779b97f4a7c1b')
    """
    return f"{((root + number * _GOLDEN) % 2**64) | 1:016x}"


def spans(served: Served) -> Iterator[Event]:
    """Yield the events of a request: the canonical line, then its stages and log lines.

    A stage is a child span of the request. A log line carries the span that wrote it and is no span itself. Ids follow
    from the trace, so an event that is delivered twice is stored once.
    """
    arrival = served.arrival
    root = span_id(arrival.root, 0)
    common: dict[str, Any] = {
        "service": SERVICE,
        "environment": ENVIRONMENT,
        "release": served.release,
        "request_id": arrival.request_id,
        "trace_id": arrival.trace_id,
        "tenant": arrival.tenant,
        "user_id": arrival.user_id,
        "session_id": arrival.session_id,
        "route": arrival.route,
    }
    for number, step in enumerate((served.request, *served.steps)):
        is_log = step.kind == "log"
        own = span_id(arrival.root, step.within if is_log else number)
        suffix = f":{number}" if is_log else ""
        yield Event(
            ts_ns=arrival.ts_ns + 1_000 * step.offset_us,
            event=step.kind,
            event_id=f"{arrival.trace_id}:{own}:{step.kind}{suffix}",
            span_id=own,
            parent_span_id="" if is_log or number == 0 else root,
            severity=step.severity,
            duration_us=step.duration_us,
            message=step.message,
            attributes=step.attributes,
            **common,
            **step.fields,
        )
