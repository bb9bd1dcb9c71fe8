"""Many spans as a few columns: what each has once, and the attributes of all of them one after the other.

Objects
    :class:`FlatSpans` is a decoded request with nothing judged yet. :func:`flatten` makes it in Python and is the
    definition; :func:`statement` is the same as a SELECT over the protobuf body, for the embedded engine, and
    :func:`read_flat` takes its answer. A property test holds both together.
Limits
    The engine reads a span in a third of the time, but needs about ten milliseconds before the first.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "FLAG",
    "LIST",
    "NOTHING",
    "OTHER",
    "REAL",
    "SCHEMA",
    "TEXT",
    "WHOLE",
    "FlatSpans",
    "flatten",
    "read_flat",
    "source",
    "statement",
]

NOTHING, TEXT, WHOLE, REAL, FLAG, LIST, OTHER = range(7)
"""What an attribute's value is; ``OTHER`` is a tree of names or bytes."""
SCHEMA: Final = str(resources.files("opsloop.ingest").joinpath("otlp.proto"))
_KINDS: Final = {
    None: NOTHING,
    "string_value": TEXT,
    "int_value": WHOLE,
    "double_value": REAL,
    "bool_value": FLAG,
    "array_value": LIST,
}


class FlatSpans(NamedTuple):
    """Spans in the order of their body; ids are hexadecimal, times in nanoseconds."""

    group: NDArray[np.int64]
    """Which of the request's resources a span is of."""
    trace_id: pa.StringArray
    span_id: pa.StringArray
    parent_span_id: pa.StringArray
    name: pa.StringArray
    message: pa.StringArray
    kind: NDArray[np.int64]
    status: NDArray[np.int64]
    start_ns: NDArray[np.uint64]
    end_ns: NDArray[np.uint64]
    told: NDArray[np.bool_]
    """Whether it has span events."""
    starts: NDArray[np.int64]
    """Where the attributes of each span begin, and where the last one's end."""
    names: list[str]
    """Every name that occurs, once."""
    codes: NDArray[np.int64]
    """Of each attribute, the place of its name in ``names``."""
    types: NDArray[np.uint8]
    texts: pa.StringArray
    """Of each attribute its text, or "" if it is no text."""
    wholes: NDArray[np.int64]
    reals: NDArray[np.float64]
    lists: dict[int, bytes]
    """The protobuf of those attributes that are lists."""


def flatten(request: Any) -> FlatSpans:
    """Return the spans of a decoded ``ExportTraceServiceRequest`` as columns."""
    spans = [span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]
    keys: list[str] = []
    values: list[Any] = []
    starts = [0]
    for span in spans:
        for pair in span.attributes:
            value = pair.value
            keys.append(pair.key)
            values.append(value.string_value or value)  # most are texts, and only a text reads as one that is not empty
        starts.append(len(keys))
    types = np.full(len(values), TEXT, np.uint8)
    wholes, reals = np.zeros(len(values), np.int64), np.zeros(len(values))
    lists: dict[int, bytes] = {}
    for place, value in enumerate(values):
        if value.__class__ is not str:
            values[place] = ""
            which = value.WhichOneof("value")
            types[place] = kind = _KINDS.get(which, OTHER)
            if kind in {WHOLE, FLAG}:
                wholes[place] = getattr(value, which)
            elif kind == REAL:
                reals[place] = value.double_value
            elif kind == LIST:
                lists[place] = value.array_value.SerializeToString()
    names: dict[str, int] = {}
    codes = [names.setdefault(key, len(names)) for key in keys]
    return FlatSpans(
        group=_groups(request),
        trace_id=pa.array([span.trace_id.hex() for span in spans], pa.string()),
        span_id=pa.array([span.span_id.hex() for span in spans], pa.string()),
        parent_span_id=pa.array([span.parent_span_id.hex() for span in spans], pa.string()),
        name=pa.array([span.name for span in spans], pa.string()),
        message=pa.array([span.status.message for span in spans], pa.string()),
        kind=np.array([span.kind for span in spans], np.int64),
        status=np.array([span.status.code for span in spans], np.int64),
        start_ns=np.array([span.start_time_unix_nano for span in spans], np.uint64),
        end_ns=np.array([span.end_time_unix_nano for span in spans], np.uint64),
        told=np.array([bool(span.events) for span in spans], np.bool_),
        starts=np.array(starts, np.int64),
        names=list(names),
        codes=np.array(codes, np.int64),
        types=types,
        texts=pa.array(values, pa.string()),
        wholes=wholes,
        reals=reals,
        lists=lists,
    )


