"""The driver for threads: it makes the calls that the steps ask for, one at a time in each thread, in time.

The connections are those of the redis package. What goes over them is written and read here: the shape of our calls and
replies never changes, and each wait gets what is left of the operation's deadline. What cannot be had is a
:class:`StoreError`, whatever the cause.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import weakref
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    InvalidResponse,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from opsloop.clock import NANOSECONDS, SystemClock
from opsloop.errors import StoreError
from opsloop.rate_limit.redis_core import Steps, granted
from opsloop.rate_limit.redis_dial import dial, failure
from opsloop.rate_limit.redis_route import HOPS, Node, Route
from opsloop.rate_limit.redis_script import ASKING, Script, wire, wire_source
from opsloop.rate_limit.redis_url import Address

__all__ = ["Driver"]

T = TypeVar("T")
READ: Final = 65_536
COMPLAINTS: Final[dict[bytes, type[Exception]]] = {
    b"NOSCRIPT": NoScriptError,
    b"MOVED": MovedError,
    b"ASK": AskError,
    b"READONLY": ReadOnlyError,
    b"CLUSTERDOWN": ClusterDownError,
    b"MASTERDOWN": ClusterDownError,
    b"TRYAGAIN": TryAgainError,
}
_monotonic_ns = SystemClock().monotonic_ns


class _Lines(threading.local):
    """A thread's own connections, in the process that opened them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.open: dict[Node, Any] = {}


class Driver:
    """Makes calls from any thread."""

    def __init__(self, address: Address, *, deadline_seconds: float) -> None:
        """Connect when first asked."""
        self._address = address
        self._deadline = deadline_seconds
        self._deadline_ns = int(deadline_seconds * NANOSECONDS)
        self._route = Route(address)
        self._lines = _Lines()
        self._all: weakref.WeakSet[Any] = weakref.WeakSet()

    def run(self, steps: Steps[T]) -> T:
        """Carry steps through to their value. All their calls together have one deadline."""
        until_ns = _monotonic_ns() + self._deadline_ns
        try:
            step = next(steps)
            while True:
                try:
                    reply = self._rest(step, until_ns) if isinstance(step, float) else self._call(step, until_ns)
                except StoreError as failed:
                    step = steps.throw(failed)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            steps.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in list(self._all):
            connection.disconnect()

    def _rest(self, seconds: float, until_ns: int) -> bytes:
        """Wait, so long as that leaves time for another try."""
        threading.Event().wait(granted(seconds, (until_ns - _monotonic_ns()) / NANOSECONDS))
        return b""

    def _call(self, script: Script, until_ns: int) -> bytes:
        """Send over the connection that is there; where none is, or it does not work, find out what does."""
        route, lines = self._route, self._lines
        node = route.node(route.place(script))
        connection = lines.open.get(node) if node is not None and lines.pid == os.getpid() else None
        try:
            if connection is not None:
                try:
                    return _exchanged(connection, wire(script), until_ns)
                except (ResponseError, redis.ConnectionError, ConnectionError):
                    pass  # the server closed it meanwhile, is not in charge any more, or has forgotten the script
            return self._routed(script, until_ns)
        except (RedisError, OSError) as cause:
            if isinstance(cause, TimeoutError) and node is not None:
                route.lost(node)
            raise failure(self._address, self._deadline, cause) from cause

    def _routed(self, script: Script, until_ns: int) -> bytes:
        """Send to whoever is in charge, as far as it takes to find out who that is."""
        route, data = self._route, wire(script)
        place = route.place(script)
        node, asking = route.node(place), False
        last: Exception = redis.ConnectionError("nobody says which server is in charge")
        for _ in range(HOPS):
            if node is None:
                node = self._found(place, until_ns)
            if node is None:
                break
            try:
                connection = self._line_to(node, until_ns)
                if asking:
                    _exchanged(connection, ASKING, until_ns)
                return _exchanged(connection, data, until_ns)
            except NoScriptError as unknown:
                last, data = unknown, wire_source(script)
            except (RedisError, OSError) as error:
                last = error
                node, asking = route.after(error, node)
        raise last

    def _found(self, place: int, until_ns: int) -> Node | None:
        """Ask who is in charge of a slot, or of everything."""
        route = self._route
        for witness in route.witnesses():
            share_ns = (until_ns + _monotonic_ns()) // 2  # so that one who is silent leaves time for another
            try:
                connection = self._opened(witness, share_ns, witness=True)
                try:
                    connection.send_command(*route.question)
                    route.learn(connection.read_response(), witness)
                finally:
                    connection.disconnect()
            except (RedisError, OSError):
                route.silent(witness)
                continue
            found = route.node(place)
            if found is not None:
                return found
        return None

    def _line_to(self, node: Node, until_ns: int) -> Any:
        """Return this thread's own connection, a new one where there was none or it was closed."""
        lines = self._lines
        if lines.pid != os.getpid():  # a fork must not share its parent's
            lines.pid, lines.open = os.getpid(), {}
        connection = lines.open.get(node)
        if connection is None or connection._sock is None:  # noqa: SLF001 - as in _exchanged()
            connection = lines.open[node] = self._opened(node, until_ns)
        return connection

    def _opened(self, node: Node, until_ns: int, *, witness: bool = False) -> Any:
        """Connect in time. Names, handshakes and logins have waits of their own, so another thread waits for them."""
        connection = dial(self._address, node, deadline_seconds=_left(until_ns), witness=witness)
        outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def attempt() -> None:
            try:
                connection.connect()
            except (RedisError, OSError) as failed:
                outcome.put(failed)
            else:
                outcome.put(None)

        threading.Thread(target=attempt, name="opsloop-redis-connect", daemon=True).start()
        try:
            failed = outcome.get(timeout=_left(until_ns))
        except queue.Empty:
            raise TimeoutError from None
        if failed is not None:
            raise failed
        self._all.add(connection)
        return connection


