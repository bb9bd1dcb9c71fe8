"""The store: one table of events on ClickHouse, embedded (chDB) or on a cluster, with the same SQL and client."""

from __future__ import annotations

from opsloop.store.clickhouse import ClickHouseStream
from opsloop.store.writer import GroupCommit

__all__ = ["ClickHouseStream", "GroupCommit"]
