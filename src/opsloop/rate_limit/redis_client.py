"""The two drivers: they make the calls that the steps ask for, one from a thread, one from an event loop.

The asynchronous one shares pipelines: what tasks of one loop ask for while a pipeline is under way goes out together
in the next one. That changes when a call is made, never what it means. Each call has a deadline; what it cannot get is
a :class:`StoreError`, whatever the cause.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any, Final, TypeVar, cast

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from opsloop.errors import StoreError
from opsloop.rate_limit.redis_core import Steps
from opsloop.rate_limit.redis_script import Script, by_sha, by_source, merged, split, together, wire
from opsloop.rate_limit.redis_url import Address

__all__ = ["AsyncDriver", "Driver"]

T = TypeVar("T")
Reply = bytes | Exception
BATCH: Final = 512
"""Calls in one pipeline."""
GRACE_SECONDS: Final = 0.005
"""After the deadline, for an answer that is there already while the loop was held up elsewhere."""


class _Line(threading.local):
    """A thread's own connection, in the process that opened it."""

    connection: Any = None
    pid = 0


class Driver:
    """Makes calls from any thread, one at a time in each."""

    def __init__(self, address: Address, *, deadline_seconds: float) -> None:
        """Connect when first asked."""
        self._address = address
        self._deadline = deadline_seconds
        self._send = self._through_cluster if address.kind == "cluster" else self._through_line
        self._client: Any = None
        self._line = _Line()

    def run(self, steps: Steps[T]) -> T:
        """Carry steps through to their value."""
        try:
            script = next(steps)
            while True:
                try:
                    reply = self._call(script)
                except StoreError as failed:
                    script = steps.throw(failed)
                else:
                    script = steps.send(reply)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            steps.close()

    def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            for client in (*_sentinels(self._client), self._client):
                client.close()

    def _call(self, script: Script) -> bytes:
        try:
            if self._client is None:
                self._client = _client(self._address, self._deadline)
            return self._send(script)
        except (RedisError, OSError) as cause:
            raise _failure(self._address, self._deadline, cause) from cause

    def _through_line(self, script: Script) -> bytes:
        """Send over this thread's connection; once more when the server had closed it meanwhile."""
        line = self._line
        if line.pid != os.getpid():  # the first call of a thread, or of a fork that must not share its parent's
            line.connection, line.pid = self._client.connection_pool.get_connection(), os.getpid()
        connection = line.connection
        try:
            connection.send_packed_command((wire(script),))
            return cast("bytes", connection.read_response())
        except NoScriptError:
            connection.send_command(*by_source(script))
        except redis.ConnectionError:
            connection.disconnect()
            connection.send_command(*by_source(script))
        return cast("bytes", connection.read_response())

    def _through_cluster(self, script: Script) -> bytes:
        """Send to the node that holds the keys."""
        try:
            return cast("bytes", self._client.execute_command(*by_sha(script)))
        except NoScriptError:
            return cast("bytes", self._client.execute_command(*by_source(script)))


