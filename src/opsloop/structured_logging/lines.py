r"""Written at once, at the price of the encoder: what is bound is kept as JSON, and only the call's own fields are new.

A line is flat: ``{"event":"log",`` what is bound ``,`` the call's fields ``,"message":"…","ts_ns":…}``. In another
order this is the form that :class:`JsonLinesSink` gives an event, and both read back as the same. Whatever needs a
closer look (a name that is bound already, a value that does not fit its column, something to redact, a sampled kind)
takes the way of :class:`Output`, which makes the event first.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from opsloop.event import INT64_MAX, SEVERITIES
from opsloop.filter import INTEGER_FIELDS, TEXT_FIELDS
from opsloop.structured_logging.context import CURRENT, Context
from opsloop.structured_logging.output import SINK_FAILURES, Bound, Output
from opsloop.structured_logging.record import make_event
from opsloop.structured_logging.redact import names_hold_secrets, redact, values_may_hold_secrets
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
_Check = tuple[tuple[str, Any], ...]
"""What has to be asked of a call's values before they may be written as they are: the columns, with their types."""
_CLOSER_LOOK: Final = (("", type),)
"""A check that no call passes: what these names mean depends on more than the types."""
_MOST_SHAPES: Final = 1_000
_MOST_NAMES: Final = 10_000


class _Prepared(NamedTuple):
    """What a logger's bound fields and a context have in common for every call."""

    context: Context
    heads: list[bytes]
    """The line of each severity up to the call's fields, empty until it is needed."""
    plain: set[str]
    """Names that were looked at: attributes that are not bound, and hold no secret by their name."""
    shapes: dict[tuple[str, ...], _Check]
    """By the names of a call's fields, where one of them is not plain: what to check."""


_NOTHING_PREPARED: Final = _Prepared(Context(), [], set(), {})


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
        context, heads, plain, shapes = bound.prepared or _NOTHING_PREPARED
        if context is not self._current():
            context, heads, plain, shapes = self._prepare(bound)
        if type(message) is str and (
            plain.issuperset(fields)
            or _fit(shapes.get((*fields,)) or self._shape((*fields,), plain, shapes, context, bound), fields)
        ):
            rules = self._rules
            head = heads[severity] or self._head(heads, severity, context, bound)
            if head and (rules is None or not values_may_hold_secrets(message, fields, rules)):
                fields["message"] = message
                fields["ts_ns"] = self._now_ns()
                try:
                    self._write(head + _ENCODE(fields)[1:] + b"\n")
                except SINK_FAILURES:  # the long way finds out whether it was the encoder or the file
                    del fields["ts_ns"]
                else:
                    return
        super().log(severity, message, bound, fields)

    def _prepare(self, bound: Bound) -> _Prepared:
        """Start afresh in this context, and remember with the logger what is worked out."""
        bound.prepared = prepared = _Prepared(self._current(), [b""] * len(SEVERITIES), set(), {})
        return prepared

    def _shape(
        self, names: tuple[str, ...], plain: set[str], shapes: dict[Any, _Check], context: Context, bound: Bound
    ) -> _Check:
        """Work out what calls with fields of these names have to be asked, and remember it."""
        taken = frozenset({*self._stamp, *context.fields, *bound.fields, "rejected"})
        columns = tuple((name, _TYPES[name]) for name in names if name in _TYPES)
        closer = (
            not taken.isdisjoint(names)
            or not RESERVED.difference(_TYPES).isdisjoint(names)
            or (self._rules is not None and names_hold_secrets(names, self._rules))
        )
        check = _CLOSER_LOOK if closer else columns
        if len(shapes) < _MOST_SHAPES and (closer or columns):
            shapes[names] = check
        elif len(plain) < _MOST_NAMES and not closer:
            plain.update(names)
        return check

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


def _fit(check: _Check, fields: dict[str, Any]) -> bool:
    """Tell whether the values of columns are of their types, and counts in their range."""
    for name, kind in check:
        value: Any = fields.get(name)
        if type(value) is not kind or (kind is int and not 0 <= value <= INT64_MAX):
            return False
    return True
