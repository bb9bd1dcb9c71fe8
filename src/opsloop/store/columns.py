"""Events as the columns of the table ``events``: one Arrow record batch, which the engine reads without a text between.

Rule
    :func:`rows_of` is the definition, one event to one row in plain Python; :func:`record_batch` holds the same rows,
    column by column, and a property test holds both together. Its cost is what a commit costs on this side of the
    engine, so it walks the events once and lets Arrow pack the lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec
import pyarrow as pa

from opsloop.event import FIELDS, Event, flatten

__all__ = ["COLUMNS", "record_batch", "rows_of"]

COLUMNS: Final = (*FIELDS, "sequence", "leaves")
_TYPES: Final = {
    "ts_ns": pa.int64(),
    "status_code": pa.uint16(),
    "error": pa.bool_(),
    **dict.fromkeys(
        ("duration_us", "time_to_first_token_us", "input_tokens", "output_tokens", "cost_microusd"), pa.uint64()
    ),
}
_ATTRIBUTES: Final = FIELDS.index("attributes")
_ENCODE: Final = msgspec.json.Encoder().encode


def rows_of(events: Sequence[Event], sequence: int) -> list[tuple[Any, ...]]:
    """Return one row per event, numbered from ``sequence`` on, in the order of :data:`COLUMNS`.

    >>> rows_of([Event(ts_ns=1, event="log", attributes={"retry": {"count": 2}})], 7)[0][-3:]
    ('{"retry":{"count":2}}', 7, {'retry.count': '2'})
    """
    rows = []
    for number, event in enumerate(events, sequence):
        *fields, attributes = msgspec.structs.astuple(event)
        text = _ENCODE(attributes).decode() if attributes else ""
        rows.append((*fields, text, number, flatten(attributes)))
    return rows


def record_batch(events: Sequence[Event], sequence: int) -> pa.Table:
    """Return the same rows as Arrow columns."""
    columns: list[Any] = list(zip(*map(msgspec.structs.astuple, events), strict=True)) or [()] * len(FIELDS)
    attributes = columns[_ATTRIBUTES]
    columns[_ATTRIBUTES] = [_ENCODE(value) if value else b"" for value in attributes]
    arrays = [
        pa.array(column, pa.binary()).cast(pa.string())
        if name == "attributes"
        else pa.array(column, _TYPES.get(name, pa.string()))
        for name, column in zip(FIELDS, columns, strict=True)
    ]
    arrays.append(pa.array(range(sequence, sequence + len(events)), pa.uint64()))
    arrays.append(_leaves(attributes))
    return pa.table(arrays, names=list(COLUMNS))


def _leaves(attributes: Sequence[dict[str, Any]]) -> pa.MapArray:
    """Return what :func:`flatten` makes of each mapping, without a mapping in between."""
    paths: list[str] = []
    texts: list[str | bytes] = []
    sizes: list[int] = [0]
    for mapping in attributes:
        before = len(texts)
        values = mapping.values()
        if dict in map(type, values):
            leaves = flatten(mapping)
            paths += leaves
            texts += leaves.values()
        else:
            paths += mapping
            texts += [value if type(value) is str else _ENCODE(value) for value in values]
        sizes.append(len(texts) - before)
    return pa.MapArray.from_arrays(
        pa.array(list(accumulate(sizes)), pa.int32()),
        pa.array(paths, pa.string()),
        pa.array(texts, pa.string()),
    )
