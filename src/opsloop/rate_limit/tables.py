"""Where the store in memory keeps its numbers: one table per rate, per period of a quota, and per limit on slots.

A table is keyed by the scope's values alone, so a bucket costs its dictionary entry, one integer and one pointer of
the expiry wheel. Each table knows when one of its entries means nothing any more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from opsloop.clock import NANOSECONDS
from opsloop.rate_limit import concurrency, gcra
from opsloop.rate_limit.admit import HOLD_NS
from opsloop.rate_limit.decision import Demand
from opsloop.rate_limit.limit import Key

__all__ = ["STRANGERS", "Counts", "Leases", "Table", "item_of", "table_of"]

IDLE_NS: Final = 60 * NANOSECONDS
"""How long an entry is kept at least: a bucket that is full again within a second will mostly be asked for again."""
STRANGERS: Final = object()
"""Whose entry it is when a table is full: one bucket, or one count, for all newcomers together."""


class Table:
    """The numbers of one rate, or of one quota in one period, by scope values.

    It stands among the store's tables as long as it has an entry, so periods that are over leave nothing behind.
    """

    __slots__ = ("_place", "_tables", "bucket", "counts", "ends_ns")

    def __init__(self, tables: dict[Any, Table], demand: Demand) -> None:
        """Make a table for the limit of a demand; ``tables`` is where it is to stand."""
        self._tables = tables
        self._place = table_of(demand.key)
        self.bucket = demand.limit.bucket
        self.counts: dict[Any, int] = {}
        self.ends_ns = 0
        """The end of a quota's period by the store's clock, as the last admission reckoned it."""

    def enter(self, item: Any, value: int, now_ns: int) -> int:
        """Write the first number of ``item``; return when it has to be looked at again."""
        self._tables[self._place] = self
        self.counts[item] = value
        return max(self._expires_ns(item, now_ns), now_ns + IDLE_NS)

    def forget(self, item: Any, now_ns: int) -> int:
        """Forget an entry that means nothing any more and return 0, or return when to ask again."""
        expires_ns = self._expires_ns(item, now_ns)
        if expires_ns > now_ns:
            return expires_ns
        del self.counts[item]
        if not self.counts:
            del self._tables[self._place]
        return 0

    def _expires_ns(self, item: Any, now_ns: int) -> int:
        """Return when a number means nothing any more: a full bucket, or a period in which nothing can be settled."""
        if self.bucket is None:
            return self.ends_ns + HOLD_NS
        return now_ns + gcra.full_in_ns(self.bucket, self.counts[item], now_ns)


class Leases(dict[str, int]):
    """Reservation id to expiry, in order of expiry."""

    __slots__ = ("due_ns",)

    def __init__(self, due_ns: int) -> None:
        """Start empty; nothing that is added may run out before ``due_ns``."""
        self.due_ns = due_ns
        """No lease runs out before: until then all that are listed are held, and nobody has to look."""

    def drop_expired(self, now_ns: int) -> None:
        """Forget the leases that have run out."""
        for reservation in list(itertools.islice(self, concurrency.expired(self, now_ns))):
            del self[reservation]
        self.due_ns = next(iter(self.values()), now_ns)


class Counts(Mapping[Key, int]):
    """The tables as the pure core reads them: one mapping of keys to numbers. It writes nothing.

    A newcomer to a full table reads the strangers' number, since that is where its cost would go.
    """

    def __init__(self, tables: dict[Any, Table], max_keys: int) -> None:
        """Look at ``tables``, each of which has room for ``max_keys``."""
        self._tables = tables
        self._max_keys = max_keys

    def __getitem__(self, key: Key) -> int:
        table = self._tables[table_of(key)]
        value = table.counts.get(key[1])
        return table.counts[item_of(table, key, self._max_keys)] if value is None else value

    def __iter__(self) -> Iterator[Key]:
        for place, table in self._tables.items():
            for item in table.counts:
                yield (place, item) if isinstance(place, str) else (place[0], item, place[1])

    def __len__(self) -> int:
        return sum(len(table.counts) for table in self._tables.values())

    def __repr__(self) -> str:
        return repr(dict(self.items()))


def table_of(key: Key) -> Any:
    """Return under what a key's table is kept: the root of a rate, root and start of a quota's period."""
    return key[0] if len(key) == 2 else (key[0], key[2])


def item_of(table: Table, key: Key, max_keys: int) -> Any:
    """Return a key's place in its table."""
    return key[1] if key[1] in table.counts or len(table.counts) < max_keys else STRANGERS
