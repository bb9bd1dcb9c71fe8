"""An expiry wheel: what is due comes out a few at a time, so that no caller ever pays for a full scan."""

from __future__ import annotations

import heapq
import math
from typing import Final, Generic, TypeVar

from opsloop.clock import NANOSECONDS

__all__ = ["ExpiryWheel"]

Item = TypeVar("Item")
SLOT_NS: Final = NANOSECONDS


class ExpiryWheel(Generic[Item]):
    """Items under the whole second by which they have expired. Each costs one pointer.

    >>> wheel = ExpiryWheel[str]()
    >>> wheel.add("a", 1_500_000_000)
    >>> wheel.due(1_900_000_000), wheel.due(2_000_000_000)
    ([], ['a'])
    """

    def __init__(self) -> None:
        """Start empty."""
        self.next_ns: int | float = math.inf
        """When the next item is due; infinity when none waits."""
        self._slots: dict[int, list[Item]] = {}
        self._order: list[int] = []

    def add(self, item: Item, expires_ns: int) -> None:
        """Have ``item`` come out once ``expires_ns`` has passed, at most a second late."""
        slot = -(-expires_ns // SLOT_NS)
        items = self._slots.get(slot)
        if items is None:
            self._slots[slot] = items = []
            heapq.heappush(self._order, slot)
            self.next_ns = self._order[0] * SLOT_NS
        items.append(item)

    def due(self, now_ns: int, *, most: int = 4) -> list[Item]:
        """Take out at most ``most`` items whose time has passed."""
        found: list[Item] = []
        while self.next_ns <= now_ns and len(found) < most:
            items = self._slots[self._order[0]]
            while items and len(found) < most:
                found.append(items.pop())
            if not items:
                del self._slots[heapq.heappop(self._order)]
                self.next_ns = self._order[0] * SLOT_NS if self._order else math.inf
        return found

    def __len__(self) -> int:
        """Return how many items wait."""
        return sum(map(len, self._slots.values()))
