"""The driver for an event loop: what tasks ask for in one tick goes out together, and one script call decides on many.

Calls leave in *flights*: up to 32 of one kind and place are one script call. Two flights may be under way, so that
the tasks of one go on while the server decides about the other; what is asked for meanwhile waits and leaves with the
next. That changes when a call is made, never what it means.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any, Final, TypeVar, cast

import msgspec
import redis
from redis.exceptions import NoScriptError, RedisError

from opsloop.errors import StoreError
from opsloop.rate_limit.redis_core import Steps, granted
from opsloop.rate_limit.redis_dial import dial_async, failure
from opsloop.rate_limit.redis_route import HOPS, Node, Route
from opsloop.rate_limit.redis_script import ASKING, MERGED, Script, merged, split, together, wire, wire_source
from opsloop.rate_limit.redis_url import Address

__all__ = ["AsyncDriver"]

T = TypeVar("T")
FLIGHTS: Final = 2
GRACE_SECONDS: Final = 0.005
"""After the deadline, for an answer that is there already while the loop was held up elsewhere."""


class _Call(msgspec.Struct, eq=False):
    """A call that a task waits for."""

    script: Script
    future: asyncio.Future[bytes]
    place: int
    node: Node | None = None
    """Where it was sent on to."""
    asking: bool = False
    known: bool = True
    """Whether the server knows the script by its name."""
    heard: bool = False
    trouble: Exception | None = None


class AsyncDriver:
    """Makes calls from one event loop."""

    def __init__(self, address: Address, *, deadline_seconds: float) -> None:
        """Connect when first asked."""
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._deadline = deadline_seconds
        self._route = Route(address)
        self._queue: list[_Call] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._idle: dict[Node, list[Any]] = {}

    async def run(self, steps: Steps[T]) -> T:
        """Carry steps through to their value."""
        until = self.loop.time() + self._deadline
        try:
            step = next(steps)
            while True:
                try:
                    reply = await (self._rest(step, until) if isinstance(step, float) else self._call(step))
                except StoreError as failed:
                    step = steps.throw(failed)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            steps.close()

    async def close(self) -> None:
        """Send what waits, and give the connections back."""
        while self._flights:
            await asyncio.wait(self._flights)
        for connections in self._idle.values():
            for connection in connections:
                await connection.disconnect()
        self._idle.clear()

    async def _rest(self, seconds: float, until: float) -> bytes:
        """Wait, so long as that leaves time for another try. A flight does not wait: others are in it."""
        await asyncio.sleep(granted(seconds, until - self.loop.time()))
        return b""

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
        self._queue.append(_Call(script, future, self._route.place(script)))
        if not self._flights or (len(self._queue) == MERGED and len(self._flights) < FLIGHTS):
            self._depart()
        return future

    def _depart(self) -> None:
        """Let a flight leave in the next tick, with everything that is asked for until then."""
        flight = self.loop.create_task(self._fly())
        self._flights.add(flight)

    async def _fly(self) -> None:
        """Carry what waits; a flight that is late is called off, and fails everybody who waits for it or the next."""
        flight = cast("asyncio.Task[None]", asyncio.current_task(self.loop))
        taken, self._queue = self._queue[:MERGED], self._queue[MERGED:]
        # An admission that nobody waits for any more is not made; a release is, whoever was cancelled.
        calls = [call for call in taken if not (call.future.cancelled() and call.script.undo)]
        timer = self.loop.call_later(self._deadline, self._due, flight)
        cause: Exception = TimeoutError()
        try:
            await self._carry(calls)
        except asyncio.CancelledError:
            calls, self._queue = calls + self._queue, []
            if flight not in self._late:  # the loop is closing
                for call in calls:
                    call.future.cancel()
                raise
        except (RedisError, OSError) as failed:
            cause = failed
        finally:
            timer.cancel()
            self._late.discard(flight)
            self._flights.discard(flight)
            self._fail(calls, cause)
            if self._queue:
                self._depart()

    def _due(self, flight: asyncio.Task[None]) -> None:
        self._late.add(flight)
        self.loop.call_later(GRACE_SECONDS, self._call_off, flight)

    def _call_off(self, flight: asyncio.Task[None]) -> None:
        if flight in self._late:
            flight.cancel()

    def _fail(self, calls: Iterable[_Call], cause: Exception) -> None:
        told = failure(self._address, self._deadline, cause)
        for call in calls:
            if not call.future.done():
                call.future.set_exception(told)

    async def _carry(self, calls: list[_Call]) -> None:
        """Send calls to whoever is in charge of each, as far as it takes to find out who that is."""
        for _ in range(HOPS):
            parties: dict[Node, list[list[_Call]]] = {}
            for group in together(calls, key=_destination):
                node = group[0].node or self._route.node(group[0].place) or await self._found(group[0].place)
                if node is None:
                    self._fail(group, redis.ConnectionError("nobody says which server is in charge"))
                else:
                    parties.setdefault(node, []).append(group)
            trips = [self._visit(node, groups) for node, groups in parties.items()]
            await (trips[0] if len(trips) == 1 else asyncio.gather(*trips))
            calls = [call for call in calls if call.trouble is not None]
            if not calls:
                return
            self._send_on(calls)
            calls = [call for call in calls if not call.future.done()]
        raise redis.ConnectionError("the servers name each other")

    def _send_on(self, calls: list[_Call]) -> None:
        """Say where each call that met with trouble is to be tried next, or fail it."""
        hops: dict[int, tuple[Node | None, bool]] = {}
        for call in calls:
            trouble, call.trouble = cast("Exception", call.trouble), None
            call.heard = False
            if isinstance(trouble, NoScriptError):
                call.known = False
                continue
            try:
                if id(trouble) not in hops:
                    hops[id(trouble)] = self._route.after(trouble, cast("Node", call.node))
            except (RedisError, OSError) as final:
                self._fail((call,), final)
            else:
                call.node, call.asking = hops[id(trouble)]

    async def _found(self, place: int) -> Node | None:
        """Ask who is in charge of a slot, or of everything."""
        for witness in self._route.witnesses():
            connection = dial_async(self._address, witness, witness=True)
            try:
                async with asyncio.timeout(self._deadline / 2):  # so that one who is silent leaves time for another
                    await connection.connect()
                    await connection.send_command(*self._route.question)
                    self._route.learn(await connection.read_response(), witness)
            except (RedisError, OSError):
                self._route.silent(witness)
                continue
            finally:
                await connection.disconnect(nowait=True)
            found = self._route.node(place)
            if found is not None:
                return found
        return None

    async def _visit(self, node: Node, groups: list[list[_Call]]) -> None:
        """Exchange calls with one server; note with each call what the server has to say against it."""
        while True:
            idle = self._idle.setdefault(node, [])
            used = bool(idle)
            connection = idle.pop() if used else dial_async(self._address, node)
            whole = False
            try:
                if not used:
                    await connection.connect()
                await self._exchange(node, connection, groups)
                whole = True
            except (RedisError, OSError) as trouble:
                if used and not groups[0][0].heard:  # the server had closed it meanwhile
                    continue
                for call in itertools.chain.from_iterable(groups):
                    if not call.heard:
                        call.node, call.trouble = node, trouble
            finally:
                if whole:
                    idle.append(connection)
                else:
                    await connection.disconnect(nowait=True)
            return

    async def _exchange(self, node: Node, connection: Any, groups: list[list[_Call]]) -> None:
        """Send a call for each group, and hand out the answers as they come."""
        data = []
        for group in groups:
            script = group[0].script if len(group) == 1 else merged([call.script for call in group])
            data.append(wire(script) if group[0].known else wire_source(script))
            if group[0].asking:
                data[-1] = ASKING + data[-1]
        await connection.send_packed_command(data)
        for group in groups:
            try:
                if group[0].asking:
                    await connection.read_response()
                replies = split(await connection.read_response(), len(group))
            except redis.ResponseError as complaint:
                for call in group:
                    call.heard, call.node, call.trouble = True, node, complaint
                continue
            for call, reply in zip(group, replies, strict=True):
                call.heard = True
                if call.future.cancelled():
                    self._abandoned(call.script, reply)
                else:
                    call.future.set_result(reply)

    def _abandoned(self, script: Script, reply: bytes) -> None:
        """Take back an admission that came true after its caller had gone."""
        if script.undo is not None and reply[:1] == b"A":
            self._enqueue(script.undo(reply))


def _destination(call: _Call) -> tuple[object, ...]:
    return call.place, call.node, call.known, call.asking
