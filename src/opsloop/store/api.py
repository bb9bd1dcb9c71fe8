"""What the store answers over HTTP and on the command line: what it holds, for how long, and what is damaged."""

from __future__ import annotations

from typing import Any

import msgspec

from opsloop.clock import Clock
from opsloop.endpoint import Arguments, Endpoint
from opsloop.filter import Statement
from opsloop.settings import Settings
from opsloop.store.clickhouse import ClickHouseStream
from opsloop.store.damage import DamagedPart, check_parts, parts_set_aside, set_aside

__all__ = ["endpoints"]


def endpoints(database: ClickHouseStream, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return the store's own endpoints."""
    del clock  # nothing here depends on the time

    def state(_: Arguments, __: bytes) -> dict[str, Any]:
        sql = "SELECT count(), min(ts_ns), max(ts_ns) FROM events"
        ((events, first_ns, last_ns),) = database.rows(Statement(sql))
        return {
            "location": database.location,
            "schema_version": database.schema_version,
            "events": events,
            "first_ns": first_ns if events else None,
            "last_ns": last_ns if events else None,
            "days_kept": settings.server.retention_days,
            "retention": settings.retention_rules,
            "damaged_parts": _shown(parts_set_aside(database)),
        }

    def check(_: Arguments, __: bytes) -> dict[str, Any]:
        found = check_parts(database)
        return {"damaged_parts": _shown([*found, *parts_set_aside(database)])}

    def aside(_: Arguments, __: bytes) -> dict[str, Any]:
        set_aside(database, check_parts(database))
        return {"damaged_parts": _shown(parts_set_aside(database))}

    return (
        Endpoint(path="/api/store", summary="What the store holds, how long, and what is damaged", handler=state),
        Endpoint(path="/api/store/check", summary="Read everything and say which parts are damaged", handler=check),
        Endpoint(
            path="/api/store/set-aside",
            summary="Take the damaged parts out of the table, so that the rest can be read; their files stay",
            handler=aside,
            method="POST",
            scope="admin",
        ),
    )


def _shown(parts: list[DamagedPart]) -> list[dict[str, Any]]:
    return [{**msgspec.structs.asdict(part), "message": part.sentence()} for part in parts]
