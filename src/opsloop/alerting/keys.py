"""Keys: the label sets (tenants, routes, models) that a rule is judged for, and the readings that belong to each.

The readings of a rule's signals are joined on their common label names *and values*: a reading of tenant A and one of
tenant B never add up, while a reading without labels belongs to every key. It is the natural full outer join of one
table per signal, hashed on the common names, so that a thousand tenants cost a thousand look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opsloop.alerting.route import key_of
from opsloop.verdict import Reading

__all__ = ["ReadingIndex", "index_readings", "keys_of", "readings_of"]

Names = tuple[str, ...]
Values = tuple[str, ...]
Table = dict[Names, set[Values]]
"""Rows of label values under each set of label names, names sorted."""

ReadingIndex = Mapping[str, Mapping[Names, Mapping[Values, Reading]]]
"""Readings by signal, label names and label values."""


def index_readings(readings: Iterable[Reading]) -> ReadingIndex:
    """Return readings by id and labels; of two with the same both the later one stays."""
    found: dict[str, dict[Names, dict[Values, Reading]]] = {}
    for reading in readings:
        names = tuple(sorted(reading.labels))
        values = tuple(reading.labels[name] for name in names)
        found.setdefault(reading.id, {}).setdefault(names, {})[values] = reading
    return found


def keys_of(ids: Iterable[str], readings: ReadingIndex) -> list[dict[str, str]]:
    """Return the label sets that a rule over ``ids`` is judged for, ordered by their text.

    >>> from opsloop.verdict import Verdict
    >>> def reading(name, **labels):
    ...     return Reading(
    ...         id=name,
    ...         group=name,
    ...         verdict=Verdict.OK,
    ...         value=None,
    ...         threshold=None,
    ...         unit="",
    ...         n=0,
    ...         window_start_ns=0,
    ...         window_end_ns=1,
    ...         reason="",
    ...         labels=labels,
    ...     )
    >>> signals = index_readings([reading("latency", tenant="a"), reading("errors", tenant="b"), reading("errors")])
    >>> keys_of(["latency", "errors"], signals)
    [{'tenant': 'a'}, {'tenant': 'b'}]
    """
    keys: Table = {(): {()}}
    for name in ids:
        keys = _join(keys, {names: set(rows) for names, rows in readings.get(name, {}).items()})
    found = [dict(zip(names, row, strict=True)) for names, rows in _maximal(keys).items() for row in rows]
    return sorted(found, key=key_of)


def readings_of(ids: Iterable[str], labels: Mapping[str, str], readings: ReadingIndex) -> list[Reading]:
    """Return the reading of each signal that belongs to a key: the most specific one whose labels are all the key's."""
    chosen: list[Reading] = []
    for name in ids:
        tables = readings.get(name, {})
        fitting = [
            (len(names), names, rows[values])
            for names, rows in tables.items()
            if all(part in labels for part in names) and (values := tuple(labels[part] for part in names)) in rows
        ]
        if fitting:
            chosen.append(max(fitting, key=lambda one: one[:2])[2])
    return chosen


def _join(left: Table, right: Table) -> Table:
    """Return the natural full outer join of two tables."""
    joined: Table = {}
    matched_left: set[tuple[Names, Values]] = set()
    matched_right: set[tuple[Names, Values]] = set()
    for names, rows in left.items():
        for other_names, other_rows in right.items():
            common = tuple(name for name in names if name in other_names)
            every = tuple(sorted({*names, *other_names}))
            by_common: dict[Values, list[Values]] = {}
            for other in other_rows:
                by_common.setdefault(_project(other_names, other, common), []).append(other)
            for row in rows:
                for other in by_common.get(_project(names, row, common), ()):
                    merged = {**dict(zip(names, row, strict=True)), **dict(zip(other_names, other, strict=True))}
                    joined.setdefault(every, set()).add(tuple(merged[name] for name in every))
                    matched_left.add((names, row))
                    matched_right.add((other_names, other))
    for table, matched in ((left, matched_left), (right, matched_right)):
        for names, rows in table.items():
            joined.setdefault(names, set()).update(row for row in rows if (names, row) not in matched)
    return joined


def _maximal(table: Table) -> Table:
    """Drop each row that is part of a row with more labels."""
    kept: Table = {}
    for names, rows in table.items():
        wider = [(other, found) for other, found in table.items() if set(names) < set(other)]
        covered = {_project(other, row, names) for other, found in wider for row in found}
        kept[names] = rows - covered
    return kept


def _project(names: Names, row: Values, onto: Names) -> Values:
    at = dict(zip(names, row, strict=True))
    return tuple(at[name] for name in onto)
