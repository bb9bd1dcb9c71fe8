"""How the limits were used, in SQL: :func:`opsloop.rate_limit.usage.usage` over any window, without loading its events.

Three statements: per limit, per interval, and the latest refusals. A test holds each of them equal to the definition.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.rate_limit.usage import (
    RECENT,
    TOP_TENANTS,
    Interval,
    LimitUsage,
    Refusal,
    TenantCount,
    Usage,
    bounds,
    refusal_of,
)
from opsloop.stream import Database

__all__ = ["limits_statement", "recent_statement", "series_statement", "to_limits", "to_recent", "usage_in"]

_WINDOW: Final = "event = 'limit' AND ts_ns > {start_ns:Int64} AND ts_ns <= {end_ns:Int64}"
_ADMIT: Final = "JSONExtractRaw(attributes, 'phase') != '\"settle\"'"
_ALLOWED: Final = "JSONExtractRaw(attributes, 'allowed') = 'true'"
_RATIO: Final = (
    "if(JSONType(kv.2, 'used_ratio') IN ('Int64', 'UInt64', 'Double'),"
    " JSONExtract(kv.2, 'used_ratio', 'Float64'), NULL)"
)


def limits_statement(*, start_ns: int, end_ns: int) -> Statement:
    """Return the statement for the use of each limit; its rows are what :func:`to_limits` reads.

    Each event is taken apart into one row per limit that it tells a level of, and one per limit that it violated; the
    shadow limits' part of an event counts as the event's own.
    """
    part = (
        "arrayConcat("
        "arrayMap(kv -> (kv.1, 1, {ratio}, 0), JSONExtractKeysAndValuesRaw({json}, 'limits')),"
        " arrayMap(raw -> (JSONExtractString(raw), 0, CAST(NULL, 'Nullable(Float64)'), 1),"
        " arrayFilter(raw -> JSONType(raw) = 'String', JSONExtractArrayRaw({json}, 'violated'))))"
    )
    parts = [
        part.replace("{ratio}", _RATIO).replace("{json}", json)
        for json in ("attributes", "JSONExtractRaw(attributes, 'shadow')")
    ]
    inner = (
        f"SELECT tenant, ts_ns, sequence, {_ADMIT} AS is_admit,"
        f" arrayJoin(arrayConcat({', '.join(parts)})) AS item FROM events WHERE {_WINDOW}"
    )
    by_tenant = (
        "SELECT item.1 AS name, tenant, countIf(is_admit AND item.2 = 1) AS decisions,"
        " countIf(is_admit AND item.4 = 1) AS rejected,"
        " countIf(is_admit OR item.2 = 1 AND isNotNull(item.3)) AS told,"
        " argMaxIf(item.3, (ts_ns, sequence), isNotNull(item.3)) AS latest,"
        " maxIf((ts_ns, sequence), isNotNull(item.3)) AS latest_at,"
        " max(item.3) AS fullest"
        f" FROM ({inner}) GROUP BY name, tenant"
    )
    sql = (
        "SELECT name, sum(decisions), sum(rejected), argMaxIf(latest, latest_at, isNotNull(fullest)), max(fullest),"
        f" arraySlice(arraySort(top -> (-top.2, top.1), groupArrayIf((tenant, toInt64(rejected)), rejected > 0)),"
        f" 1, {TOP_TENANTS}) FROM ({by_tenant}) GROUP BY name HAVING sum(told) > 0 ORDER BY name"
    )
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns})


def to_limits(rows: list[tuple[Any, ...]]) -> tuple[LimitUsage, ...]:
    """Return the use of each limit."""
    return tuple(
        LimitUsage(
            limit=name,
            decisions=int(decisions),
            rejected=int(rejected),
            used_ratio=None if fullest is None else latest,
            used_ratio_max=fullest,
            top_rejected=tuple(TenantCount(tenant, int(count)) for tenant, count in top),
        )
        for name, decisions, rejected, latest, fullest, top in rows
    )


def series_statement(*, start_ns: int, end_ns: int, width_ns: int) -> Statement:
    """Return the statement for the decisions in each interval of ``width_ns``: (number, allowed, rejected)."""
    sql = (
        "SELECT intDiv(ts_ns - {start_ns:Int64} - 1, {width_ns:Int64}) AS number,"
        f" countIf({_ALLOWED}), countIf(NOT {_ALLOWED}) FROM events WHERE {_WINDOW} AND {_ADMIT}"
        " GROUP BY number ORDER BY number"
    )
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns, "width_ns": width_ns})


def recent_statement(*, start_ns: int, end_ns: int) -> Statement:
    """Return the statement for the latest refusals; its rows are what :func:`to_recent` reads."""
    sql = (
        f"SELECT ts_ns, request_id, tenant, route, model, message, attributes FROM events WHERE {_WINDOW}"
        f" AND {_ADMIT} AND NOT {_ALLOWED} ORDER BY ts_ns DESC, sequence DESC LIMIT {RECENT}"
    )
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns})


def to_recent(rows: list[tuple[Any, ...]]) -> tuple[Refusal, ...]:
    """Return the latest refusals, latest first."""
    return tuple(refusal_of(_event(row)) for row in rows)


def _event(row: tuple[Any, ...]) -> Event:
    ts_ns, request_id, tenant, route, model, message, attributes = row
    return Event(
        ts_ns=ts_ns,
        event="limit",
        request_id=request_id,
        tenant=tenant,
        route=route,
        model=model,
        message=message,
        attributes=msgspec.json.decode(attributes) if attributes else {},
    )


def usage_in(database: Database, *, start_ns: int, end_ns: int, intervals: int = 60) -> Usage:
    """Return the :func:`opsloop.rate_limit.usage.usage` of a window of a database."""
    edges = bounds(start_ns, end_ns, intervals)
    width_ns = -(-(end_ns - start_ns) // intervals)
    counted = database.rows(series_statement(start_ns=start_ns, end_ns=end_ns, width_ns=width_ns))
    by_number = {int(number): (int(allowed), int(rejected)) for number, allowed, rejected in counted}
    series = tuple(Interval(*edge, *by_number.get(number, (0, 0))) for number, edge in enumerate(edges))
    return Usage(
        decisions=sum(part.allowed + part.rejected for part in series),
        rejected=sum(part.rejected for part in series),
        limits=to_limits(database.rows(limits_statement(start_ns=start_ns, end_ns=end_ns))),
        series=series,
        recent=to_recent(database.rows(recent_statement(start_ns=start_ns, end_ns=end_ns))),
    )
