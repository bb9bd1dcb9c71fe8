"""``format_query``: a filter as the line that a person would have typed for it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from opsloop.filter import INTEGER_FIELDS, And, Compare, Filter, Not, Op, Or
from opsloop.structured_logging.fields import field_name
from opsloop.structured_logging.grammar import NAME

__all__ = ["format_query"]

_SAFE: Final = re.compile(r"[\w./%+@#-]+")


def format_query(where: Filter) -> str:
    """Write a filter as a query line that means the same.

    >>> from opsloop.structured_logging.grammar import parse_query
    >>> format_query(parse_query('tool:retrieve (tenant:acme OR -error:true) "timed out"', now_ns=0).where)
    'tool:retrieve (tenant:acme OR -error:true) "timed out"'
    """
    match where:
        case And(parts) if len(parts) > 1:
            return " ".join(_operand(part) for part in parts)
        case Or(parts) if len(parts) > 1:
            return " OR ".join(_operand(part) for part in parts)
        case And((part,)) | Or((part,)):
            return format_query(part)
        case And():
            return "*"
        case Or():
            return "-*"
        case Not(part):
            return f"-{_operand(part)}"
        case Compare():
            return _format_compare(where)


def _operand(where: Filter) -> str:
    text = format_query(where)
    return f"({text})" if isinstance(where, And | Or) and len(where.parts) > 1 else text


def _format_compare(where: Compare) -> str:
    name = field_name(where.field.removeprefix("attributes."))
    if not NAME.fullmatch(name) or name in {"AND", "OR", "NOT"}:
        name = _quoted(name)
    value = where.value
    if where.op is Op.EXISTS:
        return f"{name}:*"
    text = _value_text(name, value)
    safe = text if _SAFE.fullmatch(text) else _quoted(text)
    if where.field == "message" and where.op is Op.CONTAINS:
        return _quoted(text)
    if where.op is Op.EQ:
        return f"{name}=={safe}" if where.field == "message" else f"{name}:{safe}"
    if where.op is Op.GLOB:
        plain = "*" in text and text != "*" and _SAFE.fullmatch(text.replace("*", "a"))
        return f"{name}:{text}" if plain else f"{name}*={_quoted(text)}"
    return f"{name}{'~' if where.op is Op.CONTAINS else where.op}{safe}"


def _value_text(name: str, value: str | float | bool | None) -> str:  # noqa: FBT001 - a filter may hold one
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and name in INTEGER_FIELDS:
        return f"{Decimal(repr(value)):f}"
    return "" if value is None else str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
