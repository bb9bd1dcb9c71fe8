"""What an append stored, as its listeners are told: events that are made of rows only when somebody looks at them.

Most of what arrives in large bodies is rows already. Whoever counts them needs their columns, and the tail needs
nothing while nobody follows it; making an :class:`opsloop.event.Event` of every row costs as much as storing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

import pyarrow as pa

from opsloop.event import Event
from opsloop.store.columns import events_of

__all__ = ["Stored"]


class Stored(Sequence[Event]):
    """The events that one append stored, in the order of their sequence numbers.

    >>> stored = Stored([Event(ts_ns=1, event="log"), Event(ts_ns=2, event="request")], [])
    >>> len(stored), [event.ts_ns for event in stored]
    (2, [1, 2])
    """

    def __init__(self, events: Sequence[Event], rows: Sequence[pa.Table]) -> None:
        """Hold events, and behind them those that the tables' rows are."""
        self.events = events
        """Such as were stored as events."""
        self.rows = rows
        """Such as were stored as rows: tables of them."""
        self._size = len(events) + sum(table.num_rows for table in rows)

    @cached_property
    def _all(self) -> list[Event]:
        return [*self.events, *(event for table in self.rows for event in events_of(table))]

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
