"""Damage: parts of the table that the engine could not read, which days they hold, and how many rows are in them.

At start the engine sets aside a part of which a file is missing or has the wrong length, and goes on without its rows.
Bytes that have changed inside a file are found when they are read, or all at once by a check that reads everything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from opsloop.filter import Statement
from opsloop.store.clickhouse import ClickHouseStream

__all__ = ["DamagedPart", "check_parts", "parts_set_aside", "set_aside", "warn_of_damage"]

_LOG: Final = logging.getLogger("opsloop.store")
_EACH_PART: Final = "SETTINGS check_query_single_value_result = 0 FORMAT JSONEachRow"


class DamagedPart(msgspec.Struct, frozen=True):
    """A part that cannot be read."""

    part: str
    table: str
    day: str
    """The day of its rows, ``YYYYMMDD`` in UTC."""
    rows: int | None
    """How many rows it holds; unknown when its own count is gone as well."""
    reason: str
    path: str
    """Where it lies, for whoever wants to mend it."""

    def sentence(self) -> str:
        """Say what is missing.

        >>> print(DamagedPart("20260105_1_1_0", "events", "20260105", 12, "broken-on-start", "").sentence())
        part 20260105_1_1_0 of events is damaged (broken-on-start): 12 rows of 2026-01-05 may be missing
        """
        day = f"{self.day[:4]}-{self.day[4:6]}-{self.day[6:]}" if self.day.isdigit() else self.day
        rows = "an unknown number of" if self.rows is None else f"{self.rows:,}"
        return f"part {self.part} of {self.table} is damaged ({self.reason}): {rows} rows of {day} may be missing"


def parts_set_aside(stream: ClickHouseStream) -> list[DamagedPart]:
    """Return the parts that are not in their table because they cannot be read, oldest day first."""
    sql = (
        f"SELECT name, table, partition_id, reason, path FROM {stream.system('detached_parts')}"
        " WHERE database = {name:String} AND (startsWith(reason, 'broken') OR reason = '')"
        " ORDER BY partition_id, name"
    )
    found = stream.rows(Statement(sql, {"name": stream.database}))
    return [
        DamagedPart(name.removeprefix(f"{reason}_"), table, str(day), _count(path), reason or "set aside", path)
        for name, table, day, reason, path in found
    ]


def warn_of_damage(stream: ClickHouseStream) -> list[DamagedPart]:
    """Return the parts that are set aside, after a warning to the operator about each."""
    parts = parts_set_aside(stream)
    for part in parts:
        _LOG.warning("%s; its files are in %s", part.sentence(), part.path)
    return parts


def check_parts(stream: ClickHouseStream) -> list[DamagedPart]:
    """Read every part of the events and return those whose bytes are not what was written."""
    ((text,),) = stream.rows(Statement(f"CHECK TABLE {stream.local('events')} {_EACH_PART}")) or [("",)]
    checked = [msgspec.json.decode(line) for line in text.splitlines()]
    failed = {row["part_path"]: row["message"] for row in checked if not row["is_passed"]}
    sql = (
        f"SELECT name, table, partition, rows, path FROM {stream.system('parts')}"
        " WHERE active AND database = {name:String} AND name IN {parts:Array(String)} ORDER BY partition, name"
    )
    parts = stream.rows(Statement(sql, {"name": stream.database, "parts": sorted(failed)})) if failed else []
    return [DamagedPart(name, table, day, rows, _reason(failed[name]), path) for name, table, day, rows, path in parts]


def set_aside(stream: ClickHouseStream, parts: Sequence[DamagedPart]) -> None:
    """Take parts out of the table, so that everything else can be read; their files stay where they are shown."""
    for damaged in parts:
        stream.define(f"ALTER TABLE events DETACH PART '{damaged.part}'")


def _count(path: str) -> int | None:
    """Return how many rows a part says it has, if it still says so and lies on this machine."""
    try:
        return int((Path(path) / "count.txt").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reason(message: str) -> str:
    """Return the engine's name for what is wrong, such as ``CHECKSUM_DOESNT_MATCH``."""
    named = re.search(r"\(([A-Z_]{4,})\)", message)
    return named[1] if named else message[:100]
