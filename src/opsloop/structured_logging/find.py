"""``query``: find events by keyword filters, by one typed line, or by both."""

from __future__ import annotations

from opsloop.clock import SystemClock
from opsloop.errors import FilterError
from opsloop.event import Event
from opsloop.filter import ALL, And, Filter, equals
from opsloop.stream import Source
from opsloop.structured_logging.grammar import Query, parse_query

__all__ = ["query"]


def query(
    source: Source,
    line: str = "",
    /,
    *,
    now_ns: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    limit: int | None = None,
    newest_first: bool = False,
    **fields: str | float | bool,
) -> list[Event]:
    """Return the events that pass the line and equal every keyword, in time order.

    The window is (``start_ns``, ``end_ns``], narrowed by ``since:`` and ``until:`` in the line, which count from
    ``now_ns`` (the machine's clock unless given). Raises :class:`FilterError` for a line that does not parse, or
    that asks for a number instead of events.

    >>> from opsloop.stream import MemoryStream
    >>> stream = MemoryStream([Event(ts_ns=1, event="tool", tool="retrieve", error=True), Event(ts_ns=2, event="log")])
    >>> query(stream, event="tool", tool="retrieve", error=True) == query(stream, "tool:retrieve error:true")
    True
    """
    asked = parse_query(line, now_ns=SystemClock().now_ns() if now_ns is None else now_ns) if line else Query()
    if asked.summary is not None:
        at = line.rindex("|")
        raise FilterError("query returns events", text=line, start=at, end=at + 1, fix="use summarise for a number")
    parts = tuple(part for part in (asked.where, equals(**fields)) if part != ALL)
    where: Filter = parts[0] if len(parts) == 1 else And(parts)
    starts = [moment for moment in (start_ns, asked.start_ns) if moment is not None]
    ends = [moment for moment in (end_ns, asked.end_ns) if moment is not None]
    return source.query(
        where,
        start_ns=max(starts, default=None),
        end_ns=min(ends, default=None),
        limit=limit,
        newest_first=newest_first,
    )
