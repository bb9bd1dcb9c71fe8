r"""Written at once, at the price of the encoder: what is bound is kept as JSON, and only the call's own fields are new.

A line is flat: ``{"event":"log",`` what is bound ``,`` the call's fields ``,"message":"…","ts_ns":…}``. In another
order this is the form that :class:`JsonLinesSink` gives an event, and both read back as the same. Whatever needs a
closer look (a name that is bound already, a value that does not fit its column, something to redact, a sampled kind)
takes the way of :class:`Output`, which makes the event first.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opsloop.event import INT64_MAX, SEVERITIES
from opsloop.filter import INTEGER_FIELDS, TEXT_FIELDS
from opsloop.structured_logging.context import CURRENT, Context
from opsloop.structured_logging.output import SINK_FAILURES, Bound, Output
from opsloop.structured_logging.record import make_event
from opsloop.structured_logging.redact import may_hold_secrets, redact
from opsloop.structured_logging.sinks import RESERVED, JsonLinesSink, flat_line

__all__ = ["LineOutput"]

_ENCODE: Final = msgspec.json.Encoder().encode
_TYPES: Final = {
    **dict.fromkeys(TEXT_FIELDS - {"event", "message", "severity"}, str),
    **dict.fromkeys(INTEGER_FIELDS - {"ts_ns", "status_code"}, int),
    "error": bool,
}
"""The columns whose fit is told by the type of a value, and a count by its sign."""
_OWN: Final = frozenset({"event", "message", "severity", "ts_ns"})
"""What each call says of itself: a line cannot be prepared where one of them is bound."""
_FAILURES: Final = (*SINK_FAILURES, OverflowError, msgspec.MsgspecError)
_Prepared = tuple[Context, list[bytes], frozenset[str], frozenset[str]]
"""What a logger's bound fields and a context have in common for every call: the context; the line of each severity up
to the call's fields, empty until it is needed; the names that need a closer look; and those of them that are bound."""
_NOTHING_PREPARED: Final[_Prepared] = (Context(), [], frozenset(), frozenset())


class LineOutput(Output):
    """The output over a :class:`JsonLinesSink`."""

    def __init__(self, sink: JsonLinesSink, **options: Any) -> None:
        """Take the options of :class:`Output`."""
        super().__init__(sink, **options)
        self._write = sink.write
        self._now_ns = self.clock.now_ns
        self._current = CURRENT.get
        self._sampled = self._sampling is not None and "log" in self._sampling.probabilities

    def log(self, severity: int, message: str, bound: Bound, fields: dict[str, Any]) -> None:
        """Write one ``log`` line."""
        context, heads, names, taken = bound.prepared or _NOTHING_PREPARED
        if context is not self._current():
            context, heads, names, taken = self._prepare(bound)
        rules = self._rules
        if (
            (names.isdisjoint(fields) or _fit(names, taken, fields))
            and type(message) is str
            and (rules is None or not may_hold_secrets(message, fields, rules))
        ):
            head = heads[severity] or self._head(heads, severity, context, bound)
            if head:
                fields["message"] = message
                fields["ts_ns"] = self._now_ns()
                try:
                    self._write(head + _ENCODE(fields)[1:] + b"\n")
                except _FAILURES:  # the long way finds out whether it was the encoder or the file
                    del fields["ts_ns"]
                else:
                    return
        super().log(severity, message, bound, fields)

    def _prepare(self, bound: Bound) -> _Prepared:
        """Work out which names need a closer look in this context, and remember them with the logger."""
        context = self._current()
        taken = frozenset({*self._stamp, *context.fields, *bound.fields, "rejected"})
        bound.prepared = prepared = (context, [b""] * len(SEVERITIES), RESERVED | taken, taken)
        return prepared

    def _head(self, heads: list[bytes], severity: int, context: Context, bound: Bound) -> bytes:
        """Encode what is bound, for one severity; empty when each event has to be looked at."""
        given = {**context.fields, **bound.fields}
        if self._sampled or not _OWN.isdisjoint(given):
            return b""
        event = make_event(0, "log", {**self._stamp, **given, "severity": SEVERITIES[severity]})
        if self._rules is not None:
            event = redact(event, self._rules, context.tokens)
        heads[severity] = head = b"{" + flat_line(event).removeprefix(b'{"ts_ns":0,')[:-1] + b","
        return head


def _fit(names: frozenset[str], taken: frozenset[str], fields: dict[str, Any]) -> bool:
    """Tell whether every name that needs a closer look is a column that is not bound and fits its value."""
    for name in names.intersection(fields):
        kind = _TYPES.get(name)
        value: Any = fields[name]
        if name in taken or type(value) is not kind or (type(value) is int and not 0 <= value <= INT64_MAX):
            return False
    return True
