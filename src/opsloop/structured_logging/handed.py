"""Handed over: a log call is one number drawn, one look at the clock, one ``ContextVar`` read and one append.

The event is made, redacted and thinned by the thread of the :class:`BufferedSink`. A call's fields are handed over as
they are when nothing can change them, and as their JSON otherwise, so the event is a copy either way.
"""

from __future__ import annotations

from gc import is_tracked
from typing import Any, Final

from opsloop.event import SEVERITIES, Event
from opsloop.structured_logging.buffered import BufferedSink
from opsloop.structured_logging.context import CURRENT, Context
from opsloop.structured_logging.handover import LANES
from opsloop.structured_logging.output import Bound, Log, Output
from opsloop.structured_logging.record import frozen, severity_of, thawed

__all__ = ["HandedOutput"]

_INFO: Final = SEVERITIES.index("INFO")
_UNBOUND: Final = Bound()


class HandedOutput(Output):
    """The output over a :class:`BufferedSink`."""

    def __init__(self, sink: BufferedSink, **options: Any) -> None:
        """Take the options of :class:`Output`."""
        super().__init__(sink, **options)
        self._admit = sink.admit
        self._queue = sink.queue
        self._draw = sink.queue.draw

    def log(self, severity: int, bound: Bound) -> Log:
        """Return a function that hands a ``log`` call of a severity over."""
        queue, draw, admit = self._queue, self._draw, self._admit
        append = queue.lanes[LANES[severity]].append
        now_ns, context = self.clock.now_ns, CURRENT.get
        name, lane = SEVERITIES[severity], LANES[severity]

        def made(ts_ns: int, context: Context, message: str, fields: dict[str, Any]) -> Event | None:
            own = {"severity": name, **thawed(fields), "message": message}
            return self.make("log", bound.fields | own, context, ts_ns)

        def log(message: str, /, **fields: Any) -> None:
            number = draw()
            if number >= queue.mark and not admit(number, severity, lane):
                return
            kept = frozen(fields) if is_tracked(fields) else fields  # its own first step, without the call
            append((number, severity, made, now_ns(), context(), message, kept))

        return log

    def write(self, kind: str, fields: dict[str, Any], context: Context, *, ts_ns: int | None = None) -> None:
        """Hand an event of merged fields over."""
        if ts_ns is not None:
            fields["ts_ns"] = ts_ns
        self.event(kind, _UNBOUND, fields, context)

    def event(self, kind: str, bound: Bound, fields: dict[str, Any], context: Context | None = None) -> None:
        """Hand an event of any kind over."""
        severity = _INFO
        if "severity" in fields:
            severity = SEVERITIES.index(severity_of(fields["severity"]) or "INFO")
        lane = LANES[-1] if kind == "request" else LANES[severity]
        number = self._draw()
        if number >= self._queue.mark and not self._admit(number, severity, lane):
            return
        here = CURRENT.get() if context is None else context
        kept = frozen(fields) if is_tracked(fields) else fields
        self._queue.lanes[lane].append((number, severity, self._made, self.clock.now_ns(), here, kind, bound, kept))

    def _made(self, ts_ns: int, context: Context, kind: str, bound: Bound, fields: dict[str, Any]) -> Event | None:
        return self.make(kind, bound.fields | thawed(fields), context, ts_ns)
