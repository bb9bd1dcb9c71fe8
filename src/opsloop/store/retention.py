"""Retention: how long each row is kept, by its kind, tenant or any other name on it. The engine enforces it.

Rule
    A row of day d that is kept n days is dropped once today is later than d + n, days in UTC. The rule of the settings
    becomes the table's TTL, so a change counts for what is stored already. A whole day that is too old for every rule
    is dropped at once, since a day is a partition.
Limits
    The engine drops single rows while it merges, within hours, not at the stroke of midnight.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from opsloop.clock import NANOSECONDS
from opsloop.filter import Statement
from opsloop.settings import Settings
from opsloop.store.clickhouse import ClickHouseStream
from opsloop.store.ddl import literal

__all__ = ["apply_retention", "days_sql", "days_to_drop", "drop_old_days", "ttl_sql"]


def days_sql(settings: Settings) -> str:
    """Return the SQL of how many days a row is kept: :meth:`opsloop.settings.Settings.days_kept`, row by row.

    A TTL takes no parameters, so the values stand in it as quoted literals; field names were checked by the settings.

    >>> from opsloop.settings import RetentionSettings
    >>> rule = RetentionSettings(when={"tenant": "acme", "event": ("log", "span")}, days=7)
    >>> days_sql(Settings(retention=(rule,)))
    "multiIf(tenant IN ('acme') AND event IN ('log', 'span'), 7, 90)"
    """
    cases = [
        f"{' AND '.join(f'{field} IN ({_texts(values)})' for field, values in rule.when.items())}, {rule.days}"
        for rule in settings.retention_rules
    ]
    days = str(settings.server.retention_days)
    return f"multiIf({', '.join([*cases, days])})" if cases else days


def ttl_sql(settings: Settings) -> str:
    """Return the TTL of the table: the first day on which a row is not kept any more."""
    return f"toDate(fromUnixTimestamp64Nano(ts_ns, 'UTC')) + toIntervalDay({days_sql(settings)} + 1)"


def apply_retention(stream: ClickHouseStream, settings: Settings, *, now_ns: int) -> bool:
    """Put the settings' rule in force unless it is already; return whether it was changed."""
    ttl = ttl_sql(settings)
    newest = stream.rows(Statement("SELECT ttl FROM retentions ORDER BY applied_ns DESC LIMIT 1"))
    if newest == [(ttl,)]:
        return False
    stream.define(f"ALTER TABLE events MODIFY TTL {ttl}")
    values = {"now_ns": now_ns, "ttl": ttl}
    stream.command(Statement("INSERT INTO retentions (applied_ns, ttl) VALUES ({now_ns:Int64}, {ttl:String})", values))
    return True


def days_to_drop(days: list[str], *, retention_days: int, now_ns: int) -> list[str]:
    """Return the days (``YYYYMMDD``) that lie wholly before the retention's start.

    >>> days_to_drop(["19700101", "19700109"], retention_days=2, now_ns=10 * 86_400 * 10**9)
    ['19700101']
    """
    first = datetime.fromtimestamp(now_ns // NANOSECONDS, tz=UTC) - timedelta(days=retention_days)
    return sorted(day for day in days if day < f"{first:%Y%m%d}")


def drop_old_days(stream: ClickHouseStream, *, retention_days: int, now_ns: int) -> list[str]:
    """Drop every day that is too old for the longest retention; return them."""
    sql = (
        f"SELECT DISTINCT partition FROM {stream.system('parts')}"
        " WHERE active AND table = {table:String} AND database = {name:String}"
    )
    values = {"table": stream.local("events"), "name": stream.database}
    days = [row[0] for row in stream.rows(Statement(sql, values))]
    old = days_to_drop(days, retention_days=retention_days, now_ns=now_ns)
    for day in old:
        stream.define(f"ALTER TABLE events DROP PARTITION {int(day)}")
    return old


def _texts(values: str | tuple[str, ...]) -> str:
    listed = (values,) if isinstance(values, str) else values
    return ", ".join(map(literal, listed))