def _left(until_ns: int) -> float:
    """Return the seconds that are left; raise when there are none."""
    left = until_ns - _monotonic_ns()
    if left <= 0:
        raise TimeoutError
    return left / NANOSECONDS


def _exchanged(connection: Any, data: bytes, until_ns: int) -> bytes:
    """Send a command and return its reply. A connection that was left between the two is of no more use."""
    line: socket.socket | None = connection._sock  # noqa: SLF001 - all that the package does not offer
    if line is None:
        raise redis.ConnectionError("closed")
    reply = b""
    try:
        line.settimeout(_left(until_ns))
        line.sendall(data)
        reply = _rest(line, line.recv(READ), until_ns)
    finally:
        if not reply:
            connection.disconnect()
    if reply[:1] == b"-":
        code, _, rest = reply[1:].partition(b" ")
        kind = COMPLAINTS.get(code)
        raise ResponseError(reply[1:].decode()) if kind is None else kind(rest.decode())
    return reply[1:]


def _rest(line: socket.socket, data: bytes, until_ns: int) -> bytes:
    """Read a reply to its end and return it with its kind in front; ours are bulk strings, or errors (RESP)."""
    end = data.find(b"\r\n")
    while end < 0:
        data = _more(line, data, until_ns)
        end = data.find(b"\r\n")
    if data[:1] != b"$":
        if data[:1] in {b"-", b"+"}:
            return data[:end]
        raise InvalidResponse(f"{data[:20]!r} is no reply to a script of ours")
    last = end + 2 + int(data[1:end])
    while len(data) < last + 2:
        data = _more(line, data, until_ns)
    return b"$" + data[end + 2 : last]


def _more(line: socket.socket, data: bytes, until_ns: int) -> bytes:
    if not data:
        raise redis.ConnectionError("the server closed the connection")
    line.settimeout(_left(until_ns))
    more = line.recv(READ)
    if not more:
        raise redis.ConnectionError("the server closed the connection")
    return data + more
