"""``Tail``: the events stored last, in a bounded ring that any number of readers follow, each at its own pace.

Every event has a sequence number, one more than the one stored before it; an insert that failed leaves numbers that
nobody is known to have, and nothing is told of those. A reader is a number: the last one that it
has dealt with. It asks what came after; whatever has left the ring by then is counted and said, never passed over in
silence. Joining, a reader is told the number that the ring begins after: what is stored up to it is read from the
store, what comes later from the ring, so nothing is lost or doubled between the two.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence

import msgspec

from opsloop.clock import Clock
from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.stream import Database
from opsloop.structured_logging.grammar import Query, parse_query
from opsloop.structured_logging.rows import event_of, newest_statement, stored_statement

__all__ = ["CAPACITY", "PAGE", "Stretch", "Tail", "asked_of", "look"]

CAPACITY = 10_000
PAGE = 1_000


class Stretch(msgspec.Struct, frozen=True):
    """What came after a sequence number."""

    events: tuple[tuple[int, Event], ...]
    """Each with its sequence number."""
    last: int
    """The number to ask on from."""
    missed: int
    """How many events before these had left the ring."""


class Tail:
    """The ring. It holds nothing while nobody reads. Safe between threads.

    >>> tail = Tail(last=7, capacity=2)
    >>> after = tail.join(lambda: None)
    >>> tail.add([Event(ts_ns=n, event="log") for n in range(3)], last=10)
    >>> stretch = tail.after(after)
    >>> stretch.missed, [sequence for sequence, _ in stretch.events], stretch.last
    (1, [9, 10], 10)
    """

    def __init__(self, *, last: int = 0, capacity: int = CAPACITY) -> None:
        """Begin after the event with the sequence number ``last``."""
        self._lock = threading.Lock()
        self._ring: deque[Event | None] = deque(maxlen=capacity)
        self._last = last
        self._readers: dict[int, Callable[[], None]] = {}
        self._tickets = itertools.count()
        self.closed = False

    def add(self, events: Sequence[Event], *, last: int) -> None:
        """Take what was stored next, in order and numbered up to ``last``; wake every reader."""
        with self._lock:
            unknown = last - len(events) - self._last
            self._last = last
            if self._readers:
                self._ring.extend([None] * min(unknown, self._ring.maxlen or 0))
                self._ring.extend(events)
            woken = tuple(self._readers.values())
        for wake in woken:
            wake()

    def join(self, wake: Callable[[], None]) -> int:
        """Begin to read: ``wake`` is called after each addition. Return the number that the ring goes on from."""
        with self._lock:
            self._readers[next(self._tickets)] = wake
            return self._last

    def leave(self, wake: Callable[[], None]) -> None:
        """End reading; the last one out empties the ring."""
        with self._lock:
            self._readers = {ticket: other for ticket, other in self._readers.items() if other is not wake}
            if not self._readers:
                self._ring.clear()

    @property
    def readers(self) -> int:
        """How many read."""
        return len(self._readers)

    def after(self, sequence: int, *, limit: int = 500) -> Stretch:
        """Return up to ``limit`` events after a sequence number."""
        with self._lock:
            first = self._last - len(self._ring) + 1
            begin = max(sequence + 1, first)
            found = tuple(itertools.islice(self._ring, begin - first, begin - first + limit))
        events = tuple((number, event) for number, event in enumerate(found, begin) if event is not None)
        return Stretch(events, begin + len(found) - 1, begin - sequence - 1)

    def close(self) -> None:
        """Let every reader go."""
        with self._lock:
            self.closed = True
            woken = tuple(self._readers.values())
        for wake in woken:
            wake()


def asked_of(line: str, *, clock: Clock) -> Query:
    """Return what a line asks of a tail; raises :class:`InputError` for what has an end."""
    asked = parse_query(line, now_ns=clock.now_ns())
    if asked.summary is not None or asked.end_ns is not None:
        raise InputError("a tail has no end and no sum", fix="leave out until: and |")
    return asked


def look(
    database: Database, line: str, *, clock: Clock, after: int | None = None, limit: int = PAGE
) -> Generator[tuple[str, Event], None, int]:
    """Yield the newest events of a store that another process writes, or those after a sequence number.

    Returns the number to look on from.
    """
    asked = asked_of(line, clock=clock)
    ((last,),) = database.rows(Statement("SELECT max(sequence) FROM events"))
    if after is None:
        rows = database.rows(newest_statement(asked.where, last=last, start_ns=asked.start_ns or 0, limit=limit))
        for _, *row in reversed(rows):
            yield "event", event_of(row)
        return int(last)
    while after < last:
        rows = database.rows(stored_statement(asked.where, after=after, last=last, limit=PAGE))
        for _, *row in rows:
            yield "event", event_of(row)
        after = rows[-1][0] if len(rows) == PAGE else last
    return after
