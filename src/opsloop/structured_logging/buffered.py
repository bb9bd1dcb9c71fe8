"""A sink that takes the work off the caller's thread: bounded, counted, flushed at exit, safe after a fork.

A :class:`Logger` over it hands over what a call said, and nothing else; the one daemon thread here makes the event,
redacts it, and writes batches to the sink behind. When the buffer is full the least valuable event is dropped
(:class:`Handover`), and one ``log.dropped`` event reports how many. A write that fails is counted in ``failed`` and its
reason kept: nothing is raised into the host.

After ``os.fork`` the child starts with an empty buffer and a thread of its own: what waited belongs to the parent,
which writes it.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Self

from opsloop.clock import Clock, SystemClock
from opsloop.event import SEVERITIES, Event
from opsloop.stream import Sink
from opsloop.structured_logging.forks import survive_forks
from opsloop.structured_logging.handover import LANES, Handover
from opsloop.structured_logging.record import FOREIGN_FAILURES

__all__ = ["BufferedSink"]

EXIT_SECONDS: Final = 5.0


class BufferedSink:
    """Hands events to ``sink`` from a thread of its own. Close it, use it in ``with``, or leave it to the exit.

    >>> from opsloop.stream import MemoryStream
    >>> stream = MemoryStream()
    >>> with BufferedSink(stream) as sink:
    ...     sink.append([Event(ts_ns=1, event="log"), Event(ts_ns=2, event="log")])
    2
    >>> len(stream), sink.written, sink.failed
    (2, 2, 0)
    """

    def __init__(self, sink: Sink, *, capacity: int = 10_000, batch: int = 500, clock: Clock | None = None) -> None:
        """Hold at most ``capacity`` events and write at most ``batch`` of them at once."""
        self._sink = sink
        self.queue = Handover(capacity=capacity)
        self._batch = batch
        self._clock = clock or SystemClock()
        self.reset()
        survive_forks(self)
        atexit.register(self.close)

    def before_fork(self) -> None:
        """Leave what waits to the parent."""

    def reset(self) -> None:
        """Start empty, with locks and a thread of its own: in the beginning, and in a forked child."""
        self.written = 0
        self.failed = 0
        self.last_error = ""
        self.queue.reset()
        self._reported: dict[str, int] = {}
        self._since_ns = self._clock.now_ns()
        self._closing = False
        self._start_lock = threading.Lock()
        self._flushes: deque[threading.Event] = deque()
        self.write_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """How many events a full buffer has cost, by severity."""
        return dict(self.queue.dropped)

    def append(self, events: Iterable[Event]) -> int:
        """Hand events over without waiting; return how many were kept. After :meth:`close` they are counted failed."""
        kept = 0
        for event in events:
            severity = SEVERITIES.index(event.severity)
            lane = LANES[-1] if event.event == "request" else LANES[severity]
            number = self.queue.draw()
            if number < self.queue.mark or self.admit(number, severity, lane):
                self.queue.lanes[lane].append((number, severity, _itself, event))
                kept += 1
        return kept

    def admit(self, number: int, severity: int, lane: int) -> bool:
        """Take the slow way in: for the first record after a rest, and for one that finds the buffer half full."""
        if self._closing:
            self.failed += 1
            self.last_error = "the sink is closed"
            return False
        self._ensure_thread()
        return self.queue.admit(number, severity, lane)

    def flush(self, timeout_seconds: float = EXIT_SECONDS) -> bool:
        """Wait until everything that was handed over is written or counted; return whether that was so in time."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            if self._closing or not len(self.queue):
                return not len(self.queue)
            self._ensure_thread()
        done = threading.Event()
        self._flushes.append(done)
        self.queue.hurry()
        return done.wait(timeout_seconds)

    def close(self, timeout_seconds: float = EXIT_SECONDS) -> None:
        """Write what waits, for at most ``timeout_seconds``, and end the thread."""
        atexit.unregister(self.close)
        self.flush(timeout_seconds)
        self._closing = True
        self.queue.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)

    def __enter__(self) -> Self:
        """Return the sink itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _ensure_thread(self) -> None:
        """Start the writer on first use, in a forked child, and again should it ever have died."""
        thread = self._thread
        if (thread is not None and thread.is_alive()) or self._closing:
            return
        with self._start_lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="opsloop-log-writer", daemon=True)
                self._thread.start()
                _flush_at_worker_exit(self)

    def _run(self) -> None:
        while True:
            asked = len(self._flushes)  # those who asked before the buffer is looked at
            if not asked and not self._closing:
                self.queue.rest()
            self._write(self.queue.take(self._batch))
            if not len(self.queue):
                for _ in range(asked):
                    self._flushes.popleft().set()
                if self._closing and not self._flushes:
                    return

    def _write(self, records: list[tuple[Any, ...]]) -> None:
        with self.write_lock:
            events = self._events(records)
            report = self._report(events)
            batch = [*events, report] if report else events
            if not batch:
                return
            try:
                self._sink.append(batch)
            except FOREIGN_FAILURES as cause:
                self._fail(len(batch), cause)
            else:
                self.written += len(batch)

    def _events(self, records: list[tuple[Any, ...]]) -> list[Event]:
        """Return the events of records, which name what makes an event of them after number and severity."""
        events: list[Event] = []
        for _, _, made, *given in records:
            try:
                event = made(*given)
            except FOREIGN_FAILURES as cause:
                self._fail(1, cause)
            else:
                if event is not None:
                    events.append(event)
        return events

    def _fail(self, count: int, cause: BaseException) -> None:
        self.failed += count
        self.last_error = f"{type(cause).__name__}: {cause}"

    def _report(self, events: list[Event]) -> Event | None:
        """Return the event that tells of what was dropped since the last one, or ``None``."""
        dropped = self.dropped
        if dropped == self._reported:
            return None
        fresh = {name: dropped.get(name, 0) - self._reported.get(name, 0) for name in SEVERITIES}
        fresh = {name: count for name, count in fresh.items() if count}
        since_ns, self._since_ns, self._reported = self._since_ns, self._clock.now_ns(), dropped
        total = sum(fresh.values())
        return Event(
            ts_ns=self._since_ns,
            event="log.dropped",
            service=events[0].service if events else "",
            severity="WARN",
            message=f"{total} events dropped, the log buffer of {self.queue.capacity} was full",
            attributes={"count": total, "dropped": fresh, "since_ns": since_ns},
        )


def _itself(event: Event) -> Event:
    return event


def _flush_at_worker_exit(sink: BufferedSink) -> None:
    """Use the finalizers of multiprocessing in a worker of it: that one leaves without ``atexit``."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, sink.close, exitpriority=100)
