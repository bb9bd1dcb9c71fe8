"""Intake: the paths that take events, OTLP/HTTP and JSON lines. 200 means committed.

Of OTLP's retry rules: 429, 502, 503 and 504 make a client try again and nothing else does, so every passing failure
answers 503 with ``Retry-After`` of a second, and a fault of ours is one of them. The answer has the request's encoding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from opsloop.errors import OpsloopError
from opsloop.ingest import Batch, accept, decompress, read_json_lines, read_logs, read_metrics, read_traces
from opsloop.server.bulk import read_many_traces, rows_in_time
from opsloop.server.problem import headers_of, json_response, problem, problem_of, status_of
from opsloop.server.rpc import rpc_status
from opsloop.server.runtime import Runtime

__all__ = ["Intake", "Signal"]

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
LINES = ("application/x-ndjson", "application/jsonl", "application/json-lines", "application/json", "text/plain")


class Signal(msgspec.Struct, frozen=True):
    """One of OTLP's signals: how its bodies are read, and how its answer is written."""

    name: str
    """The last part of its path: ``traces``, ``logs`` or ``metrics``."""
    read: Callable[..., Batch]
    response: Callable[[], Any]
    rejected_field: str
    rejected_name: str

    def answer(self, batch: Batch) -> bytes:
        """Return the response in protobuf; ``partial_success`` is set only when something was rejected."""
        answer = self.response()
        if batch.rejected:
            setattr(answer.partial_success, self.rejected_field, batch.rejected)
            answer.partial_success.error_message = batch.reason()
        encoded: bytes = answer.SerializeToString()
        return encoded

    def json_answer(self, batch: Batch) -> dict[str, Any]:
        """Return the response as OTLP/JSON shapes it."""
        partial_success = {self.rejected_name: batch.rejected, "errorMessage": batch.reason()}
        return {"partialSuccess": partial_success} if batch.rejected else {}


class Intake:
    """Takes bodies, commits their events, and counts both ends."""

    def __init__(self, runtime: Runtime) -> None:
        """Write through the runtime's group commit."""
        self._runtime = runtime
        gauges = runtime.settings.gauge
        self.signals = (
            Signal("traces", _read_traces, ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
            Signal("logs", read_logs, ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
            Signal(
                "metrics",
                partial(read_metrics, gauges=gauges),
                ExportMetricsServiceResponse,
                "rejected_data_points",
                "rejectedDataPoints",
            ),
        )
        """What OTLP sends."""
        self._read_lines = partial(read_json_lines, gauges=gauges)

    async def otlp(self, request: Request, signal: Signal) -> Response:
        """``POST /v1/traces``, ``/v1/logs`` and ``/v1/metrics``."""
        kind = _content_type(request)
        if kind not in {PROTOBUF, JSON}:
            return problem(415, f"unknown content type {kind!r}", fix=f"send {PROTOBUF} or {JSON}")
        json = kind == JSON
        try:
            batch = await self._body(request, partial(signal.read, json=json))
        except OpsloopError as error:
            return _status(status_of(error), str(error), json=json)
        return json_response(signal.json_answer(batch)) if json else Response(signal.answer(batch), 200, {}, PROTOBUF)

    async def events(self, request: Request) -> Response:
        """``POST /api/events``: JSON lines; answers how many were accepted and why others were not."""
        kind = _content_type(request)
        if kind not in LINES:
            return problem(415, f"unknown content type {kind!r}", fix=f"send {LINES[0]}")
        try:
            batch = await self._body(request, self._read_lines)
        except OpsloopError as error:
            return problem_of(error)
        return json_response({"accepted": len(batch.events), "rejected": batch.rejected, "reasons": batch.reasons})

    async def _body(self, request: Request, read: Callable[[bytes], Batch]) -> Batch:
        limit = self._runtime.settings.server.max_body_bytes
        body = await _bounded_body(request, limit)
        encoding = request.headers.get("content-encoding", "")
        return await self.take(lambda: read(decompress(body, encoding, max_bytes=limit)))

    async def take(self, read: Callable[[], Batch]) -> Batch:
        """Read, check and commit one body; return it once it is committed, however it came.

        Raises :class:`OpsloopError` for a body that is refused whole or cannot be stored now.
        """
        runtime = self._runtime

        def work() -> Batch:
            now_ns, settings = runtime.clock.now_ns(), runtime.settings
            return accept(rows_in_time(read(), now_ns=now_ns, settings=settings), now_ns=now_ns, settings=settings)

        try:
            batch = await run_in_threadpool(work)
            if batch.accepted:
                await asyncio.wrap_future(runtime.commits.submit(batch.events, batch.rows))
        except OpsloopError:
            runtime.counters["bodies_refused"] += 1
            raise
        runtime.counters["events_accepted"] += batch.accepted
        runtime.counters["events_rejected"] += batch.rejected
        if batch.rejected:
            runtime.last_rejection = batch.reason()
        return batch


async def _bounded_body(request: Request, limit: int) -> bytes:
    """Return the body, refusing it as soon as it is known to be over the limit."""
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    return b"".join(chunks)


def _read_traces(body: bytes, *, json: bool) -> Batch:
    """Read spans: those of a protobuf body column by column, if there are many."""
    return read_traces(body, json=True) if json else read_many_traces(body)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _status(code: int, message: str, *, json: bool) -> Response:
    """Return an OTLP error: a ``google.rpc.Status`` in the request's encoding."""
    if json:
        return Response(msgspec.json.encode({"message": message}), code, headers_of(code), JSON)
    return Response(rpc_status(message), code, headers_of(code), PROTOBUF)
