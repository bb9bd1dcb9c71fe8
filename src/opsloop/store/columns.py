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
import numpy as np
import pyarrow as pa

from opsloop.event import FIELDS, Event, flatten

__all__ = ["COLUMNS", "add_attributes", "events_of", "numbered", "pack_attributes", "record_batch", "rows_of"]

COLUMNS: Final = (*FIELDS, "sequence", "leaves")
_TYPES: Final = {
    "ts_ns": pa.int64(),
    "status_code": pa.uint16(),
    "error": pa.bool_(),
    **dict.fromkeys(
        ("duration_us", "time_to_first_token_us", "input_tokens", "output_tokens", "cost_microusd"), pa.uint64()
    ),
}
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder().decode


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
    *fields, attributes = zip(*map(msgspec.structs.astuple, events), strict=True)
    names = FIELDS[:-1]
    arrays = {name: pa.array(column, _TYPES.get(name, pa.string())) for name, column in zip(names, fields, strict=True)}
    return numbered(pa.table({**arrays, **pack_attributes(attributes)}), sequence)


def numbered(rows: pa.Table, sequence: int) -> pa.Table:
    """Return the rows in the order of :data:`COLUMNS`, numbered from ``sequence`` on."""
    numbers = pa.array(range(sequence, sequence + rows.num_rows), pa.uint64())
    return rows.append_column("sequence", numbers).select(COLUMNS)


def pack_attributes(attributes: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    """Return the two columns that hold attributes: their JSON, and their leaves by dotted path."""
    texts = pa.array([_ENCODE(value) if value else b"" for value in attributes], pa.binary()).cast(pa.string())
    return {"attributes": texts, "leaves": _leaves(attributes)}


def add_attributes(rows: pa.Table, added: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    """Return the two columns of attributes with some added to each row, which has none of these names yet.

    The leaves are those that are there with the new ones behind: all of them in one list, then taken in row order.
    """
    texts = [
        f"{text[:-1]},{_ENCODE(new)[1:].decode()}" if new else text
        for text, new in zip(rows["attributes"].to_pylist(), added, strict=True)
    ]
    old, more = rows["leaves"].combine_chunks(), _leaves(added)
    starts = np.asarray(old.offsets), np.asarray(more.offsets)
    order = np.concatenate([np.repeat(np.arange(len(added)), np.diff(each)) for each in starts]).argsort(kind="stable")
    first = int(starts[0][0])
    keys, items = (
        pa.concat_arrays([getattr(old, part)[first : starts[0][-1]], getattr(more, part)]).take(pa.array(order))
        for part in ("keys", "items")
    )
    offsets = pa.array((starts[0] - first + starts[1]).astype(np.int32))
    return {"attributes": pa.array(texts, pa.string()), "leaves": pa.MapArray.from_arrays(offsets, keys, items)}


def events_of(rows: pa.Table) -> list[Event]:
    """Return the events that rows hold."""
    *fields, texts = (rows[name].to_pylist() for name in FIELDS)
    attributes = [_DECODE(text) if text else {} for text in texts]
    return [Event(**dict(zip(FIELDS, values, strict=True))) for values in zip(*fields, attributes, strict=True)]


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
