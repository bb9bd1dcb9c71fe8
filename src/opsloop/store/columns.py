"""Events as the columns of the table ``events``: one Arrow record batch, which the engine reads without a text between.

Objects
    Attributes are stored as *leaves*, their texts by dotted path, and a *shape*, their JSON with a hole for every leaf:
    each text once, where filters find it. Spans of one kind have one shape.
Rule
    :func:`rows_of` is the definition, one event to one row in plain Python; :func:`record_batch` holds the same rows,
    column by column, and a property test holds both together. Its cost is what a commit costs on this side of the
    engine, so it walks the events once and lets Arrow pack the lists. :func:`events_of` is the way back, and the
    columns ``event_id`` and ``attributes`` of the table are the same in SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from opsloop.event import FIELDS, Event, flatten

__all__ = [
    "COLUMNS",
    "HOLE",
    "events_of",
    "ids_of",
    "numbered",
    "packed",
    "record_batch",
    "rows_of",
    "shape_of",
    "written_id",
]

HOLE: Final = "\x01"
"""A character that JSON escapes, and so none of its own: it stands for a leaf in a shape, for an id of its span."""
_STORED: Final = {"event_id": "stored_event_id", "attributes": "stored_attributes"}
COLUMNS: Final = (*(_STORED.get(name, name) for name in FIELDS), "sequence", "leaves", "shape")
"""What is written; ``event_id`` and ``attributes`` follow from it."""
_CODED: Final = pa.dictionary(pa.int32(), pa.string())
"""A text that many rows share, such as a path or a shape, is written out once: that halves what is handed over."""
_LEAVES: Final = pa.map_(_CODED, pa.field("value", pa.string(), nullable=False))
_TYPES: Final = {
    "ts_ns": pa.int64(),
    **dict.fromkeys(("event", "service", "environment", "release"), _CODED),
    "status_code": pa.uint16(),
    "error": pa.bool_(),
    **dict.fromkeys(
        ("duration_us", "time_to_first_token_us", "input_tokens", "output_tokens", "cost_microusd"), pa.uint64()
    ),
}
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder().decode
_TEXT_HOLE: Final = msgspec.Raw(f'"{HOLE}"'.encode())
_OTHER_HOLE: Final = msgspec.Raw(HOLE.encode())


def rows_of(events: Sequence[Event], sequence: int) -> list[tuple[Any, ...]]:
    r"""Return one row per event, numbered from ``sequence`` on, in the order of :data:`COLUMNS`.

    >>> rows_of([Event(ts_ns=1, event="log", attributes={"retry": {"count": 2}})], 7)[0][-4:]
    ('', 7, {'retry.count': '2'}, '{"retry":{"count":\x01}}')
    """
    rows = []
    for number, event in enumerate(events, sequence):
        values = {name: getattr(event, name) for name in FIELDS}
        shape = shape_of(event.attributes)
        values["event_id"] = _stored_id(event)
        values["attributes"] = "" if shape or not event.attributes else _ENCODE(event.attributes).decode()
        rows.append((*values.values(), number, flatten(event.attributes), shape))
    return rows


def shape_of(attributes: Mapping[str, Any]) -> str:
    """Return the JSON of attributes with a hole for every leaf, or "" where the leaves do not tell them.

    That is where two paths read the same, and where there is none.

    >>> shape_of({"tags": ["a"], "retry": {"why": "slow"}}).replace(HOLE, "_")
    '{"tags":_,"retry":{"why":"_"}}'
    >>> shape_of({"a.b": 1, "a": {"b": 2}})
    ''
    """
    kinds = tuple(map(type, attributes.values()))
    if dict not in kinds:
        return _flat_shape(tuple(attributes), kinds)
    text = _ENCODE(_hollow(attributes)).decode()
    return text if text.count(HOLE) == len(flatten(attributes)) else ""


@lru_cache(maxsize=1024)
def _flat_shape(names: tuple[str, ...], kinds: tuple[type, ...]) -> str:
    """Return the shape of attributes of which none is in another: all spans of one instrumentation have a few."""
    holes = [_TEXT_HOLE if issubclass(kind, str) else _OTHER_HOLE for kind in kinds]
    return _ENCODE(dict(zip(names, holes, strict=True))).decode() if names else ""


def _hollow(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _TEXT_HOLE if isinstance(value, str) else _hollow(value) if isinstance(value, Mapping) else _OTHER_HOLE
        for key, value in node.items()
    }


def _stored_id(event: Event) -> str:
    """Return how the id is stored: as it is, or as a hole when it is that of its span."""
    name = event.event_id
    return HOLE if name == f"{event.trace_id}:{event.span_id}" else written_id(name)


def written_id(name: str) -> str:
    """Return how an id is stored that is not that of its span."""
    return HOLE + name if name.startswith(HOLE) else name


def record_batch(events: Sequence[Event], sequence: int) -> pa.Table:
    """Return the same rows as Arrow columns."""
    *fields, attributes = zip(*map(msgspec.structs.astuple, events), strict=True)
    columns = dict(zip(FIELDS[:-1], fields, strict=True)) | {"event_id": list(map(_stored_id, events))}
    arrays = {
        _STORED.get(name, name): pa.array(column, _TYPES.get(name, pa.string())) for name, column in columns.items()
    }
    return numbered(pa.table({**arrays, **_pack_attributes(attributes)}), sequence)


def numbered(rows: pa.Table, sequence: int) -> pa.Table:
    """Return the rows in the order of :data:`COLUMNS`, numbered from ``sequence`` on."""
    numbers = np.arange(sequence, sequence + rows.num_rows, dtype=np.uint64)
    return rows.append_column("sequence", pa.array(numbers)).select(COLUMNS)


def packed(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables of rows as the one that is handed over.

    Each column has one dictionary, as the format wants it, and says whether it has nulls: of one without, the engine
    need not mark for each value that it is there.
    """
    rows = pa.concat_tables(tables).unify_dictionaries()
    rows = rows.set_column(rows.schema.get_field_index("leaves"), "leaves", rows["leaves"].cast(_LEAVES))
    fields = [
        field.with_nullable(column.null_count > 0) for field, column in zip(rows.schema, rows.columns, strict=True)
    ]
    return pa.table(rows.columns, schema=pa.schema(fields))


