"""The way of a large body of spans: validated here, mapped by the engine, and only what it leaves over in Python.

The protobuf decoder checks the body before anything else, so a bad one gets its 400 as ever. Then one SELECT
(:mod:`opsloop.ingest.columnar`) makes rows of its spans. Content that is more than one text is found by the definition,
spans that are not ``plain`` are mapped by it as a whole, and both end in the same insert.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from opsloop.errors import StoreError
from opsloop.ingest import Batch, columnar
from opsloop.ingest.acceptance import accepted_range
from opsloop.ingest.attributes import Attributes
from opsloop.ingest.content import content_of
from opsloop.ingest.otlp import parse_traces, read_spans
from opsloop.settings import Settings
from opsloop.store.columns import add_attributes, events_of

__all__ = ["read_many_traces", "rows_in_time"]

_DECODE = msgspec.json.Decoder().decode


def read_many_traces(body: bytes, select: Callable[[str], pa.Table]) -> Batch:
    """Return what :func:`opsloop.ingest.read_traces` returns of a protobuf body, most of its events as rows.

    ``select`` runs a statement on the embedded engine. Below :data:`columnar.LEAST_SPANS` spans there are no rows.
    Raises :class:`opsloop.errors.PayloadError` for a body that does not decode.
    """
    request = parse_traces(body)
    spans = sum(len(scope.spans) for group in request.resource_spans for scope in group.scope_spans)
    if spans < columnar.LEAST_SPANS:
        return read_spans(request)
    with tempfile.NamedTemporaryFile(prefix="opsloop-", suffix=".otlp") as file:
        Path(file.name).write_bytes(body)
        try:
            table = select(columnar.statement(columnar.source(file.name)))
        except StoreError:  # the mapping in Python needs no engine; whether the store takes the events is asked later
            return read_spans(request)
    plain = pc.fill_null(table["plain"], 0)
    odd = pc.indices_nonzero(pc.equal(plain, 0)).to_pylist()
    rows = table.filter(pc.cast(plain, pa.bool_())).drop_columns(["plain"])
    batch = read_spans(request, only=odd)
    batch.rows = _with_content(rows)
    return batch


def rows_in_time(batch: Batch, *, now_ns: int, settings: Settings) -> Batch:
    """Return the batch with such rows as have an acceptable time; others become events, for ``accept`` to judge."""
    if batch.rows is None:
        return batch
    oldest_ns, newest_ns = accepted_range(now_ns=now_ns, settings=settings)
    good = pc.and_(pc.greater_equal(batch.rows["ts_ns"], oldest_ns), pc.less_equal(batch.rows["ts_ns"], newest_ns))
    if pc.all(good, min_count=0).as_py():
        return batch
    late = events_of(batch.rows.filter(pc.invert(good)))
    return Batch([*batch.events, *late], batch.rows.filter(good), batch.rejected, list(batch.reasons))


def _with_content(rows: pa.Table) -> pa.Table:
    """Return the rows with the content found where ``for_content`` holds what it is to be looked for in."""
    telling = zip(rows["for_content"].to_pylist(), rows["event"].to_pylist(), strict=True)
    found = [content_of(Attributes(_DECODE(text)), kind=kind) if text else {} for text, kind in telling]
    rows = rows.drop_columns(["for_content"])
    return add_attributes(rows, found) if any(found) else rows
