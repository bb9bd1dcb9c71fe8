"""The exporter: sends events to a server from a thread of its own, batch by batch, and never gives one up too early.

Put it behind a :class:`BufferedSink`: ``Logger(BufferedSink(Exporter(url, spool=Spool(folder))))``. With a spool an
event is on disk before ``append`` returns and is sent even if this process dies; without one it waits in memory, and
the oldest go, counted, when ``capacity`` is reached. Every event without an ``event_id`` gets one here (this process's
id and a number), so what is sent twice, after a lost answer or a crash, is stored once.
"""

from __future__ import annotations

import atexit
import http.client
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol, Self

from opsloop.clock import Clock, Ids, SystemClock, SystemIds, seeded
from opsloop.errors import InputError
from opsloop.event import Event, decode_event, encode_event
from opsloop.structured_logging.delivery import (
    FIRST_SECONDS,
    Connection,
    Meaning,
    Reply,
    delay_seconds,
    meaning_of,
    refused_of,
    retry_after_seconds,
)
from opsloop.structured_logging.otlp import encode_otlp_logs
from opsloop.structured_logging.spool import Batch, Spool

__all__ = ["Backlog", "Exporter", "MemoryBacklog"]

EXIT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 60.0
_PATHS: Final = {"native": "/api/events", "otlp": "/v1/logs"}
_TYPES: Final = {"native": "application/x-ndjson", "otlp": "application/json"}
_LIVE: Final[weakref.WeakSet[Exporter]] = weakref.WeakSet()


