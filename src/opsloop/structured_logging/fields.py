"""The fields of a query line: their aliases, their units, and what a person may have meant.

A name is looked up in this order: ``attributes.PATH`` is that attribute; an alias is its column; a promoted column is
itself; anything else is the path of an attribute, unless it looks like a misspelt column.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from opsloop.errors import FilterError
from opsloop.event import FIELDS
from opsloop.filter import INTEGER_FIELDS

__all__ = ["ALIASES", "Field", "field_name", "field_of", "value_of"]

ALIASES: Final[Mapping[str, str]] = {
    "level": "severity",
    "status": "status_code",
    "duration": "duration_us",
    "ttft": "time_to_first_token_us",
    "cost": "cost_microusd",
    "ts": "ts_ns",
}
"""Short names and the column of each: ``duration`` and ``ttft`` take a unit, ``cost`` is US dollars, ``ts`` a time."""
AMBIGUOUS: Final[Mapping[str, str]] = {"tokens": "write input_tokens or output_tokens, or attributes.tokens"}
RESERVED: Final = frozenset({"since", "until"})
_COLUMNS: Final = frozenset(FIELDS) - {"attributes"}
_KNOWN: Final = tuple(sorted(_COLUMNS | set(ALIASES)))
_DURATION: Final = re.compile(r"(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)(us|µs|ms|s|m|h|d)")
_MICROSECONDS: Final = {
    "us": 1, "µs": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86_400 * 10**6,
}  # fmt: skip
_DECIMAL: Final = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,30})?")
_DOLLARS: Final = re.compile(r"\$?(-?[0-9]{1,12}(?:\.[0-9]{1,15})?)\$?")
_LIKENESS: Final = 0.85


class Field(msgspec.Struct, frozen=True):
    """A field as it was written: ``name`` is the column or attribute path, ``alias`` the short name if it was one."""

    name: str
    alias: str = ""


def field_of(written: str) -> Field:
    """Return the field that a person's name means; raises :class:`FilterError` with a suggestion for a likely slip.

    >>> field_of("status"), field_of("attributes.score").name, field_of("retry.count").name
    (Field(name='status_code', alias='status'), 'score', 'retry.count')
    """
    if written.startswith("attributes.attributes."):  # a filter takes off the first, as we do below
        return Field(written)
    if written.startswith("attributes."):
        return Field(written.removeprefix("attributes."))
    if written in ALIASES:
        return Field(ALIASES[written], written)
    if written in AMBIGUOUS:
        raise FilterError(f"{written!r} is more than one field", fix=AMBIGUOUS[written])
    near = _near(written)
    if near:
        raise FilterError(
            f"unknown field {written!r}: did you mean {near!r}?", fix=f"write attributes.{written} for an attribute"
        )
    return Field(written)


def field_name(name: str) -> str:
    """Return how a column or attribute path is written, so that :func:`field_of` reads it back.

    >>> field_name("tool"), field_name("score"), field_name("duration")
    ('tool', 'score', 'attributes.duration')
    """
    special = name in ALIASES or name in AMBIGUOUS or name in RESERVED or name.startswith("attributes.")
    return f"attributes.{name}" if special or _near(name) else name


def value_of(field: Field, text: str) -> str | int | float:
    """Return the value that a text means for a field; raises :class:`FilterError` when it can mean none.

    >>> value_of(field_of("duration"), "1.5ms"), value_of(field_of("cost"), "$0.02"), value_of(field_of("score"), "0.5")
    (1500, 20000, '0.5')
    """
    if field.name.endswith("_us") and field.name in INTEGER_FIELDS:
        match = _DURATION.fullmatch(text)
        if match:
            return _exact(Decimal(match[1]) * _MICROSECONDS[match[2]])
        if field.alias and text != "0":
            raise FilterError(f"{text!r} has no unit", fix=f"write us, ms, s, m or h, such as {field.alias}>500ms")
    if field.alias == "cost":
        match = _DOLLARS.fullmatch(text)
        if match is None:
            raise FilterError(f"{text!r} is no amount in US dollars", fix="write cost>0.01, or use cost_microusd")
        return _exact(Decimal(match[1]) * 10**6)
    if field.name in INTEGER_FIELDS and _DECIMAL.fullmatch(text):
        return _exact(Decimal(text))
    return text


def _exact(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() else float(number)


def _near(name: str) -> str:
    """Return the column or alias that a name is a likely misspelling of, or ``""``."""
    if name in _COLUMNS or "." in name:
        return ""
    found = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=_LIKENESS)
    return found[0] if found else ""
