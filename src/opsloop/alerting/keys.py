"""Keys: the label sets (tenants, routes, models) that a rule is judged for, and the readings that belong to each.

The readings of a rule's signals are joined on their common label names *and values*: a reading of tenant A and one of
tenant B never add up, while a reading without labels belongs to every key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opsloop.alerting.route import key_of
from opsloop.verdict import Reading

__all__ = ["keys_of", "readings_of"]


def keys_of(ids: Iterable[str], readings: Iterable[Reading]) -> list[dict[str, str]]:
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
    >>> signals = [reading("latency", tenant="a"), reading("errors", tenant="b"), reading("errors")]
    >>> keys_of(["latency", "errors"], signals)
    [{'tenant': 'a'}, {'tenant': 'b'}]
    """
    by_id: dict[str, list[dict[str, str]]] = {}
    for reading in readings:
        sets = by_id.setdefault(reading.id, [])
        if reading.labels not in sets:
            sets.append(reading.labels)
    keys: list[dict[str, str]] = [{}]
    for name in ids:
        sets = by_id.get(name, [])
        joined: list[dict[str, str]] = []
        for key in keys:
            joined.extend([{**key, **labels} for labels in sets if _agree(key, labels)] or [key])
        joined.extend(labels for labels in sets if not any(_agree(key, labels) for key in keys))
        keys = list({key_of(key): key for key in joined}.values())
    maximal = [key for key in keys if not any(key.items() < other.items() for other in keys)]
    return sorted(maximal, key=key_of)


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(name, value) == value for name, value in one.items())


def readings_of(ids: Iterable[str], labels: Mapping[str, str], readings: Iterable[Reading]) -> list[Reading]:
    """Return the reading of each signal that belongs to a key: the most specific one whose labels are all the key's."""
    wanted = set(ids)
    chosen: dict[str, Reading] = {}
    for reading in sorted(readings, key=lambda one: (one.id, len(one.labels), key_of(one.labels))):
        if reading.id in wanted and reading.labels.items() <= labels.items():
            chosen[reading.id] = reading
    return list(chosen.values())
