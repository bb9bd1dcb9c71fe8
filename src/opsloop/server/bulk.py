"""The way of a large body of spans: read and mapped column by column, and only what is left over span by span.

The spans of a body become flat columns (:mod:`opsloop.ingest.flat`) and these become rows
(:mod:`opsloop.ingest.columnar`). Spans that are not plain are decoded and mapped by the definition, as is a whole body
that is not laid out as usual: so a bad one gets its 400 as ever. Both end in one insert.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError

from opsloop.errors import PayloadError
from opsloop.ingest import Batch, read_traces
from opsloop.ingest.acceptance import accepted_range
from opsloop.ingest.columnar import rows_of
from opsloop.ingest.flat import read_flat
from opsloop.ingest.otlp import origins_of, parse_traces
from opsloop.ingest.wire import Body, UnknownLayoutError
from opsloop.settings import Settings
from opsloop.store.columns import events_of

__all__ = ["LEAST_SPANS", "read_many_traces", "rows_in_time"]

LEAST_SPANS: Final = 100
"""From how many spans in a body on it pays to map columns."""


def read_many_traces(data: bytes) -> Batch:
    """Return what :func:`opsloop.ingest.read_traces` returns of a protobuf body, most of its events as rows.

    Below :data:`LEAST_SPANS` there are no rows. Raises :class:`opsloop.errors.PayloadError` for a body that does not
    decode.
    """
    try:
        body = Body(data)
        if len(body.starts) >= LEAST_SPANS:
            spans = read_flat(body)
            rows, odd = rows_of(spans, origins_of(parse_traces(body.rest(()))))
            batch = read_traces(body.rest(odd), json=False)
            batch.rows = rows
            return batch
    except (UnknownLayoutError, UnicodeDecodeError, pa.ArrowInvalid, DecodeError, PayloadError):
        pass  # the decoder says what is wrong with the whole body, or knows better
    return read_traces(data, json=False)


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
