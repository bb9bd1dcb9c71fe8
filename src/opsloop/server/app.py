"""The ASGI application: intake, every room's endpoints, live updates, health, metrics and the pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Match, Route

from opsloop.endpoint import Download, Endpoint
from opsloop.errors import InputError, OpsloopError, StoreError
from opsloop.integrations.exposition import OPEN_METRICS, TEXT
from opsloop.server.auth import Gatekeeper
from opsloop.server.catalogue import all_endpoints
from opsloop.server.intake import Intake
from opsloop.server.metrics import exposition
from opsloop.server.openapi import document
from opsloop.server.pages import Pages
from opsloop.server.problem import json_response, problem, problem_of
from opsloop.server.runtime import Runtime
from opsloop.settings import environment
from opsloop.store.damage import DamagedPart, parts_set_aside

__all__ = ["build_app"]

Handler = Callable[[Request], Awaitable[Response]]


def build_app(runtime: Runtime, *, gatekeeper: Gatekeeper | None = None) -> Starlette:
    """Return the application over a runtime; ``gatekeeper`` defaults to the tokens of the environment."""
    gate = gatekeeper or Gatekeeper(environment(), host=runtime.settings.server.host)
    endpoints = all_endpoints(runtime.database, runtime.settings, runtime.clock)
    pages = Pages(next(item for item in endpoints if item.path == "/api/signals"))
    routes: list[BaseRoute] = [
        *_intake_routes(Intake(runtime), gate),
        *(_endpoint_route(item, gate) for item in endpoints),
        *_operation_routes(runtime, gate, endpoints),
        Route("/api/{rest:path}", _unknown_path, methods=["GET", "POST", "PUT", "DELETE"]),
        Route("/v1/{rest:path}", _unknown_path, methods=["GET", "POST"]),
        Route("/{path:path}", _guarded(pages.answer, gate, "read")),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_problem, Exception: _unforeseen})


def _guarded(handler: Handler, gate: Gatekeeper, scope: str) -> Handler:
    async def answer(request: Request) -> Response:
        refusal = gate.refusal(request, scope)
        return refusal if refusal is not None else await handler(request)

    return answer


def _intake_routes(intake: Intake, gate: Gatekeeper) -> list[BaseRoute]:
    """Return the paths that take events; an OTLP path is also known with its slash, doubled, or as Langfuse's."""
    routes: list[BaseRoute] = [Route("/api/events", _guarded(intake.events, gate, "ingest"), methods=["POST"])]
    for signal in intake.signals:
        answer = _guarded(partial(intake.otlp, signal=signal), gate, "ingest")
        path = f"/v1/{signal.name}"
        paths = (path, f"{path}/", f"{path}{path}", f"/api/public/otel{path}")
        routes += [Route(path, answer, methods=["POST"]) for path in paths]
    return routes


def _endpoint_route(endpoint: Endpoint, gate: Gatekeeper) -> Route:
    known = {parameter.name for parameter in endpoint.parameters} | set(_names_in(endpoint.path))

    async def answer(request: Request) -> Response:
        arguments = {**request.query_params, **{name: str(value) for name, value in request.path_params.items()}}
        try:
            unknown = sorted(set(arguments) - known)
            if unknown:
                message = f"{endpoint.path} has no parameter {unknown[0]!r}"
                raise InputError(message, fix=f"use {', '.join(sorted(known)) or 'none'}")
            value = await run_in_threadpool(endpoint.handler, arguments, await request.body())
            return _download(value) if isinstance(value, Download) else json_response(value)
        except OpsloopError as error:
            return problem_of(error)

    return Route(endpoint.path, _guarded(answer, gate, endpoint.scope), methods=[endpoint.method])


def _download(value: Download) -> StreamingResponse:
    """Return the chunks as they are made; whoever leaves early ends the making too."""

    async def chunks() -> AsyncIterator[bytes]:
        try:
            async for chunk in iterate_in_threadpool(value.chunks):
                yield chunk
        finally:
            value.chunks.close()

    headers = {"Content-Disposition": f'attachment; filename="{value.filename}"', "Cache-Control": "no-store"}
    return StreamingResponse(chunks(), media_type=value.media_type, headers=headers)


def _names_in(path: str) -> list[str]:
    return [part.strip("{}") for part in path.split("/") if part.startswith("{")]


def _operation_routes(runtime: Runtime, gate: Gatekeeper, endpoints: Sequence[Endpoint]) -> list[BaseRoute]:
    async def live(_: Request) -> Response:
        return runtime.live.response()

    async def tail(request: Request) -> Response:
        try:
            return runtime.tails.response(request.query_params, request.headers.get("last-event-id", ""))
        except OpsloopError as error:
            return problem_of(error)

    async def health(_: Request) -> Response:
        return json_response(await run_in_threadpool(_health, runtime))

    async def metrics(request: Request) -> Response:
        modern = "application/openmetrics-text" in request.headers.get("accept", "")
        text = await run_in_threadpool(exposition, runtime, openmetrics=modern)
        return Response(text, headers={"Content-Type": OPEN_METRICS if modern else TEXT, "Vary": "Accept"})

    async def openapi(_: Request) -> Response:
        return json_response(document(endpoints))

    return [
        Route("/api/live", _guarded(live, gate, "read")),
        Route("/api/logs/tail", _guarded(tail, gate, "read")),
        Route("/health", health),
        Route("/metrics", _guarded(metrics, gate, "read")),
        Route("/api/openapi.json", _guarded(openapi, gate, "read")),
    ]


def _health(runtime: Runtime) -> dict[str, Any]:
    """Return how the server is: degraded after a worker failed, while nothing can be stored, and with rows missing."""
    workers, commits = runtime.workers, runtime.commits
    failures = dict(workers.failures) if workers else {}
    said = {"last_commit_failure": commits.last_failure, "store_failure": ""}
    said["last_failure"] = workers.last_failure if workers and failures else ""
    damage: list[DamagedPart] = []
    try:
        damage = parts_set_aside(runtime.database)
    except StoreError as error:
        said["store_failure"] = str(error)
    said = {name: text for name, text in said.items() if text}
    return {
        "status": "degraded" if said or damage else "ok",
        "turns": workers.turns if workers else 0,
        "waiting_rows": commits.waiting_rows,
        "worker_failures": failures,
        "damaged_parts": [{"part": part.part, "rows": part.rows, "message": part.sentence()} for part in damage],
        **said,
    }


async def _unknown_path(request: Request) -> Response:
    """Answer 405 with what would do where only the method is wrong, and 404 elsewhere."""
    known = [route for route in request.app.routes if isinstance(route, Route) and not route.path.endswith(":path}")]
    partly = [route for route in known if route.matches(request.scope)[0] is Match.PARTIAL]
    if methods := sorted({method for route in partly for method in route.methods or ()}):
        message = f"{request.url.path} takes {' or '.join(methods)}, not {request.method}"
        return problem(405, message, headers={"Allow": ", ".join(methods)})
    fix = "OTLP is POSTed to /v1/traces, /v1/logs and /v1/metrics, the API is listed at /api/openapi.json"
    return problem(404, f"there is nothing at {request.url.path}", fix=fix)


async def _http_problem(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return problem(status, str(getattr(error, "detail", error)))


async def _unforeseen(request: Request, error: Exception) -> Response:
    """Answer a fault of ours with 503 where a sender would otherwise throw its batch away, and with 500 elsewhere."""
    status = 503 if "/v1/" in request.url.path else 500
    return problem(status, f"an unforeseen fault: {type(error).__name__}", fix="see the server's log")
