"""The shape of a call: a Struct of its fields' names, which tells in one step whether the values fit, and encodes them.

A column has the type that it has in :class:`Event`, so ``msgspec.convert`` accepts exactly what reads back; a name that
the Struct does not have is refused, one that is left out is left out of the line. Where there is something to redact,
an attribute that was a number so far takes numbers only, and the others are named for a closer look at their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from opsloop.event import Event
from opsloop.structured_logging.redact import Meaning, Rules
from opsloop.structured_logging.sinks import RESERVED

__all__ = ["Key", "Shape", "Shapes"]

Key = tuple[tuple[str, ...], tuple[str, ...]]
"""All names, and those whose values were more than numbers."""
Shape = tuple[type[msgspec.Struct], tuple[str, ...], Key]
"""The Struct, the attributes whose values need a look, and what it was made for.

A tuple, since that is what the interpreter takes apart quickest.
"""
_COLUMNS: Final = {column.name: column.type for column in msgspec.structs.fields(Event)}
_SPECIAL: Final = RESERVED.difference(_COLUMNS) | {"event", "message", "severity", "ts_ns", "attributes", "rejected"}
"""Names that mean something other than the column or the attribute of that name."""
_NUMBER: Final = int | float | bool | Decimal | None
"""A ``Decimal`` is named, or ``msgspec.convert`` would take it for a float and round it: it is written as its text."""
_NUMBERS: Final = frozenset({int, float, bool, type(None)})
_MOST_SHAPES: Final = 1_000
_MOST_NAMES: Final = 50


class _Own:
    """The type of what a line says of itself: there is no value of it, so no call can pass one."""


class Shapes:
    """Makes shapes, and remembers them.

    >>> struct, _, _ = Shapes(None, lambda: 5).of({"tool": "search", "words": 3})
    >>> line = msgspec.convert({"words": [4]}, struct)
    >>> line.event, line.message = msgspec.Raw(b'"log"'), "found"
    >>> msgspec.json.encode(line)
    b'{"event":"log","message":"found","ts_ns":5,"words":[4]}'
    >>> msgspec.convert({"tool": 7}, struct)
    Traceback (most recent call last):
    msgspec.ValidationError: Expected `str`, got `int` - at `$.tool`
    """

    def __init__(self, rules: Rules | None, now_ns: Callable[[], int]) -> None:
        """Look for what ``rules`` redact; each line takes its time from ``now_ns`` when it is made."""
        self._rules = rules
        self._now_ns = now_ns
        self._made: dict[Key, Shape | None] = {}

    def of(self, fields: Mapping[str, Any], *, known: Shape | None = None) -> Shape | None:
        """Return a shape for fields, and for all that ``known`` takes; ``None`` when a name asks for a closer look."""
        names: tuple[str, ...] = (*fields,)
        wide: tuple[str, ...] = ()
        if self._rules is not None:
            wide = tuple([name for name, value in fields.items() if type(value) not in _NUMBERS])
        if known is not None and len(names) + len(known[2][0]) <= _MOST_NAMES:
            names = (*dict.fromkeys(known[2][0] + names),)
            wide = (*dict.fromkeys(known[2][1] + wide),)
        key = names, wide
        if key not in self._made:
            if len(self._made) >= _MOST_SHAPES:
                return None
            self._made[key] = self._make(key)
        return self._made[key]

    def _make(self, key: Key) -> Shape | None:
        names, wide = key
        if not _SPECIAL.isdisjoint(names) or any(self._means(name, Meaning.SECRET) for name in names):
            return None
        looked = tuple(name for name in wide if name not in _COLUMNS and not self._means(name, Meaning.IDENTIFIER))
        try:
            return self._struct(names, wide), looked, key
        except ValueError:  # a name that JSON has to escape
            return None

    def _means(self, name: str, meaning: Meaning) -> bool:
        return self._rules is not None and self._rules.meaning_of(name) is meaning

    def _struct(self, names: tuple[str, ...], wide: tuple[str, ...]) -> type[msgspec.Struct]:
        own: list[Any] = [
            ("event", _Own, None),
            ("message", _Own, None),
            ("ts_ns", _Own, msgspec.field(default_factory=self._now_ns)),
        ]
        attribute = Any if self._rules is None else _NUMBER
        types = {name: _COLUMNS.get(name, Any if name in wide else attribute) for name in names}
        given = [(f"f{number}", types[name] | UnsetType, UNSET) for number, name in enumerate(names)]
        written = {f"f{number}": name for number, name in enumerate(names)}
        return msgspec.defstruct("Line", own + given, rename=written, forbid_unknown_fields=True, gc=False)
