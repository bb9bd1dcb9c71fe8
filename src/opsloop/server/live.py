"""Live updates: one server-sent-event stream per tab, told after each evaluation. A slow tab gets the newest only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.responses import StreamingResponse

__all__ = ["Live"]

HEARTBEAT_SECONDS = 10.0


class Live:
    """Tells every open tab that there is something new. ``tick`` may be called from any thread."""

    def __init__(self) -> None:
        """Start with no tabs."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._now_ns = 0
        self._closed = False

    def tick(self, now_ns: int) -> None:
        """Wake every tab; ``now_ns`` is the instant that was evaluated."""
        self._now_ns = now_ns
        self._wake()

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._closed = True
        self._wake()

    @property
    def tabs(self) -> int:
        """How many streams are open."""
        return len(self._waiting)

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._set_all)

    def _set_all(self) -> None:
        for event in self._waiting:
            event.set()

    def response(self) -> StreamingResponse:
        """Return the stream for one tab."""
        self._loop = asyncio.get_running_loop()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=headers)

    async def _stream(self) -> AsyncIterator[bytes]:
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            yield self._message()
            while not self._closed:
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                changed.clear()
                yield self._message()
        finally:
            self._waiting.discard(changed)

    def _message(self) -> bytes:
        data = msgspec.json.encode({"now_ns": self._now_ns}).decode()
        return f"id: {self._now_ns}\nevent: tick\nretry: 2000\ndata: {data}\n\n".encode()
