"""The store: one table of events on ClickHouse, embedded (chDB) or on a cluster, with the same SQL and client.

The engine's libraries load when a name is first used, so that a command line that only asks a server stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opsloop.store.clickhouse import ClickHouseStream
    from opsloop.store.writer import GroupCommit

__all__ = ["ClickHouseStream", "GroupCommit"]

_HOMES = {"ClickHouseStream": "clickhouse", "GroupCommit": "writer"}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'opsloop.store' has no attribute {name!r}")
    return getattr(import_module(f"opsloop.store.{_HOMES[name]}"), name)
