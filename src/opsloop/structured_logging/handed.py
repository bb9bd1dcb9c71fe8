"""Handed over: a log call is one number drawn, one look at the clock, one ``ContextVar`` read and one append.

The event is made, redacted and thinned by the thread of the :class:`BufferedSink`. A call's fields are handed over as
they are when nothing can change them, and as their JSON otherwise, so the event is a copy either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from gc import is_tracked
from typing import Any, Final

from opsloop.event import SEVERITIES, Event
from opsloop.structured_logging.buffered import BufferedSink
from opsloop.structured_logging.context import CURRENT, Context
from opsloop.structured_logging.handover import LANES
from opsloop.structured_logging.output import NO_FIELDS, Bound, Output
from opsloop.structured_logging.record import frozen, severity_of, thawed

__all__ = ["HandedOutput"]

_INFO: Final = SEVERITIES.index("INFO")
_NO_MESSAGE: Final = object()
"""Stands where a call was not one of :meth:`HandedOutput.log`."""


class HandedOutput(Output):
    """The output over a :class:`BufferedSink`."""

    def __init__(self, sink: BufferedSink, **options: Any) -> None:
        """Take the options of :class:`Output`."""
        super().__init__(sink, **options)
        self._admit = sink.admit
        self._queue = sink.queue
        self._draw = sink.queue.draw
        self._by_severity = sink.queue.by_severity
        self._now_ns = self.clock.now_ns
        self._current = CURRENT.get

    def log(self, severity: int, message: str, bound: Bound, fields: dict[str, Any]) -> None:
        """Hand a ``log`` call over."""
        number = self._draw()
        if number >= self._queue.mark and not self._admit(number, severity, LANES[severity]):
            return
        kept = frozen(fields) if is_tracked(fields) else fields  # its own first step, without the call
        self._by_severity[severity].append(
            (number, severity, self, self._now_ns(), "log", message, self._current(), bound, kept)
        )

    def event(self, kind: str, bound: Bound, fields: dict[str, Any], *, ts_ns: int | None = None) -> None:
        """Hand an event of any kind over."""
        self._put(kind, fields, self._current(), bound, ts_ns)

    def write(self, kind: str, fields: dict[str, Any], context: Context, *, ts_ns: int | None = None) -> None:
        """Hand an event of merged fields over."""
        self._put(kind, fields, context, None, ts_ns)

    def _put(self, kind: str, fields: dict[str, Any], context: Context, bound: Bound | None, ts_ns: int | None) -> None:
        severity = _INFO
        if "severity" in fields:
            severity = SEVERITIES.index(severity_of(fields["severity"]) or "INFO")
        lane = LANES[-1] if kind == "request" else LANES[severity]
        number = self._draw()
        if number >= self._queue.mark and not self._admit(number, severity, lane):
            return
        when = self._now_ns() if ts_ns is None else ts_ns
        kept = frozen(fields) if is_tracked(fields) else fields
        self._queue.lanes[lane].append((number, severity, self, when, kind, _NO_MESSAGE, context, bound, kept))

    def made(  # noqa: PLR0917 - it takes a record apart
        self,
        severity: int,
        ts_ns: int,
        kind: str,
        message: Any,
        context: Context,
        bound: Bound | None,
        fields: dict[str, Any],
    ) -> Event | None:
        """Return the event of a record; the writer calls it."""
        given: Mapping[str, Any] = NO_FIELDS if bound is None else bound.fields
        own = thawed(fields)
        if message is not _NO_MESSAGE:
            own = {"severity": SEVERITIES[severity], **own, "message": message}
        return self.make(kind, {**given, **own}, context, ts_ns)