class AsyncDriver:
    """Makes calls from one event loop, concurrent ones in shared pipelines."""

    def __init__(self, address: Address, *, deadline_seconds: float) -> None:
        """Connect when first asked."""
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._deadline = deadline_seconds
        self._client = _async_client(address, deadline_seconds)
        self._send = self._through_cluster if address.kind == "cluster" else self._through_pool
        self._queue: list[tuple[Script, asyncio.Future[bytes]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def run(self, steps: Steps[T]) -> T:
        """Carry steps through to their value."""
        try:
            script = next(steps)
            while True:
                try:
                    reply = await self._call(script)
                except StoreError as failed:
                    script = steps.throw(failed)
                else:
                    script = steps.send(reply)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            steps.close()

    async def close(self) -> None:
        """Send what waits, and give the connections back."""
        while self._flusher is not None:
            await asyncio.wait((self._flusher,))
        for client in (*_sentinels(self._client), self._client):
            await client.aclose()

    async def _call(self, script: Script) -> bytes:
        """Return the reply to a call. Whoever is cancelled meanwhile leaves nothing behind."""
        future = self._enqueue(script)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._abandoned(script, future.result())
            raise

    def _enqueue(self, script: Script) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self.loop.create_future()
        self._queue.append((script, future))
        if self._flusher is None:
            self._flusher = self.loop.create_task(self._flush())
        return future

    async def _flush(self) -> None:
        """Send what waits until nothing does. A failure is everybody's who waits: nobody waits two deadlines."""
        try:
            while self._queue:
                taken, self._queue = self._queue[:BATCH], self._queue[BATCH:]
                # An admission that nobody waits for any more is not made; a release is, whoever was cancelled.
                batch = [(script, future) for script, future in taken if not (future.cancelled() and script.undo)]
                try:
                    if batch:
                        await self._exchange(batch)
                except StoreError as failed:
                    for _, future in (*batch, *self._queue):
                        if not future.done():
                            future.set_exception(failed)
                    self._queue.clear()
        finally:
            self._flusher = None
            for _, future in self._queue:
                future.cancel()
            self._queue.clear()

    async def _exchange(self, batch: list[tuple[Script, asyncio.Future[bytes]]]) -> None:
        replies = await self._in_time([script for script, _ in batch], known=True)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._in_time([batch[at][0] for at in unknown], known=False)
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        for (script, future), reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                if not future.done():
                    future.set_exception(_failure(self._address, self._deadline, reply))
            elif future.cancelled():
                self._abandoned(script, reply)
            elif not future.done():
                future.set_result(reply)

    async def _in_time(self, scripts: list[Script], *, known: bool) -> list[Reply]:
        """Send a pipeline and return its replies, or raise :class:`StoreError` after the deadline."""
        task = asyncio.ensure_future(self._send(scripts, known=known))
        try:
            await asyncio.wait((task,), timeout=self._deadline)
            if not task.done():
                await asyncio.wait((task,), timeout=GRACE_SECONDS)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
        try:
            if task.cancelled():
                raise TimeoutError
            return task.result()
        except (RedisError, OSError) as cause:
            raise _failure(self._address, self._deadline, cause) from cause

    async def _through_pool(self, scripts: list[Script], *, known: bool) -> list[Reply]:
        """Send to one server over one connection, admissions that wait together in one call."""
        groups = together(scripts)
        calls = [scripts[group[0]] if len(group) == 1 else merged([scripts[at] for at in group]) for group in groups]
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        replies: list[Reply] = [b""] * len(scripts)
        try:
            if known:
                await connection.send_packed_command([wire(call) for call in calls])
            else:
                await connection.send_packed_command(connection.pack_commands(map(by_source, calls)))
            for group in groups:
                try:
                    told: list[Reply] = [*split(await connection.read_response(), len(group))]
                except redis.ResponseError as wrong:
                    told = [wrong] * len(group)
                for at, reply in zip(group, told, strict=True):
                    replies[at] = reply
            return replies
        finally:
            await pool.release(connection)

    async def _through_cluster(self, scripts: list[Script], *, known: bool) -> list[Reply]:
        """Send to the nodes that hold the keys, all at once."""
        async with self._client.pipeline() as pipeline:
            for script in scripts:
                pipeline.execute_command(*(by_sha(script) if known else by_source(script)))
            replies: list[Reply] = await pipeline.execute(raise_on_error=False)
            return replies

    def _abandoned(self, script: Script, reply: bytes) -> None:
        """Take back an admission that came true after its caller had gone."""
        if script.undo is not None and reply[:1] == b"A":
            self._enqueue(script.undo())


def _failure(address: Address, deadline_seconds: float, cause: Exception) -> StoreError:
    if isinstance(cause, (redis.TimeoutError, TimeoutError)):
        return StoreError(f"{address!r} did not answer within {deadline_seconds * 1000:.0f} ms")
    return StoreError(f"{address!r} failed: {str(cause) or type(cause).__name__}")


def _client(address: Address, deadline: float) -> Any:
    """Return a client that tries once more on a connection that was closed meanwhile, and never waits twice."""
    options: dict[str, Any] = {
        "socket_timeout": deadline,
        "socket_connect_timeout": deadline,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        "protocol": 2,
    }
    if address.kind == "server":
        return redis.Redis.from_url(address.url, **options)
    options |= address.credentials
    if address.kind == "sentinel":
        watched: Any = redis.sentinel.Sentinel(address.nodes, sentinel_kwargs=_watching(options), **options)  # type: ignore[no-untyped-call]
        return watched.master_for(address.name, db=address.database)
    nodes = [ClusterNode(host, port) for host, port in address.nodes]  # type: ignore[no-untyped-call]
    return redis.RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)


def _async_client(address: Address, deadline: float) -> Any:
    """As :func:`_client`; the deadline is kept for whole pipelines and not here."""
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": deadline,
        "retry": AsyncRetry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        "protocol": 2,
    }
    if address.kind == "server":
        return redis.asyncio.Redis.from_url(address.url, **options)
    options |= address.credentials
    if address.kind == "sentinel":
        watched: Any = redis.asyncio.sentinel.Sentinel(address.nodes, sentinel_kwargs=_watching(options), **options)  # type: ignore[no-untyped-call]
        return watched.master_for(address.name, db=address.database)
    nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in address.nodes]
    return redis.asyncio.RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)


def _sentinels(client: Any) -> list[Any]:
    """Return the clients that a master's client asks for its address; it does not close them itself."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def _watching(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the Sentinels themselves are asked with: the same, without the master's credentials."""
    return {name: value for name, value in options.items() if name not in {"username", "password"}}
