"""A connection of the redis package for each kind of address and driver: it connects, encrypts and authenticates."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.retry
import redis.connection
import redis.retry
from redis.backoff import NoBackoff
from redis.exceptions import TryAgainError

from opsloop.errors import StoreError
from opsloop.rate_limit.failure import MovingError
from opsloop.rate_limit.redis_route import Node
from opsloop.rate_limit.redis_url import Address

__all__ = ["dial", "dial_async", "failure"]

NON_LOCAL: Final = "non local key"
"""Stands in the complaint of a script whose own commands found a slot moving."""


def dial(address: Address, node: Node, *, deadline_seconds: float, witness: bool = False) -> Any:
    """Return a connection that is not open yet; to a Sentinel it goes without the master's credentials."""
    retry: Any = redis.retry.Retry(NoBackoff(), 0)
    return _made(redis.connection, address, node, deadline_seconds, witness=witness, retry=retry)


def dial_async(address: Address, node: Node, *, witness: bool = False) -> Any:
    """As :func:`dial`, for an event loop, which keeps the deadline itself."""
    retry: Any = redis.asyncio.retry.Retry(NoBackoff(), 0)
    return _made(redis.asyncio.connection, address, node, None, witness=witness, retry=retry)


def failure(address: Address, deadline_seconds: float, cause: Exception) -> StoreError:
    """Return what a store that cannot be had says of itself."""
    if isinstance(cause, (redis.TimeoutError, TimeoutError)):
        return StoreError(f"{address!r} did not answer within {deadline_seconds * 1000:.0f} ms")
    if isinstance(cause, TryAgainError) or NON_LOCAL in str(cause):
        return MovingError(f"{address!r} is moving a slot")
    return StoreError(f"{address!r} failed: {str(cause) or type(cause).__name__}")


def _made(
    module: ModuleType, address: Address, node: Node, deadline: float | None, *, witness: bool, retry: Any
) -> Any:
    options: dict[str, Any] = {"protocol": 2, "retry": retry}
    options |= {"socket_timeout": deadline, "socket_connect_timeout": deadline}
    if address.kind == "server":
        options = {**module.parse_url(address.url), **options}
    else:
        options |= {"host": node[0], "port": node[1], "db": address.database}
        if address.tls:
            options["connection_class"] = module.SSLConnection
        if not witness or address.kind == "cluster":
            options |= {"username": address.username, "password": address.password}
        else:
            options["db"] = 0
    return options.pop("connection_class", module.Connection)(**options)
