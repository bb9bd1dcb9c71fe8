"""The way of a large body of spans: validated here, mapped column by column, and only what is left over span by span.

The protobuf decoder checks the body before anything else, so a bad one gets its 400 as ever. Its spans become flat
columns (:mod:`opsloop.ingest.flat`), of a large body with the embedded engine's help, and these become rows
(:mod:`opsloop.ingest.columnar`). Spans that are not plain are mapped by the definition, and both end in one insert.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from opsloop.errors import StoreError
from opsloop.ingest import Batch, columnar, flat
from opsloop.ingest.acceptance import accepted_range
from opsloop.ingest.otlp import origins_of, parse_traces, read_spans
from opsloop.settings import Settings
from opsloop.store.columns import events_of

__all__ = ["LEAST_SPANS", "read_many_traces", "rows_in_time"]

LEAST_SPANS: Final = {"columns": 100, "engine": 1000}
"""From how many spans in a body on it pays to map columns, and to let the engine make them."""


def read_many_traces(body: bytes, select: Callable[[str], pa.Table] | None) -> Batch:
    """Return what :func:`opsloop.ingest.read_traces` returns of a protobuf body, most of its events as rows.

    ``select`` runs a statement on the embedded engine, if there is one. Below :data:`LEAST_SPANS` there are no rows.
    Raises :class:`opsloop.errors.PayloadError` for a body that does not decode.
    """
    request = parse_traces(body)
    size = sum(len(scope.spans) for group in request.resource_spans for scope in group.scope_spans)
    if size < LEAST_SPANS["columns"]:
        return read_spans(request)
    if select is None or size < LEAST_SPANS["engine"]:
        spans = flat.flatten(request)
    else:
        spans = _by_engine(request, body, select)
    rows, odd = columnar.rows_of(spans, origins_of(request))
    batch = read_spans(request, only=odd)
    batch.rows = rows
    return batch


def _by_engine(request: Any, body: bytes, select: Callable[[str], pa.Table]) -> flat.FlatSpans:
    with tempfile.NamedTemporaryFile(prefix="opsloop-", suffix=".otlp") as file:
        Path(file.name).write_bytes(body)
        try:
            return flat.read_flat(select(flat.statement(flat.source(file.name))), request)
        except StoreError:  # it can be done without; whether the store takes the events is asked later
            return flat.flatten(request)


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
