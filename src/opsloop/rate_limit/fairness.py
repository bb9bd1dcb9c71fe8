"""Who is next: a queue that is fair over tenants and first come, first served within one.

Theory
    Every tenant has a *virtual counter*: how much of the service it has had while others waited, in tokens. The tenant
    with the smallest counter is next; being served adds the request's cost to it. So over any time in which two tenants
    both wait, what they get differs by at most one request of each, however large or many their requests are.
Lift
    A tenant that comes back is lifted to the smallest counter of those who wait: idleness earns no credit, and coming
    and going gains nothing. Once nobody waits all counters are forgotten: there is nothing to be fair about.
Place
    A request's place is its tenant's counter plus the costs of that tenant's requests before it: where it would be
    served if everybody's requests were served from now on.

Sources: virtual token counter with lift, Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024); the
places are the start tags of start-time fair queueing, Goyal et al. (1996), and so is the bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Waiting items, each of a tenant and with a cost. It knows neither time nor limits.

    >>> queue = FairQueue[str]()
    >>> for item, tenant, cost in [("a1", "a", 100), ("a2", "a", 100), ("b1", "b", 10), ("b2", "b", 10)]:
    ...     queue.join(item, tenant=tenant, cost=cost)
    >>> list(queue)
    ['a1', 'b1', 'b2', 'a2']
    """

    def __init__(self) -> None:
        """Start empty."""
        self._counters: dict[str, int] = {}
        self._floor = 0
        self._lines: dict[str, dict[Item, int]] = {}
        self._tenants: dict[Item, str] = {}
        self._number = 0
        self._numbers: dict[Item, int] = {}

    def join(self, item: Item, *, tenant: str, cost: int) -> None:
        """Put an item at the end of its tenant's line. Raises ``ValueError`` when it waits already."""
        if item in self._tenants:
            raise ValueError("it waits already")
        if tenant not in self._lines:
            self._counters[tenant] = max(self._counters.get(tenant, 0), self._floor_now())
            self._lines[tenant] = {}
        self._lines[tenant][item] = max(1, cost)
        self._tenants[item] = tenant
        self._numbers[item] = self._number
        self._number += 1

    def leave(self, item: Item, *, served: bool) -> None:
        """Take an item out, and charge its tenant if it was served. An item that does not wait is no mistake."""
        tenant = self._tenants.pop(item, None)
        if tenant is None:
            return
        self._floor = self._floor_now()
        line = self._lines[tenant]
        cost = line.pop(item)
        del self._numbers[item]
        if served:
            self._counters[tenant] += cost
        if not line:
            del self._lines[tenant]
        if not self._lines:
            self._counters.clear()
            self._floor = 0
        elif len(self._counters) > 2 * len(self._lines):
            self._forget()

    def __iter__(self) -> Iterator[Item]:
        """Iterate over all items in the order of their places; of equal ones the first that came."""
        places: list[tuple[int, int, Item]] = []
        for tenant, line in self._lines.items():
            place = self._counters[tenant]
            for item, cost in line.items():
                places.append((place, self._numbers[item], item))
                place += cost
        places.sort(key=lambda entry: entry[:2])
        return iter([item for _, _, item in places])

    def __contains__(self, item: object) -> bool:
        """Tell whether an item waits."""
        return item in self._tenants

    def __len__(self) -> int:
        """Return how many items wait."""
        return len(self._tenants)

    def _floor_now(self) -> int:
        return max(self._floor, min((self._counters[tenant] for tenant in self._lines), default=0))

    def _forget(self) -> None:
        """Forget idle tenants that a lift would bring to the floor anyway."""
        floor = self._floor_now()
        for tenant in [tenant for tenant in self._counters if tenant not in self._lines]:
            if self._counters[tenant] <= floor:
                del self._counters[tenant]