class Backlog(Protocol):
    """What waits to be sent: a :class:`Spool` or a :class:`MemoryBacklog`."""

    dropped: int

    def put(self, payloads: Sequence[bytes]) -> None:
        """Append payloads."""
        ...

    def peek(self, most: int) -> Batch:
        """Return the oldest payloads without taking them."""
        ...

    def take(self, batch: Batch) -> None:
        """Forget a batch."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...

    def abandon(self) -> None:
        """Let go without a change, in a forked child."""
        ...

    def reopened(self) -> Backlog:
        """Return a new, empty one of the same kind."""
        ...

    def __len__(self) -> int:
        """Return how many payloads wait."""
        ...


class MemoryBacklog:
    """Payloads in memory; the oldest make room for new ones.

    >>> backlog = MemoryBacklog(capacity=2)
    >>> backlog.put([b"1", b"2", b"3"])
    >>> backlog.peek(9).payloads, backlog.dropped
    ([b'2', b'3'], 1)
    """

    def __init__(self, *, capacity: int) -> None:
        """Hold at most ``capacity`` payloads."""
        self.dropped = 0
        self._capacity = capacity
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._first = 0
        """The number of the oldest that waits."""

    def put(self, payloads: Sequence[bytes]) -> None:
        """Append payloads; what is over the capacity is dropped from the old end."""
        with self._lock:
            self._waiting.extend(payloads)
            while len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self._first += 1
                self.dropped += 1

    def peek(self, most: int) -> Batch:
        """Return the oldest payloads without taking them."""
        with self._lock:
            found = [self._waiting[index] for index in range(min(most, len(self._waiting)))]
            return Batch(found, self._first)

    def take(self, batch: Batch) -> None:
        """Forget a batch, as far as the capacity has not cost it already."""
        with self._lock:
            for _ in range(batch.origin + len(batch.payloads) - self._first):
                self._waiting.popleft()
                self._first += 1

    def close(self) -> None:
        """Drop what waits."""
        self.dropped += len(self._waiting)
        self._waiting.clear()

    def abandon(self) -> None:
        """Do nothing: memory is not shared."""

    def reopened(self) -> MemoryBacklog:
        """Return an empty one with the same capacity."""
        return MemoryBacklog(capacity=self._capacity)

    def __len__(self) -> int:
        """Return how many payloads wait."""
        return len(self._waiting)


class Exporter:
    """Sends events to ``url``: to our own server, or with ``protocol="otlp"`` to any OpenTelemetry collector.

    ``url`` is the server's base, such as ``http://127.0.0.1:4318``; a path in it replaces the protocol's own. Counters
    for people: ``sent``, ``rejected`` (the server's refusals), ``dropped`` (the bound's), ``retries``, ``last_error``.
    """

    def __init__(
        self,
        url: str,
        *,
        protocol: Literal["native", "otlp"] = "native",
        token: str = "",
        spool: Spool | None = None,
        capacity: int = 10_000,
        batch: int = 500,
        timeout_seconds: float = 10.0,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        """Set up and connect to nothing yet; raises :class:`ConfigError` for a ``url`` that is none."""
        headers = {"Content-Type": _TYPES[protocol]} | ({"Authorization": f"Bearer {token}"} if token else {})
        base = url.rstrip("/")
        address = base if base.count("/") != 2 else base + _PATHS[protocol]
        self._connect: Callable[[], Connection] = lambda: Connection(
            address, headers=headers, timeout_seconds=timeout_seconds
        )
        self._encode = _native if protocol == "native" else _otlp
        self._batch = batch
        self._clock = clock or SystemClock()
        self._ids = ids or SystemIds()
        self._backlog: Backlog = spool if spool is not None else MemoryBacklog(capacity=capacity)
        self._start()
        _LIVE.add(self)
        atexit.register(self.close)

    def _start(self) -> None:
        self.sent = 0
        self.rejected = 0
        self.retries = 0
        self.last_error = ""
        self._forked = False
        self._process = self._ids.trace_id()
        self._number = 0
        self._reported = self._backlog.dropped
        self._chance = seeded(self._process)
        self._connection = self._connect()
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._closing = threading.Event()
        self._flushes: deque[threading.Event] = deque()
        self._thread: threading.Thread | None = None
        if len(self._backlog):
            self._ensure_thread()  # a spool that was left by others

    @property
    def dropped(self) -> int:
        """How many events the bound has cost."""
        return self._backlog.dropped

    def append(self, events: Iterable[Event]) -> int:
        """Take events to send; with a spool they are on disk when this returns. Raises ``OSError`` when that fails."""
        if self._forked:
            self._backlog = self._backlog.reopened()
            self._start()
        with self._lock:
            lines = [encode_event(self._identified(event)) for event in events]
            dropped = self._backlog.dropped
            if dropped > self._reported:
                lines.append(encode_event(self._identified(self._report(dropped - self._reported))))
                self._reported = dropped
            self._backlog.put(lines)
        self._ensure_thread()
        self._work.set()
        return len(lines)

    def flush(self, timeout_seconds: float = EXIT_SECONDS) -> bool:
        """Wait until the server has stored everything; return whether that was so in time."""
        if self._forked or self._closing.is_set() or not len(self._backlog):
            return not len(self._backlog)
        done = threading.Event()
        self._flushes.append(done)
        self._ensure_thread()
        self._work.set()
        return done.wait(timeout_seconds)

    def close(self, timeout_seconds: float = EXIT_SECONDS) -> None:
        """Send what waits, for at most ``timeout_seconds``. What is left stays in the spool, or is counted dropped."""
        atexit.unregister(self.close)
        if self._forked or self._closing.is_set():
            return
        self.flush(timeout_seconds)
        self._closing.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        self._backlog.close()

    def __enter__(self) -> Self:
        """Return the exporter itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def leave_to_parent(self) -> None:
        """Forget everything in a forked child: what waits is the parent's to send. The next append starts anew."""
        self._backlog.abandon()
        self._forked = True

    def _identified(self, event: Event) -> Event:
        if event.event_id:
            return event
        self._number += 1
        return event.replace(event_id=f"{self._process}:{self._number}")

    def _report(self, count: int) -> Event:
        return Event(
            ts_ns=self._clock.now_ns(),
            event="log.dropped",
            severity="WARN",
            message=f"{count} events dropped, the server could not be reached for long",
            attributes={"count": count},
        )

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if (self._thread is None or not self._thread.is_alive()) and not self._closing.is_set():
                    self._thread = threading.Thread(target=self._run, name="opsloop-exporter", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            asked = len(self._flushes)
            self._work.clear()
            try:
                batch = self._backlog.peek(self._batch)
            except OSError as cause:  # such as too many open files: it is there the next time
                self.last_error = f"{type(cause).__name__}: {cause}"
                self._closing.wait(FIRST_SECONDS)
                continue
            if not batch.payloads:
                for _ in range(asked):
                    self._flushes.popleft().set()
                self._work.wait(IDLE_SECONDS)
                continue
            least_seconds = self._deliver(batch.payloads)
            if least_seconds is None:
                attempt = 0
                self._backlog.take(batch)
            else:
                attempt += 1
                self.retries += 1
                chance = self._chance.random()
                self._closing.wait(delay_seconds(attempt, chance=chance, least_seconds=least_seconds))
        self._connection.close()

    def _deliver(self, payloads: Sequence[bytes]) -> float | None:
        """Send payloads; return ``None`` when that is settled, else the least seconds until the next try."""
        try:
            reply = self._connection.post(self._encode(payloads))
        except InputError as cause:  # not readable here, as what a newer version has spooled: found by halving
            reply = Reply(413 if len(payloads) > 1 else 400, body=str(cause).encode())
        except (OSError, http.client.HTTPException) as cause:
            self.last_error = f"{type(cause).__name__}: {cause}"
            return 0.0
        match meaning_of(reply.status):
            case Meaning.STORED:
                self._count(reply, len(payloads))
                return None
            case Meaning.SPLIT if len(payloads) > 1:
                half = len(payloads) // 2
                first = self._deliver(payloads[:half])
                return self._deliver(payloads[half:]) if first is None else first
            case Meaning.LATER:
                self.last_error = _reason(reply)
                return retry_after_seconds(reply.retry_after, now_ns=self._clock.now_ns())
            case _:
                self.last_error = _reason(reply)
                self.rejected += len(payloads)
                return None

    def _count(self, reply: Reply, count: int) -> None:
        """Count what the server stored and what it would not have."""
        rejected, reason = refused_of(reply.body, count)
        if rejected:
            self.last_error = reason
        self.rejected += rejected
        self.sent += count - rejected


def _native(payloads: Sequence[bytes]) -> bytes:
    return b"\n".join((*payloads, b""))


def _otlp(payloads: Sequence[bytes]) -> bytes:
    return encode_otlp_logs(decode_event(payload) for payload in payloads)


def _reason(reply: Reply) -> str:
    return f"{reply.status}: {reply.body[:200].decode('utf-8', 'replace')}"


def _after_fork_in_child() -> None:
    for exporter in list(_LIVE):
        exporter.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
