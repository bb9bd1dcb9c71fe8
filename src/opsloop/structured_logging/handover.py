"""The hand-over between a log call and the thread that writes: bounded, ordered, and without a lock on the way in.

A caller draws a number, compares it with ``mark``, and appends to the deque of its lane; each of these is one atomic
step of the interpreter. Only when the number has reached the mark does it take the lock: to wake a sleeping writer, to
hurry a slow one, or to make room. Lanes are by value (DEBUG, INFO, WARN, ERROR with the canonical line); when all of
them together are full, the oldest of the least valuable lane goes, and is counted.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import Any, Final

from opsloop.event import SEVERITIES

__all__ = ["LANES", "Handover"]

LANES: Final = (0, 0, 1, 2, 3, 3)
"""The lane of each severity, in the order of :data:`opsloop.event.SEVERITIES`."""
_LAST: Final = 3
IDLE_SECONDS: Final = 0.5
NAP_SECONDS: Final = 0.05
"""How long a writer gathers before it looks again."""
NAPS: Final = 20
"""After this many naps without a record the writer sleeps, and the next caller wakes it: that costs the caller more
than the call itself, so it must not happen in every batch."""


class Handover:
    """Bounded lanes of records. A record is a tuple that begins with the number from ``draw`` and its severity's index.

    >>> queue = Handover(capacity=1)
    >>> queue.put(1, 0, "early"), queue.put(4, 3, "error"), queue.put(1, 0, "late")
    (True, True, False)
    >>> queue.take(9), queue.dropped
    ([(1, 4, 'error')], {'DEBUG': 2})
    """

    def __init__(self, *, capacity: int) -> None:
        """Hold at most ``capacity`` records; raises ``ValueError`` for less than one."""
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, and a buffer holds at least 1 event")
        self.capacity = capacity
        self.draw = itertools.count().__next__
        self.lanes: tuple[deque[tuple[Any, ...]], ...] = tuple(deque() for _ in range(_LAST + 1))
        self._gone = 0
        self.reset()

    def reset(self) -> None:
        """Forget what waits, with locks of its own: in the beginning, and in a forked child."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self.dropped: dict[str, int] = {}
        self.closed = False
        self._gone += len(self)
        for lane in self.lanes:
            lane.clear()
        self.mark = 0
        self._naps = 0

    def put(self, severity: int, lane: int, *fields: Any) -> bool:
        """Append a record without waiting; return whether it was kept."""
        number = self.draw()
        if number >= self.mark and not self.admit(number, severity, lane):
            return False
        self.lanes[lane].append((number, severity, *fields))
        return True

    def admit(self, number: int, severity: int, lane: int) -> bool:
        """Wake the writer, hurry it, or make room; return whether the record of this number may be appended."""
        with self._lock:
            waiting = number - self._gone
            if self.closed or (waiting >= self.capacity and not self._make_room(lane)):
                self._count(severity)
                return False
            self._set_mark(waiting)
            if waiting >= self.capacity // 2:
                self._hurry.set()
            self._wake.set()
        return True

    def take(self, most: int) -> list[tuple[Any, ...]]:
        """Remove and return up to ``most`` records in the order in which they were handed over."""
        taken: list[tuple[Any, ...]] = []
        with self._lock:
            while len(taken) < most:
                filled = [lane for lane in self.lanes if lane]
                if len(filled) > 1:
                    taken.append(min(filled, key=_number).popleft())
                elif filled:
                    (lane,) = filled
                    taken += [lane.popleft() for _ in range(min(len(lane), most - len(taken)))]
                else:
                    break
            self._gone += len(taken)
            self._set_mark(len(self))
        return taken

    def rest(self) -> None:
        """Nap while records come, sleep once they do not; :meth:`hurry` ends both."""
        self._naps = 0 if len(self) else self._naps + 1
        if self._naps > NAPS:
            with self._lock:
                self.mark = 0
            if not len(self):
                self._wake.wait(IDLE_SECONDS)
                self._naps = 0 if self._wake.is_set() else self._naps
        self._wake.clear()
        self._hurry.wait(NAP_SECONDS)
        self._hurry.clear()

    def hurry(self) -> None:
        """End the writer's rest."""
        self._hurry.set()
        self._wake.set()

    def close(self) -> None:
        """Refuse what comes from now on, and end the writer's rest."""
        with self._lock:
            self.closed = True
            self.mark = 0
        self.hurry()

    def __len__(self) -> int:
        """Return how many records wait."""
        return sum(map(len, self.lanes))

    def _set_mark(self, waiting: int) -> None:
        half = self.capacity // 2
        self.mark = 0 if self.closed else self._gone + (half if waiting < half else self.capacity)

    def _make_room(self, lane: int) -> bool:
        for waiting in self.lanes[: lane + 1]:
            if waiting:
                self._count(waiting.popleft()[1])
                return True
        return False

    def _count(self, severity: int) -> None:
        self._gone += 1
        name = SEVERITIES[severity]
        self.dropped[name] = self.dropped.get(name, 0) + 1


def _number(lane: deque[tuple[Any, ...]]) -> int:
    return int(lane[0][0])
