"""The stream's ports, its form in memory, and the buffer that never blocks the application.

:class:`Sink` takes events, :class:`Source` gives them back, :class:`Database` also answers SQL. A room is written
against these and never learns whether a list, an embedded ClickHouse or a cluster is behind them. One contract suite
runs over every form.
"""

from __future__ import annotations

import bisect
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from opsloop.event import Event
from opsloop.filter import ALL, Filter, Statement, matches

_STATE: Final = (
    "SELECT count(), sum(sequence) FROM events WHERE event IN {kinds:Array(String)} AND ts_ns <= {end_ns:Int64}"
)

__all__ = ["Buffer", "Database", "MemoryStream", "Sink", "Source", "Stream", "state_of_kinds"]


@runtime_checkable
class Sink(Protocol):
    """Where events go."""

    def append(self, events: Iterable[Event]) -> int:
        """Store events; when it returns they are stored. Return how many were new.

        An event whose non-empty ``event_id`` is stored already is not stored again. Either all events of a call are
        stored or :class:`opsloop.errors.StoreError` is raised.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Where events come from."""

    def query(
        self,
        where: Filter = ALL,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Event]:
        """Return the events that pass ``where`` with ``start_ns < ts_ns <= end_ns``, ordered by time.

        Events of one time come in the order in which they were appended. ``limit`` keeps the first of that order, so
        with ``newest_first`` the latest.
        """
        ...


@runtime_checkable
class Stream(Sink, Source, Protocol):
    """A sink that can be read again."""


@runtime_checkable
class Database(Stream, Protocol):
    """A stream that also answers SQL over the table ``events``."""

    def rows(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        ...

    def raw(self, statement: Statement, form: str) -> Generator[bytes, None, None]:
        """Run one statement and yield its answer in one of the engine's formats, such as ``Parquet``."""
        ...


def state_of_kinds(database: Database, kinds: Iterable[str], *, end_ns: int) -> tuple[int, int]:
    """Return a pair that differs once an event of these kinds, up to ``end_ns``, was stored or dropped.

    A worker that reads all decisions there ever were keeps what it made of them while the pair is the same: to ask for
    it costs a tenth of reading them.
    """
    ((n, sequences),) = database.rows(Statement(_STATE, {"kinds": list(kinds), "end_ns": end_ns}))
    return n, sequences


class MemoryStream:
    """A stream in a list: for tests, labs and small tools. Safe between threads.

    >>> stream = MemoryStream()
    >>> stream.append([Event(ts_ns=2, event="log"), Event(ts_ns=1, event="request")])
    2
    >>> [event.event for event in stream.query()]
    ['request', 'log']
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        """Start with ``events``."""
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._ids: set[str] = set()
        self.append(events)

    def append(self, events: Iterable[Event]) -> int:
        """Store events in time order; return how many were new."""
        added = 0
        with self._lock:
            for event in events:
                if event.event_id:
                    if event.event_id in self._ids:
                        continue
                    self._ids.add(event.event_id)
                bisect.insort_right(self._events, event, key=_ts_ns)
                added += 1
        return added

    def query(
        self,
        where: Filter = ALL,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Event]:
        """Return matching events; see :meth:`Source.query`."""
        with self._lock:
            low = 0 if start_ns is None else bisect.bisect_right(self._events, start_ns, key=_ts_ns)
            high = len(self._events) if end_ns is None else bisect.bisect_right(self._events, end_ns, key=_ts_ns)
            window = self._events[low:high]
        if newest_first:
            window.reverse()
        found: list[Event] = []
        for event in window:
            if limit is not None and len(found) >= limit:
                break
            if matches(where, event):
                found.append(event)
        return found

    def __iter__(self) -> Iterator[Event]:
        """Iterate over a copy, in time order."""
        return iter(self.query())

    def __len__(self) -> int:
        """Return how many events are stored."""
        return len(self._events)


def _ts_ns(event: Event) -> int:
    return event.ts_ns


class Buffer:
    """A bounded hand-over between the application and whoever writes events out. ``offer`` never waits.

    When it is full the least valuable waiting event makes room, oldest first: DEBUG and TRACE, then INFO, then WARN.
    An ERROR, a FATAL and the canonical ``request`` event are dropped last. What was dropped is counted by severity.

    >>> buffer = Buffer(capacity=1)
    >>> buffer.offer(Event(ts_ns=0, event="log", severity="DEBUG"))
    True
    >>> buffer.offer(Event(ts_ns=1, event="log", severity="ERROR"))
    True
    >>> buffer.take(10)[0].severity, dict(buffer.dropped)
    ('ERROR', {'DEBUG': 1})
    """

    def __init__(self, *, capacity: int = 10_000) -> None:
        """Hold at most ``capacity`` events."""
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, and a buffer holds at least 1 event")
        self.capacity = capacity
        self.dropped: dict[str, int] = {}
        self._lanes: tuple[deque[tuple[int, Event]], ...] = tuple(deque() for _ in range(4))
        self._sequence = 0
        self._size = 0
        self._ready = threading.Condition(threading.Lock())

    def offer(self, event: Event) -> bool:
        """Take an event without waiting; return whether this event was kept."""
        lane = _lane(event)
        with self._ready:
            if self._size >= self.capacity and not self._make_room(lane):
                self._count(event)
                return False
            self._lanes[lane].append((self._sequence, event))
            self._sequence += 1
            self._size += 1
            self._ready.notify()
        return True

    def take(self, most: int, *, timeout_seconds: float = 0.0) -> list[Event]:
        """Return up to ``most`` events in the order they came, waiting up to ``timeout_seconds`` for the first."""
        with self._ready:
            if not self._size and timeout_seconds > 0:
                self._ready.wait(timeout_seconds)
            taken: list[Event] = []
            while self._size and len(taken) < most:
                lane = min((lane for lane in self._lanes if lane), key=_first_sequence)
                taken.append(lane.popleft()[1])
                self._size -= 1
            return taken

    def wake(self) -> None:
        """End the wait of whoever is in :meth:`take`."""
        with self._ready:
            self._ready.notify_all()

    def __len__(self) -> int:
        """Return how many events wait."""
        return self._size

    def _make_room(self, lane: int) -> bool:
        for waiting in self._lanes[: lane + 1]:
            if waiting:
                self._count(waiting.popleft()[1])
                self._size -= 1
                return True
        return False

    def _count(self, event: Event) -> None:
        self.dropped[event.severity] = self.dropped.get(event.severity, 0) + 1


def _first_sequence(lane: Sequence[tuple[int, Event]]) -> int:
    return lane[0][0]


def _lane(event: Event) -> int:
    if event.event == "request" or event.severity in {"ERROR", "FATAL"}:
        return 3
    return {"WARN": 2, "INFO": 1}.get(event.severity, 0)
