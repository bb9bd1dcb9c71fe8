r"""Written at once, at the price of the encoder: what is bound is kept as JSON, and only the call's own fields are new.

A line is flat: ``{"event":"log",`` what is bound ``,"message":"…","ts_ns":…,`` the call's fields ``}``. In another
order this is the form that :class:`JsonLinesSink` gives an event, and both read back as the same. By its message a call
finds the :class:`Shape` that its like had, which takes the fields or refuses them. What no shape takes (a name that is
bound already, a value that does not fit its column, something to redact, a sampled kind) goes the way of
:class:`Output`, which makes the event first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from opsloop.event import SEVERITIES
from opsloop.structured_logging.context import CURRENT, Context, current
from opsloop.structured_logging.output import Bound, Log, Output
from opsloop.structured_logging.record import FOREIGN_FAILURES, make_event
from opsloop.structured_logging.redact import DEFAULT_RULES, is_clean, redact
from opsloop.structured_logging.shapes import Shape, Shapes
from opsloop.structured_logging.sinks import JsonLinesSink, flat_line

__all__ = ["LineOutput"]

_ENCODER: Final = msgspec.json.Encoder()
_ENCODE: Final = _ENCODER.encode
_ENCODE_LINES: Final = _ENCODER.encode_lines
_OWN: Final = frozenset({"event", "message", "severity", "ts_ns"})
"""What each call says of itself: a line cannot be prepared where one of them is bound."""
_MOST_MESSAGES: Final = 1_000
_MOST_LOGGERS: Final = 100
_MOST_NAMES: Final = 100


class _Sites:
    """What is known of the calls of loggers and contexts that bind the same names."""

    def __init__(self, names: tuple[str, ...], shape: Shape | None) -> None:
        self.taken = frozenset(names)
        self.bound = shape
        """The shape of what is bound."""
        self.shapes: dict[str, Shape] = {}
        """The shape of each message's calls."""


_Ready = tuple[Context | None, Raw | None, dict[str, Shape], _Sites]
"""The context that a logger last wrote in, what it writes first there, and the shapes of its calls.

Where nothing can be written first (it has to be worked out each time) there are no shapes. One tuple, so that a thread
sees all of it or nothing.
"""


class LineOutput(Output):
    """The output over a :class:`JsonLinesSink`."""

    def __init__(self, sink: JsonLinesSink, **options: Any) -> None:
        """Take the options of :class:`Output`."""
        super().__init__(sink, **options)
        self._write_line = sink.write
        self._shapes = Shapes(self._rules, self.clock.now_ns)
        self._sites: dict[tuple[str, ...], _Sites] = {}
        self._sampled = self._sampling is not None and "log" in self._sampling.probabilities

    def log(self, severity: int, bound: Bound) -> Log:
        """Return a function that writes a ``log`` line of a severity."""
        context_now, convert, encode_lines, write = CURRENT.get, msgspec.convert, _ENCODE_LINES, self._write_line
        ready: _Ready = (None, None, {}, _Sites((), None))

        def log(message: str, /, **fields: Any) -> None:
            nonlocal ready
            context, front, shapes, sites = ready
            if context is not context_now():
                context, front, shapes, sites = ready = self._prepare(severity, bound)
            try:
                struct, looked, _ = shapes[message]
                line: Any = convert(fields, struct)
                line.event = front
                line.message = message
                data = encode_lines([line])
                if looked and not self._clean(fields, looked):
                    data = self._plain(severity, bound, message, fields)
            except FOREIGN_FAILURES:  # the first call of its kind, or one that is unlike the others
                data = self._shaped(front, sites, message, fields) or self._plain(severity, bound, message, fields)
            try:
                write(data)
            except FOREIGN_FAILURES as cause:
                self.fail(cause)

        return log

    def _prepare(self, severity: int, bound: Bound) -> _Ready:
        """Return what a logger needs in this context, which keeps it for all severities."""
        context = current()
        prepared = context.encoded.get(bound)
        if prepared is None:
            if len(context.encoded) >= _MOST_LOGGERS:
                context.encoded.clear()
            prepared = context.encoded[bound] = self._encoded(context, bound)
        front, sites = prepared
        if not front:
            return context, None, {}, sites
        name = SEVERITIES[severity]
        return context, Raw(front if name == "INFO" else f'{front},"severity":"{name}"'), sites.shapes, sites

    def _encoded(self, context: Context, bound: Bound) -> tuple[str, _Sites]:
        """Return what is bound as JSON; empty when it has to be looked at with each call."""
        given = self._stamp | context.fields | bound.fields
        names = (*given,)
        sites = self._sites.get(names)
        if sites is None:
            if len(self._sites) >= _MOST_NAMES:
                self._sites.clear()
            sites = self._sites[names] = _Sites(names, self._shapes.of(given))
        if self._sampled or not _OWN.isdisjoint(names):
            return "", sites
        shape = sites.bound
        try:
            if shape is not None and self._clean(given, shape[1]):
                msgspec.convert(given, shape[0])
                return '"log"' + (f",{_ENCODE(given)[1:-1].decode()}" if given else ""), sites
        except FOREIGN_FAILURES:
            pass  # the event has what fits
        event = make_event(0, "log", given)
        if self._rules is not None:
            event = redact(event, self._rules, context.tokens)
        return flat_line(event).decode().removeprefix('{"ts_ns":0,"event":')[:-1], sites

    def _shaped(self, front: Raw | None, sites: _Sites, message: Any, fields: dict[str, Any]) -> bytes:
        """Return the line of a call by a shape that is found for it, and remembered; empty when there is none."""
        rules = self._rules
        if front is None or type(message) is not str or (rules is not None and rules.matched(message)):
            return b""
        if not sites.taken.isdisjoint(fields):
            return b""
        shape = self._shapes.of(fields, known=sites.shapes.get(message))
        if shape is None:
            return b""
        try:
            line: Any = msgspec.convert(fields, shape[0])
            line.event, line.message = front, message
            data = _ENCODE_LINES([line])
            if not self._clean(fields, shape[1]):
                return b""
        except FOREIGN_FAILURES:  # a value that does not fit its column, or has no JSON of its own
            return b""
        if len(sites.shapes) >= _MOST_MESSAGES:
            sites.shapes.clear()
        sites.shapes[message] = shape
        return data

    def _plain(self, severity: int, bound: Bound, message: Any, fields: dict[str, Any]) -> bytes:
        """Return the line of the event that the plain way makes; empty when it is not to be written."""
        own = {"severity": SEVERITIES[severity], **fields, "message": message}
        event = self.make("log", bound.fields | own, current(), self.clock.now_ns())
        return b"" if event is None else flat_line(event) + b"\n"

    def _clean(self, fields: Mapping[str, Any], names: tuple[str, ...]) -> bool:
        """Tell whether redaction leaves the values under these names as they are."""
        rules = self._rules or DEFAULT_RULES
        remembered = rules.clean
        for name in names:
            value = fields.get(name)
            if (type(value) is not str or value not in remembered) and not is_clean(value, rules):
                return False
        return True
