"""Rows by what they have in common: what counting many events at once is made of, without an event of each.

A row of the store is an event; :class:`Rows` reads it column by column. What few values decide is asked once for each
of them (:class:`Coded`), and rows that are alike are one event that says so (:meth:`Rows.alike`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from opsloop.event import FIELDS, INT64_MAX, Event

__all__ = ["Coded", "Mask", "Numbers", "Rows", "columns_of"]

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_ROWS: Final = 65_536
"""Of so many rows at once there are fewer combinations of four texts than 64 bits can number."""


class Coded(NamedTuple):
    """A column, or rows in groups: the number of each row's value, and the values by number."""

    numbers: Numbers
    values: list[Any]

    @classmethod
    def of(cls, column: pa.Array) -> Coded:
        """Return a column with its values numbered in the order in which they come; none is a value, too.

        A column whose values are numbered already is taken as it is; no value of it is none.

        >>> Coded.of(pa.array(["web", None, "web"]))
        Coded(numbers=array([0, 1, 0]), values=['web', None])
        """
        is_coded = isinstance(column, pa.DictionaryArray)
        coded = column if is_coded else column.dictionary_encode(null_encoding="encode")
        return cls(coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist())

    def ask(self, question: Callable[[Any], bool]) -> Mask:
        """Return of each row whether something is so; it is asked once for each value."""
        return np.array([question(value) for value in self.values], np.bool_)[self.numbers]

    def only(self, chosen: Mask) -> Coded:
        """Return some of the rows, and the values that these have."""
        numbers = self.numbers[chosen]
        there = np.bincount(numbers, minlength=len(self.values)) > 0
        return Coded(
            (np.cumsum(there) - 1)[numbers], [self.values[number] for number in np.flatnonzero(there).tolist()]
        )

    def sizes(self) -> list[int]:
        """Return how many rows have each value."""
        return list(np.bincount(self.numbers, minlength=len(self.values)).tolist())

    def sums(self, amounts: Numbers) -> list[int]:
        """Return what the rows of each value add up to, however large it is; no amount is negative.

        >>> Coded(np.array([0, 0, 1]), ["a", "b"]).sums(np.array([2**63 - 1, 1, 5]))
        [9223372036854775808, 5]
        """
        if len(amounts) and int(amounts.max()) > INT64_MAX // len(amounts):
            amounts = amounts.astype(object)
        sums = np.zeros(len(self.values), amounts.dtype)
        np.add.at(sums, self.numbers, amounts)
        return list(sums.tolist())


def columns_of(name: str) -> tuple[str, ...]:
    """Return the columns of a row that tell a field, or the leaves under a path of the attributes.

    >>> columns_of("tenant"), columns_of("event_id"), columns_of("retry.count")
    (('tenant',), ('trace_id', 'span_id'), ('leaves',))
    """
    return ("trace_id", "span_id") if name == "event_id" else (name,) if name in FIELDS else ("leaves",)


class Rows:
    """Rows of the store, column by column, each read once."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        """Read the columns of some rows, :data:`MOST_ROWS` at most."""
        self._rows = rows
        self._coded: dict[str, Coded] = {}
        self._counts: dict[str, tuple[Numbers, Mask]] = {}

    @classmethod
    def of(cls, table: pa.Table) -> list[Rows]:
        """Return the rows of a table, so many at once as can be grouped."""
        return [cls(batch) for batch in table.combine_chunks().to_batches(max_chunksize=MOST_ROWS) if batch.num_rows]

    def coded(self, name: str) -> Coded:
        """Return a field, or the leaves under a path of the attributes; what is not there is ``None``."""
        if name not in self._coded:
            self._coded[name] = Coded.of(self._column(name))
        return self._coded[name]

    def _column(self, name: str) -> pa.Array:
        rows = self._rows
        if name == "event_id":
            return pc.binary_join_element_wise(rows["trace_id"], rows["span_id"], ":")
        return rows[name] if name in FIELDS else self._leaves(name)

    def _leaves(self, path: str) -> pa.Array:
        """Return the leaf under a path in each row; paths are numbered, so it is looked for by its number."""
        leaves = self._rows["leaves"]
        number = pc.index(leaves.keys.dictionary, path).as_py()
        edges, places = np.asarray(leaves.offsets), np.flatnonzero(np.asarray(leaves.keys.indices) == number)
        places = places[(places >= edges[0]) & (places < edges[-1])]
        of = np.full(len(leaves), -1)
        of[np.searchsorted(edges, places, side="right") - 1] = places
        return leaves.items.take(pa.array(of, mask=of < 0))

    def counts(self, name: str) -> tuple[Numbers, Mask]:
        """Return a column of whole numbers, and where there is one; elsewhere it is 0."""
        if name not in self._counts:
            column = self._rows[name]
            there = column.is_valid().to_numpy(zero_copy_only=False)
            whole = column.fill_null(0) if column.null_count else column
            self._counts[name] = whole.to_numpy().astype(np.int64), there
        return self._counts[name]

    def filled(self, name: str) -> Mask:
        """Return where a text is not empty."""
        filled: Mask = pc.binary_length(self._rows[name]).to_numpy() > 0
        return filled

    def texts(self, name: str, at: Numbers) -> list[str]:
        """Return the texts of a field in the rows at some places."""
        return list(self._rows[name].take(pa.array(at)).to_pylist())

    def ask(self, name: str, question: Callable[[Event], bool]) -> Mask:
        """Return of each row whether something is so that one field decides, or one path of the attributes."""

        def of(value: Any) -> bool:
            told = {name: value} if name in FIELDS else {"attributes": {} if value is None else {name: value}}
            return question(Event(**{"ts_ns": 0, "event": "", **told}))

        return self.coded(name).ask(of)

    def alike(self, at: Numbers, fields: Sequence[str], marks: Iterable[Mask]) -> Coded:
        """Return the rows at some places in groups that agree in fields and marks: of each an event with these fields.

        Groups are numbered in the order in which their first rows come.
        """
        columns = [Coded(coded.numbers[at], coded.values) for coded in map(self.coded, fields)]
        columns += [Coded(mark[at].astype(np.int64), [False, True]) for mark in marks]
        sizes = [len(values) for _, values in columns]
        groups = Coded.of(pa.array(np.ravel_multi_index([numbers for numbers, _ in columns], sizes)))
        chosen = zip(columns, np.unravel_index(groups.values, sizes), strict=True)
        told = [[coded.values[number] for number in numbers.tolist()] for coded, numbers in chosen]
        events = (Event(ts_ns=0, event="", **dict(zip(fields, each, strict=False))) for each in zip(*told, strict=True))
        return Coded(groups.numbers, list(events))