def _groups(request: Any) -> NDArray[np.int64]:
    sizes = [sum(len(scope.spans) for scope in group.scope_spans) for group in request.resource_spans]
    return np.repeat(np.arange(len(sizes)), sizes)


_VALUE: Final = (
    "value Tuple(text Nullable(String), flag Nullable(Bool), whole Nullable(Int64), real Nullable(Float64),"
    " list Nullable(String), tree Nullable(String), binary Nullable(String))"
)
_STRUCTURE: Final = (
    "resource_spans Array(Tuple(scope_spans Array(Tuple(spans Array(Tuple("
    "trace_id String, span_id String, parent_span_id String, name String, kind UInt32, start_ns UInt64, end_ns UInt64,"
    f" attributes Array(Tuple(key String, {_VALUE})), events Array(String),"
    " status Tuple(message String, code UInt32)))))))"
)
_TYPES: Final = " + ".join(
    f"{number} * isNotNull({letter})"
    for letter, number in (("t", TEXT), ("w", WHOLE), ("r", REAL), ("f", FLAG), ("l", LIST), ("e", OTHER), ("b", OTHER))
)
_FIELDS: Final = f"""
    lower(hex(span.trace_id)) AS trace_id, lower(hex(span.span_id)) AS span_id,
    lower(hex(span.parent_span_id)) AS parent_span_id, span.name AS name, span.status.message AS message,
    span.kind AS kind, span.status.code AS status, span.start_ns AS start_ns, span.end_ns AS end_ns,
    notEmpty(span.events) AS told, span.attributes.key::Array(LowCardinality(String)) AS names,
    arrayMap((t, f, w, r, l, e, b) -> toUInt8({_TYPES}),
        a.text, a.flag, a.whole, a.real, a.list, a.tree, a.binary) AS types,
    arrayMap(t -> ifNull(t, ''), a.text) AS texts,
    arrayMap(l -> ifNull(l, ''), arrayFilter(l -> l IS NOT NULL, a.list)) AS lists,
    arrayMap((w, f) -> ifNull(w, ifNull(toInt64(f), 0)), a.whole, a.flag) AS wholes,
    arrayMap(r -> ifNull(r, 0.), a.real) AS reals"""


def source(path: str) -> str:
    """Return the table function that reads a protobuf body from a file."""
    return f"file('{path}', ProtobufSingle, '{_STRUCTURE}')"


def statement(source: str) -> str:
    """Return the SELECT of the columns that :func:`read_flat` takes, from what :func:`source` returned."""
    groups = f"SELECT arrayJoin(resource_spans) AS g FROM {source}"
    scopes = f"SELECT arrayJoin(g.scope_spans) AS scope FROM ({groups})"
    spans = f"SELECT arrayJoin(scope.spans) AS span, span.attributes.value AS a FROM ({scopes})"
    return (
        f"SELECT {_FIELDS} FROM ({spans}) SETTINGS max_threads = 1, query_plan_enable_optimizations = 0,"
        " output_format_arrow_string_as_string = 1, output_format_arrow_low_cardinality_as_dictionary = 1,"
        f" output_format_arrow_compression_method = 'none', format_schema = '{SCHEMA}:Request'"
    )


def read_flat(table: pa.Table, request: Any) -> FlatSpans:
    """Return the columns that the engine made of a request's body."""

    def inner(name: str) -> pa.Array:
        return table[name].combine_chunks().flatten()

    def numbers(name: str) -> NDArray[Any]:
        return np.asarray(table[name])

    names, types = inner("names"), np.asarray(inner("types"))
    lists = inner("lists").cast(pa.binary()).to_pylist()
    return FlatSpans(
        group=_groups(request),
        **{name: table[name].combine_chunks() for name in ("trace_id", "span_id", "parent_span_id", "name", "message")},
        kind=numbers("kind").astype(np.int64),
        status=numbers("status").astype(np.int64),
        start_ns=numbers("start_ns"),
        end_ns=numbers("end_ns"),
        told=numbers("told").astype(np.bool_),
        starts=np.asarray(table["names"].combine_chunks().offsets, np.int64),
        names=names.dictionary.to_pylist(),
        codes=np.asarray(names.indices, np.int64),
        types=types,
        texts=inner("texts"),
        wholes=np.asarray(inner("wholes")),
        reals=np.asarray(inner("reals")),
        lists=dict(zip(np.flatnonzero(types == LIST).tolist(), lists, strict=True)),
    )
