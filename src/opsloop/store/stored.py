"""What an append stored, as its listeners are told: events that are made of rows only when somebody looks at them.

Most of what arrives in large bodies is rows already. Whoever counts requests needs no span below them, and the tail
needs nothing while nobody follows it; making an :class:`opsloop.event.Event` of every row costs as much as storing it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import overload

import pyarrow as pa

from opsloop.event import FIELDS, Event
from opsloop.store.columns import events_of

__all__ = ["Stored"]


class Stored(Sequence[Event]):
    """The events that one append stored, in the order of their sequence numbers.

    >>> stored = Stored([Event(ts_ns=1, event="log"), Event(ts_ns=2, event="request")], [])
    >>> len(stored), [event.ts_ns for event in stored.of({"request"})]
    (2, [2])
    """

    def __init__(self, events: Sequence[Event], tables: Sequence[pa.Table]) -> None:
        """Hold events, and behind them those that the tables' rows are."""
        self._events = events
        self._tables = tables
        self._size = len(events) + sum(table.num_rows for table in tables)

    def of(self, kinds: Collection[str], *, fields: Collection[str] = FIELDS) -> list[Event]:
        """Return the events of some kinds; of those that are rows, no more fields need be read than are looked at."""
        rows = (event for table in self._tables for event in events_of(table, kinds=kinds, fields=fields))
        return [*(event for event in self._events if event.event in kinds), *rows]

    @cached_property
    def _all(self) -> list[Event]:
        return [*self._events, *(event for table in self._tables for event in events_of(table))]

    def __len__(self) -> int:
        """Return how many there are."""
        return int(self._size)

    def __iter__(self) -> Iterator[Event]:
        """Iterate over all of them."""
        return iter(self._all)

    @overload
    def __getitem__(self, place: int) -> Event: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Event]: ...

    def __getitem__(self, place: int | slice) -> Event | Sequence[Event]:
        """Return one of them, or some."""
        found: Event | Sequence[Event] = self._all[place]
        return found
