"""OTLP over gRPC, for senders that speak nothing else: the same acceptance as over HTTP, on a port of its own.

Rule
    OK means committed, with ``partial_success`` for what can never be. A body that is wrong is INVALID_ARGUMENT with
    the sentence that says why; one that is too large RESOURCE_EXHAUSTED; both are final. What cannot be stored now, and
    any fault of ours, is UNAVAILABLE with a ``RetryInfo`` of a second. Tokens come as ``authorization`` metadata.
Limits
    Needs the extra ``grpc``, and listens only where ``server.grpc_port`` is set. No TLS: put a proxy in front, as for
    HTTP.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import grpc
from grpc import aio

from opsloop.errors import ConfigError, OpsloopError
from opsloop.server.auth import Gatekeeper
from opsloop.server.intake import Intake, Signal
from opsloop.server.problem import RETRY_SECONDS, status_of
from opsloop.server.rpc import retry_info, rpc_status
from opsloop.settings import Settings

__all__ = ["start_grpc"]

SERVICES: Final = {
    "traces": "trace.v1.TraceService",
    "logs": "logs.v1.LogsService",
    "metrics": "metrics.v1.MetricsService",
}
CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Everything else may pass, so it is UNAVAILABLE."""


async def start_grpc(settings: Settings, intake: Intake, gate: Gatekeeper) -> Any:
    """Return a ``grpc.aio`` server that listens; raises :class:`ConfigError` when its address cannot be had."""
    host, port = settings.server.host, settings.server.grpc_port
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = [("grpc.max_receive_message_length", settings.server.max_body_bytes), ("grpc.so_reuseport", 0)]
    server = aio.server(handlers=[_service(intake, gate, signal) for signal in intake.signals], options=options)
    try:
        server.add_insecure_port(address)
    except RuntimeError as cause:
        raise ConfigError(f"cannot listen for gRPC on {address}", fix="choose another server.grpc_port") from cause
    await server.start()
    return server


def _service(intake: Intake, gate: Gatekeeper, signal: Signal) -> Any:
    """Return the service of a signal; its bodies stay bytes until the acceptance reads them."""

    async def export(body: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        refused = gate.refused_token(str(metadata.get("authorization", "")), "ingest")
        if refused is not None:
            return await _refuse(context, refused[0], f"{refused[1]}; {refused[2]}")
        try:
            return signal.answer(await intake.take(partial(signal.read, body, json=False)))
        except OpsloopError as error:
            return await _refuse(context, status_of(error), str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not look final, or the sender drops the batch
            return await _refuse(context, 503, f"an unforeseen fault: {type(error).__name__}")

    name = f"opentelemetry.proto.collector.{SERVICES[signal.name]}"
    return grpc.method_handlers_generic_handler(name, {"Export": grpc.unary_unary_rpc_method_handler(export)})


async def _refuse(context: Any, status: int, message: str) -> bytes:
    """End a call with the code of an HTTP status. Exporters look for the pushback in either of two places."""
    code = CODES.get(status, grpc.StatusCode.UNAVAILABLE)
    trailers: tuple[tuple[str, bytes], ...] = ()
    if code is grpc.StatusCode.UNAVAILABLE:
        seconds = int(RETRY_SECONDS)
        details = rpc_status(message, code=code.value[0], retry_seconds=seconds)
        trailers = (("grpc-status-details-bin", details), ("google.rpc.retryinfo-bin", retry_info(seconds)))
    await context.abort(code, message, trailers)
    return b""  # abort has raised by now
