"""The store: one table of events on ClickHouse, embedded (chDB) or on a cluster, with the same SQL and client.

The engine's libraries load when a name is first used, so that a command line that only asks a server stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsloop.lazy import lazy

if TYPE_CHECKING:
    from opsloop.store.clickhouse import ClickHouseStream
    from opsloop.store.writer import GroupCommit

__all__ = ["ClickHouseStream", "GroupCommit"]

_HOMES = {"ClickHouseStream": "clickhouse", "GroupCommit": "writer"}

__getattr__, __dir__ = lazy(__name__, _HOMES)
