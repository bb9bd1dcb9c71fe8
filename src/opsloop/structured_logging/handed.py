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
from opsloop.structured_logging.output import Bound, Emit, Log, Output
from opsloop.structured_logging.record import frozen, severity_of, text_of, thawed
from opsloop.structured_logging.seen import SPAN_KINDS, observe

__all__ = ["HandedOutput"]

_INFO: Final = SEVERITIES.index("INFO")
_LANE: Final = LANES[_INFO]
_UNBOUND: Final = Bound()


class HandedOutput(Output):
    """The output over a :class:`BufferedSink`."""

    def __init__(self, sink: BufferedSink, **options: Any) -> None:
        """Take the options of :class:`Output`."""
        super().__init__(sink, **options)
        self._admit = sink.admit
        self._queue = sink.queue
        self._draw = sink.queue.draw
        self._appends = tuple(lane.append for lane in sink.queue.lanes)
        self._now_ns = self.clock.now_ns

    def log(self, severity: int, bound: Bound) -> Log:
        """Return a function that hands a ``log`` call of a severity over."""
        queue, draw, admit = self._queue, self._draw, self._admit
        name, lane = SEVERITIES[severity], LANES[severity]
        append, now_ns, context = self._appends[lane], self._now_ns, CURRENT.get

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

    def event(self, bound: Bound) -> Emit:
        """Return a function that hands an event of any kind over.

        It names no ``ts_ns``, or the interpreter would compare each field's name with that of the parameter.
        """
        queue, draw, admit, unlike, made = self._queue, self._draw, self._admit, self._unlike, self._made
        append, now_ns, context_now = self._appends[_LANE], self._now_ns, CURRENT.get

        def event(kind: str, /, **fields: Any) -> None:
            context = context_now()
            if type(kind) is not str or kind == "request" or "severity" in fields:
                unlike(kind, bound, fields, context)
                return
            number = draw()
            if number < queue.mark or admit(number, _INFO, _LANE):
                kept = frozen(fields) if is_tracked(fields) else fields
                append((number, _INFO, made, now_ns(), context, kind, bound, kept))
            if context.scope is not None and kind in SPAN_KINDS:
                observe(kind, bound.fields | fields, context)

        return event

    def write(self, kind: str, fields: dict[str, Any], context: Context, *, ts_ns: int | None = None) -> None:
        """Hand an event of merged fields over."""
        self._put(kind, _UNBOUND, fields, context, ts_ns=ts_ns)

    def _unlike(self, kind: Any, bound: Bound, fields: dict[str, Any], context: Context) -> None:
        """Hand over what may have another lane than most events."""
        name = kind if type(kind) is str else text_of(kind)
        self._put(name, bound, fields, context)
        if name in SPAN_KINDS:
            observe(name, bound.fields | fields, context)

    def _put(
        self, kind: str, bound: Bound, fields: dict[str, Any], context: Context, *, ts_ns: int | None = None
    ) -> None:
        """Hand an event over in the lane of its severity, and a request's line in the last that is dropped from."""
        severity = _INFO
        if "severity" in fields:
            severity = SEVERITIES.index(severity_of(fields["severity"]) or "INFO")
        lane = LANES[-1] if kind == "request" else LANES[severity]
        number = self._draw()
        if number < self._queue.mark or self._admit(number, severity, lane):
            at_ns = self._now_ns() if ts_ns is None else ts_ns
            self._appends[lane]((number, severity, self._made, at_ns, context, kind, bound, frozen(fields)))

    def _made(self, ts_ns: int, context: Context, kind: str, bound: Bound, fields: dict[str, Any]) -> Event | None:
        given = thawed(fields)
        if given.get("ts_ns", ts_ns) is None:  # says what leaving it out says
            del given["ts_ns"]
        return self.make(kind, bound.fields | given, context, ts_ns)
