"""Events from the store's own rows, in the order of their sequence numbers: what a tail and an export read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from opsloop.event import FIELDS, Event
from opsloop.filter import Filter, Statement, compile_filter

__all__ = ["COLUMNS", "event_of", "newest_statement", "stored_statement"]

COLUMNS: Final = ", ".join(FIELDS)
_ATTRIBUTES: Final = FIELDS.index("attributes")


def event_of(row: Sequence[Any]) -> Event:
    """Return the event of a row of :data:`COLUMNS`."""
    values = dict(zip(FIELDS, row, strict=True))
    values["attributes"] = msgspec.json.decode(row[_ATTRIBUTES]) if row[_ATTRIBUTES] else {}
    return Event(**values)


def newest_statement(where: Filter, *, last: int, start_ns: int, limit: int) -> Statement:
    """Return the statement for the newest events up to a sequence number: rows of it and :data:`COLUMNS`."""
    condition = compile_filter(where)
    sql = (
        f"SELECT sequence, {COLUMNS} FROM events"
        f" WHERE sequence <= {{last:UInt64}} AND ts_ns > {{start_ns:Int64}} AND {condition.sql}"
        " ORDER BY ts_ns DESC, sequence DESC LIMIT {most:UInt32}"
    )
    return Statement(sql, condition.parameters | {"last": last, "start_ns": start_ns, "most": limit})


def stored_statement(where: Filter, *, after: int, last: int, limit: int) -> Statement:
    """Return the statement for what was stored after one sequence number up to another, in that order."""
    condition = compile_filter(where)
    sql = (
        f"SELECT sequence, {COLUMNS} FROM events"
        f" WHERE sequence > {{after:UInt64}} AND sequence <= {{last:UInt64}} AND {condition.sql}"
        " ORDER BY sequence LIMIT {most:UInt32}"
    )
    return Statement(sql, condition.parameters | {"after": after, "last": last, "most": limit})
