"""Retention: whole days are dropped, oldest first. A day is a partition, so dropping it costs nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from opsloop.clock import NANOSECONDS
from opsloop.filter import Statement
from opsloop.store.clickhouse import ClickHouseStream

__all__ = ["days_to_drop", "drop_old_days"]


def days_to_drop(days: list[str], *, retention_days: int, now_ns: int) -> list[str]:
    """Return the days (``YYYYMMDD``) that lie wholly before the retention's start.

    >>> days_to_drop(["19700101", "19700109"], retention_days=2, now_ns=10 * 86_400 * 10**9)
    ['19700101']
    """
    first = datetime.fromtimestamp(now_ns // NANOSECONDS, tz=UTC) - timedelta(days=retention_days)
    return sorted(day for day in days if day < f"{first:%Y%m%d}")


def drop_old_days(stream: ClickHouseStream, *, retention_days: int, now_ns: int) -> list[str]:
    """Drop every day that is too old; return them."""
    sql = "SELECT DISTINCT partition FROM system.parts WHERE active AND table = 'events' AND database = {name:String}"
    days = [row[0] for row in stream.rows(Statement(sql, {"name": stream.database}))]
    old = days_to_drop(days, retention_days=retention_days, now_ns=now_ns)
    for day in old:
        stream.command(Statement(f"ALTER TABLE events DROP PARTITION {int(day)}"))
    return old
