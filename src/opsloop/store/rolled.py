"""Days whose roll-up is not built: what no merge has touched for a while is rolled up once, in the background.

Merges build the roll-up. A day that is a single part, as one large insert fills it, sees none and would be read row by
row for ever.
"""

from __future__ import annotations

from opsloop.filter import Statement
from opsloop.store.clickhouse import ClickHouseStream

__all__ = ["QUIET_SECONDS", "roll_up_quiet_days"]

QUIET_SECONDS = 600
"""A part that is younger may still be merged, which rolls it up anyway."""

_QUIET = (
    "SELECT DISTINCT partition FROM {parts} WHERE active AND table = {{table:String}} AND database = {{name:String}}"
    " AND NOT has(projections, 'rollup') AND modification_time < now() - {{quiet:Int32}} ORDER BY partition"
)


def roll_up_quiet_days(stream: ClickHouseStream, *, quiet_seconds: int = QUIET_SECONDS) -> list[str]:
    """Have the engine roll up every day with quiet parts that are not, in the background; return the days."""
    values = {"table": stream.local("events"), "name": stream.database, "quiet": quiet_seconds}
    days = [row[0] for row in stream.rows(Statement(_QUIET.format(parts=stream.system("parts")), values))]
    for day in days:
        stream.define(
            f"ALTER TABLE events MATERIALIZE PROJECTION rollup IN PARTITION {int(day)} SETTINGS mutations_sync = 0"
        )
    return days
