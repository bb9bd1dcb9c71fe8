"""Intake: the paths that take events, OTLP/HTTP and JSON lines. 200 means committed.

Of OTLP's retry rules: 429, 502, 503 and 504 make a client try again and nothing else does, so every passing failure
answers 503 with ``Retry-After`` of a second, and a fault of ours is one of them. The answer has the request's encoding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from opsloop.errors import OpsloopError
from opsloop.ingest import Batch, accept, decompress, read_json_lines, read_logs, read_traces
from opsloop.server.bulk import read_many_traces, rows_in_time
from opsloop.server.problem import RETRY_SECONDS, json_response, problem, problem_of, status_of
from opsloop.server.runtime import Runtime

__all__ = ["Intake"]

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
LINES = ("application/x-ndjson", "application/jsonl", "application/json-lines", "application/json", "text/plain")


class Intake:
    """Takes bodies, commits their events, and counts both ends."""

    def __init__(self, runtime: Runtime) -> None:
        """Write through the runtime's group commit."""
        self._runtime = runtime

    async def traces(self, request: Request) -> Response:
        """``POST /v1/traces``."""
        return await self._otlp(
            request, self._read_traces, ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"
        )

    def _read_traces(self, body: bytes, *, json: bool) -> Batch:
        """Read spans: those of a protobuf body with the embedded engine's help, if there are many."""
        database = self._runtime.database
        return (
            read_traces(body, json=True)
            if json
            else read_many_traces(body, database.select if database.embedded else None)
        )

    async def logs(self, request: Request) -> Response:
        """``POST /v1/logs``."""
        return await self._otlp(
            request, read_logs, ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"
        )

    async def events(self, request: Request) -> Response:
        """``POST /api/events``: JSON lines; answers how many were accepted and why others were not."""
        kind = _content_type(request)
        if kind not in LINES:
            return problem(415, f"unknown content type {kind!r}", fix=f"send {LINES[0]}")
        try:
            batch = await self._take(request, read_json_lines)
        except OpsloopError as error:
            return problem_of(error)
        return json_response({"accepted": len(batch.events), "rejected": batch.rejected, "reasons": batch.reasons})

    async def _otlp(
        self,
        request: Request,
        read: Callable[..., Batch],
        response: Callable[[], Any],
        rejected_field: str,
        rejected_name: str,
    ) -> Response:
        kind = _content_type(request)
        if kind not in {PROTOBUF, JSON}:
            return problem(415, f"unknown content type {kind!r}", fix=f"send {PROTOBUF} or {JSON}")
        json = kind == JSON
        try:
            batch = await self._take(request, lambda body: read(body, json=json))
        except OpsloopError as error:
            return _status(status_of(error), str(error), json=json)
        if json:
            partial = {rejected_name: batch.rejected, "errorMessage": batch.reason()}
            return json_response({"partialSuccess": partial} if batch.rejected else {})
        answer = response()
        if batch.rejected:
            setattr(answer.partial_success, rejected_field, batch.rejected)
            answer.partial_success.error_message = batch.reason()
        return Response(answer.SerializeToString(), media_type=PROTOBUF)

    async def _take(self, request: Request, read: Callable[[bytes], Batch]) -> Batch:
        """Read, check and commit one body; return it once it is committed."""
        runtime = self._runtime
        limit = runtime.settings.server.max_body_bytes
        body = await _bounded_body(request, limit)
        encoding = request.headers.get("content-encoding", "")

        def work() -> Batch:
            batch = read(decompress(body, encoding, max_bytes=limit))
            days, now_ns = runtime.settings.server.retention_days, runtime.clock.now_ns()
            in_time = rows_in_time(batch, now_ns=now_ns, retention_days=days)
            return accept(in_time, now_ns=now_ns, retention_days=days)

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
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > limit:
            break
    return bytes(chunks)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _status(code: int, message: str, *, json: bool) -> Response:
    """Return an OTLP error: a ``google.rpc.Status`` in the request's encoding."""
    headers = {"Retry-After": RETRY_SECONDS} if code == 503 else {}
    if json:
        return Response(msgspec.json.encode({"message": message}), code, headers, JSON)
    text = message.encode()
    size, length = len(text), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return Response(b"\x12" + bytes(length) + text, code, headers, PROTOBUF)  # field 2 of Status is the message
