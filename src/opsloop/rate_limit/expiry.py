"""An expiry wheel: what is due comes out a few at a time, so that no caller ever pays for a full scan."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any, Final

from opsloop.clock import NANOSECONDS

__all__ = ["ExpiryWheel"]

SLOT_NS: Final = NANOSECONDS
Forget = Callable[[Any, int], int]
"""Takes (item, time in nanoseconds); forgets the item and returns 0, or returns when to ask again."""


class ExpiryWheel:
    """Items under the whole second by which they have expired. Each costs one pointer.

    >>> kept = {"a": 1}
    >>> def forget(item, now_ns):
    ...     del kept[item]
    ...     return 0
    >>> wheel = ExpiryWheel()
    >>> wheel.add(forget, "a", 1_500_000_000)
    >>> wheel.sweep(1_900_000_000, most=4), wheel.sweep(2_000_000_000, most=4), kept
    (0, 1, {})
    """

    def __init__(self) -> None:
        """Start empty."""
        self.next_ns: int | float = math.inf
        """When the next item is due; infinity when none waits."""
        self._slots: dict[tuple[int, Forget], list[Any]] = {}
        self._order: list[tuple[int, int, Forget]] = []
        self._numbers = itertools.count()

    def add(self, forget: Forget, item: Any, expires_ns: int) -> None:
        """Have ``forget(item, now_ns)`` called once ``expires_ns`` has passed, at most a second late."""
        slot = -(-expires_ns // SLOT_NS)
        items = self._slots.get((slot, forget))
        if items is None:
            self._slots[slot, forget] = items = []
            heapq.heappush(self._order, (slot, next(self._numbers), forget))
            self.next_ns = self._order[0][0] * SLOT_NS
        items.append(item)

    def sweep(self, now_ns: int, *, most: int) -> int:
        """Ask at most ``most`` items whose time has passed; return how many were asked."""
        asked = 0
        while self.next_ns <= now_ns and asked < most:
            slot, _, forget = self._order[0]
            items = self._slots[slot, forget]
            item = items.pop()
            if not items:
                heapq.heappop(self._order)
                del self._slots[slot, forget]
                self.next_ns = self._order[0][0] * SLOT_NS if self._order else math.inf
            again_ns = forget(item, now_ns)
            if again_ns:
                self.add(forget, item, again_ns)
            asked += 1
        return asked

    def __len__(self) -> int:
        """Return how many items wait."""
        return sum(map(len, self._slots.values()))
