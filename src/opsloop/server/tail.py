"""``/api/logs/tail``: events as they are stored, over server-sent events, with resume and an honest gap.

A stream begins with the newest matching events (``limit``), or after ``Last-Event-ID`` with everything that was stored
since. Each message's id is the event's sequence number, so a reader that comes back goes on where it was. The heartbeat
carries the number too: a reader of rare events does not search what it has been through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from opsloop.clock import Clock
from opsloop.errors import InputError
from opsloop.event import Event, encode_event
from opsloop.filter import Filter, matches
from opsloop.store import ClickHouseStream
from opsloop.structured_logging.rows import event_of, newest_statement, stored_statement
from opsloop.structured_logging.tail import PAGE, Tail, asked_of

__all__ = ["TailStreams"]

HEARTBEAT_SECONDS = 10.0
MOST = 1_000
_MOST_DIGITS = 19


class TailStreams:
    """Serves the tail of one store; :meth:`close` ends every stream."""

    def __init__(self, database: ClickHouseStream, clock: Clock) -> None:
        """Listen to what the store takes in."""
        self._database = database
        self._clock = clock
        self.tail = Tail(last=database.last_sequence)
        database.listeners.append(self._add)

    def _add(self, events: Sequence[Event]) -> None:
        self.tail.add(events, last=self._database.last_sequence)

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self.tail.close()

    def response(self, arguments: Mapping[str, str], last_event_id: str) -> StreamingResponse:
        """Return the stream for a query line; raises :class:`OpsloopError` for one that cannot be followed."""
        unknown = sorted(set(arguments) - {"q", "limit"})
        if unknown:
            raise InputError(f"/api/logs/tail has no parameter {unknown[0]!r}", fix="use q, limit")
        asked = asked_of(arguments.get("q", ""), clock=self._clock)
        limit = arguments.get("limit") or "20"
        if not limit.isascii() or not limit.isdigit() or len(limit) > _MOST_DIGITS or int(limit) > MOST:
            raise InputError(f"limit is {limit[:40]!r}", fix=f"give a whole number from 0 to {MOST}")
        known = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _MOST_DIGITS
        after = int(last_event_id) if known else None
        stream = self._stream(asked.where, after, asked.start_ns or 0, int(limit))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def _stream(self, where: Filter, after: int | None, start_ns: int, limit: int) -> AsyncIterator[bytes]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        at = self.tail.join(wake)
        try:
            async for message in self._before(where, after, start_ns, limit, at):
                yield message
            yield _message(at, "ready", {"sequence": at})
            while not self.tail.closed:
                stretch = self.tail.after(at)
                found = [_message(number, "event", event) for number, event in stretch.events if matches(where, event)]
                if stretch.missed:
                    found.insert(0, _message(at + stretch.missed, "gap", {"missed": stretch.missed}))
                nothing, at = at == stretch.last, stretch.last
                if found:
                    yield b"".join(found)
                if nothing and not await _within(changed, HEARTBEAT_SECONDS):
                    yield f"id: {at}\n: still here\n\n".encode()
        finally:
            self.tail.leave(wake)

    async def _before(
        self, where: Filter, after: int | None, start_ns: int, limit: int, last: int
    ) -> AsyncIterator[bytes]:
        """Yield what is stored already: the newest, or all that a reader that comes back has not seen."""
        if after is None:
            statement = newest_statement(where, last=last, start_ns=start_ns, limit=limit)
            rows = await run_in_threadpool(self._database.rows, statement) if limit else []
            for number, *row in reversed(rows):
                yield _message(number, "event", event_of(row))
            return
        while after < last and not self.tail.closed:
            statement = stored_statement(where, after=after, last=last, limit=PAGE)
            rows = await run_in_threadpool(self._database.rows, statement)
            yield b"".join(_message(number, "event", event_of(row)) for number, *row in rows)
            after = rows[-1][0] if len(rows) == PAGE else last


async def _within(changed: asyncio.Event, seconds: float) -> bool:
    """Wait for a change; tell whether it came in time."""
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return False
    changed.clear()
    return True


def _message(sequence: int, kind: str, value: Any) -> bytes:
    data = encode_event(value) if isinstance(value, Event) else msgspec.json.encode(value)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (sequence, kind.encode(), data)