def ids_of(rows: pa.Table) -> list[str]:
    """Return the ids of events that are rows already: a row is a span, and has that of its span."""
    joined: list[str] = pc.binary_join_element_wise(rows["trace_id"], rows["span_id"], ":").to_pylist()
    return joined


def _pack_attributes(attributes: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    """Return the three columns that hold attributes."""
    shapes = list(map(shape_of, attributes))
    texts = [b"" if shape or not value else _ENCODE(value) for shape, value in zip(shapes, attributes, strict=True)]
    return {
        "stored_attributes": pa.array(texts, pa.binary()).cast(pa.string()),
        "leaves": _leaves(attributes),
        "shape": pa.array(shapes, _CODED),
    }


def events_of(rows: pa.Table) -> list[Event]:
    """Return the events that rows hold. A row is a span, see :func:`ids_of`, and so no attribute is in another."""
    read = {"event_id": ids_of, "attributes": _attributes_of}
    columns = [read[name](rows) if name in read else rows[name].to_pylist() for name in FIELDS]
    return [Event(**dict(zip(FIELDS, values, strict=True))) for values in zip(*columns, strict=True)]


def _attributes_of(rows: pa.Table) -> list[dict[str, Any]]:
    leaves, shapes = rows["leaves"].combine_chunks(), rows["shape"].combine_chunks()
    texts = iter(leaves.items.slice(leaves.offsets[0].as_py()).to_pylist())
    flat = list(map(_flat, shapes.dictionary.to_pylist()))
    return [
        {name: text if is_text else _DECODE(text) for (name, is_text), text in zip(flat[shape], texts, strict=False)}
        for shape in shapes.indices.to_pylist()
    ]


@lru_cache(maxsize=1024)
def _flat(shape: str) -> tuple[tuple[str, bool], ...]:
    """Return the names in a shape where none is in another, and whether each has a text."""
    empty = _DECODE(shape.replace(f'"{HOLE}"', '""').replace(HOLE, "0"))
    return tuple((name, value == "") for name, value in empty.items())


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
            texts += [value if isinstance(value, str) else _ENCODE(value) for value in values]
        sizes.append(len(texts) - before)
    return pa.MapArray.from_arrays(
        pa.array(list(accumulate(sizes)), pa.int32()),
        pa.array(paths, _CODED),
        pa.array(texts, pa.string()),
    )
