"""Filters over events: one small tree, two meanings that agree.

:func:`matches` is the definition, in plain Python over one event. :func:`compile_filter` is the fast form: a SQL
condition with parameters for the event table. A property test holds them equal. Nothing that a person typed is ever
spliced into the SQL: values and attribute paths travel as parameters.

A filter is two-valued: an absent field matches nothing, so ``Not`` of it matches. Texts compare exactly, ``CONTAINS``
ignores ASCII case, ``GLOB`` knows ``*`` only. An attribute is named by its dotted path and compared as text, or as a
number where both sides are one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgspec

from opsloop.errors import FilterError
from opsloop.event import FIELDS, SEVERITIES, Event, flatten

__all__ = ["ALL", "And", "Compare", "Filter", "Not", "Op", "Or", "Statement", "compile_filter", "equals", "matches"]


class Op(StrEnum):
    """How a field is compared with a value."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    GLOB = "glob"
    CONTAINS = "contains"
    EXISTS = "exists"


class Compare(msgspec.Struct, frozen=True):
    """One comparison; ``field`` is a promoted column or the dotted path of an attribute."""

    field: str
    op: Op
    value: str | int | float | bool | None = None


class And(msgspec.Struct, frozen=True):
    """All parts match; no part matches everything."""

    parts: tuple[Filter, ...] = ()


class Or(msgspec.Struct, frozen=True):
    """At least one part matches; no part matches nothing."""

    parts: tuple[Filter, ...]


class Not(msgspec.Struct, frozen=True):
    """The part does not match."""

    part: Filter


Filter = Compare | And | Or | Not

ALL: Final = And()
"""The filter that every event passes."""


class Statement(msgspec.Struct, frozen=True):
    """A SQL text with its parameters, ``{name:Type}`` in the text (ClickHouse server-side binding)."""

    sql: str
    parameters: dict[str, Any] = {}


TEXT_FIELDS: Final = frozenset(
    name for name in FIELDS if name in Event.__annotations__ and Event.__annotations__[name] == "str"
) | {"event"}
INTEGER_FIELDS: Final = frozenset(
    {
        "ts_ns",
        "status_code",
        "duration_us",
        "time_to_first_token_us",
        "input_tokens",
        "output_tokens",
        "cost_microusd",
    }
)
NULLABLE_FIELDS: Final = INTEGER_FIELDS - {"ts_ns"}
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_NUMBER_SQL: Final = r"^-?[0-9]{1,15}(\\.[0-9]{1,15})?$"
_ORDER: Final[dict[Op, Callable[[Any, Any], bool]]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}
_ASCII_LOWER: Final = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})


def equals(**fields: str | int | float | bool) -> Filter:
    """Return the filter that keyword arguments mean: every named field equals its value.

    >>> matches(equals(event="tool", error=True), Event(ts_ns=0, event="tool", error=True))
    True
    """
    return And(tuple(Compare(name, Op.EQ, value) for name, value in fields.items()))


def matches(where: Filter, event: Event) -> bool:
    """Tell whether an event passes a filter: the definition that SQL has to agree with."""
    match where:
        case And(parts):
            return all(matches(part, event) for part in parts)
        case Or(parts):
            return any(matches(part, event) for part in parts)
        case Not(part):
            return not matches(part, event)
        case Compare():
            return _compare(where, event)


def _compare(where: Compare, event: Event) -> bool:
    name, op, wanted = _checked(where)
    if name == "severity":
        return op is Op.EXISTS or _ORDER[op](SEVERITIES.index(event.severity), wanted)
    if name == "error":
        return op is Op.EXISTS or _ORDER[op](event.error, wanted)
    if name in INTEGER_FIELDS:
        number = getattr(event, name)
        return number is not None and (op is Op.EXISTS or _ORDER[op](number, wanted))
    if name in TEXT_FIELDS:
        text = getattr(event, name)
        return text != "" if op is Op.EXISTS else _compare_text(text, op, wanted)
    leaf = flatten(event.attributes).get(name)
    if leaf is None:
        return False
    if op is Op.EXISTS:
        return True
    if isinstance(wanted, float):
        return bool(_NUMBER.fullmatch(leaf)) and _ORDER[op](float(leaf), wanted)
    return _compare_text(leaf, op, wanted)


def _compare_text(text: str, op: Op, wanted: str) -> bool:
    if op is Op.CONTAINS:
        return wanted.translate(_ASCII_LOWER) in text.translate(_ASCII_LOWER)
    if op is Op.GLOB:
        return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), text, re.DOTALL) is not None
    return _ORDER[op](text.encode(), wanted.encode())


def _checked(where: Compare) -> tuple[str, Op, Any]:
    """Return (field, operator, value of the type that the field compares with), or raise FilterError."""
    name, op, value = where.field.removeprefix("attributes."), where.op, where.value
    if name == "attributes" or not name:
        raise FilterError("a filter needs a field or an attribute path", fix="write attributes.NAME, or NAME alone")
    if op is Op.EXISTS:
        return name, op, None
    if name == "severity":
        return name, _ordered(name, op), _severity_index(value)
    if name == "error":
        return name, _ordered(name, op), _boolean(value)
    if name in INTEGER_FIELDS:
        return name, _ordered(name, op), _number(name, value)
    if isinstance(value, bool):
        return name, op, "true" if value else "false"
    if name not in TEXT_FIELDS and op in _ORDER and value is not None and _NUMBER.fullmatch(str(value)):
        return name, op, float(value)
    return name, op, "" if value is None else str(value)


def _ordered(name: str, op: Op) -> Op:
    if op not in _ORDER:
        raise FilterError(f"{name} cannot be matched by a text pattern", fix="compare it with = < <= > >=")
    return op


def _severity_index(value: Any) -> int:
    upper = str(value).upper()
    upper = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(upper, upper)
    if upper not in SEVERITIES:
        raise FilterError(f"unknown severity {value!r}", fix=f"use one of {', '.join(SEVERITIES)}")
    return SEVERITIES.index(upper)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in {"true", "false"}:
        return str(value).lower() == "true"
    raise FilterError(f"error is true or false, not {value!r}", fix="write error:true")


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    text = str(value)
    if _NUMBER.fullmatch(text) or re.fullmatch("-?[0-9]{1,18}", text):
        return float(text) if "." in text else int(text)
    raise FilterError(f"{name} is compared with a number, not {value!r}", fix=f"write {name}:>=500")


def compile_filter(where: Filter, *, prefix: str = "f") -> Statement:
    """Return the SQL condition of a filter over the event table, with its parameters.

    ``prefix`` starts the parameters' names, so that several conditions fit in one statement.

    >>> compile_filter(equals(tool="retrieve")).sql
    '(tool = {f0:String})'
    """
    parameters: dict[str, Any] = {}
    sql = _sql(where, parameters, prefix)
    return Statement(sql, parameters)


def _sql(where: Filter, parameters: dict[str, Any], prefix: str) -> str:
    match where:
        case And(parts):
            return "(" + " AND ".join(_sql(part, parameters, prefix) for part in parts) + ")" if parts else "true"
        case Or(parts):
            return "(" + " OR ".join(_sql(part, parameters, prefix) for part in parts) + ")" if parts else "false"
        case Not(part):
            return f"(NOT {_sql(part, parameters, prefix)})"
        case Compare():
            return _compare_sql(where, parameters, prefix)


def _compare_sql(where: Compare, parameters: dict[str, Any], prefix: str) -> str:
    name, op, wanted = _checked(where)

    def bind(value: Any, kind: str) -> str:
        key = f"{prefix}{len(parameters)}"
        parameters[key] = value
        return f"{{{key}:{kind}}}"

    if name == "severity":
        return "true" if op is Op.EXISTS else f"toInt8(severity) {op} {bind(wanted, 'Int8')}"
    if name == "error":
        return "true" if op is Op.EXISTS else f"error {op} {bind(int(wanted), 'UInt8')}"
    if name in INTEGER_FIELDS:
        if op is Op.EXISTS:
            return f"isNotNull({name})"
        test = f"{name} {op} {bind(wanted, 'Int64' if isinstance(wanted, int) else 'Float64')}"
        return f"ifNull({test}, false)" if name in NULLABLE_FIELDS else test
    if name in TEXT_FIELDS:
        return f"{name} != ''" if op is Op.EXISTS else _text_sql(name, op, bind(_pattern(op, wanted), "String"))
    path = bind(name, "String")
    leaf = f"leaves[{path}]"
    present = f"mapContains(leaves, {path})"
    if op is Op.EXISTS:
        return present
    if isinstance(wanted, float):
        number = f"if(match({leaf}, '{_NUMBER_SQL}'), toFloat64OrNull({leaf}), NULL)"
        return f"ifNull({number} {op} {bind(wanted, 'Float64')}, false)"
    test = _text_sql(leaf, op, bind(_pattern(op, wanted), "String"))
    # A leaf that is not there reads as an empty text: only where that would pass is it asked for.
    return f"({present} AND {test})" if _compare_text("", op, wanted) else test


def _pattern(op: Op, wanted: str) -> str:
    """Return the value that SQL compares with: a LIKE pattern for a glob, the text itself otherwise."""
    if op is not Op.GLOB:
        return wanted
    return re.sub(r"([\\%_])", r"\\\1", wanted).replace("*", "%")


def _text_sql(column: str, op: Op, bound: str) -> str:
    if op is Op.CONTAINS:
        return f"positionCaseInsensitive({column}, {bound}) > 0"
    if op is Op.GLOB:
        return f"{column} LIKE {bound}"
    return f"{column} {op} {bound}"
