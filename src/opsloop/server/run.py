"""Serving: bind first, so that a port in use is said in one line; then run until a signal, then lose nothing."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from opsloop.errors import ConfigError
from opsloop.server.app import build_app
from opsloop.server.auth import Gatekeeper
from opsloop.server.intake import Intake
from opsloop.server.runtime import Runtime
from opsloop.settings import Settings, environment

__all__ = ["bind", "serve"]

GRACE_SECONDS = 5
"""How long requests that are under way may take to end."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises :class:`ConfigError` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as cause:
        listener.close()
        if cause.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is in use", fix="choose another with --port") from cause
        raise ConfigError(f"cannot listen on {host}:{port}: {cause.strerror}", fix="check --host and --port") from cause
    return listener


def serve(
    settings: Settings,
    *,
    ready: Callable[[str], None] | None = None,
    background: Callable[[Runtime, threading.Event], None] | None = None,
) -> None:
    """Open the store, listen, and serve until SIGINT or SIGTERM.

    ``ready(url)`` is called once the port answers; ``background(runtime, stop)`` runs beside the server, as the
    simulated bot of ``--demo`` does, and has to start the runtime's evaluation itself. On a signal no new request is
    taken, and what was taken is committed.
    """
    gate = Gatekeeper(environment(), host=settings.server.host)
    open_grpc = None if settings.server.grpc_port is None else _grpc_opener()
    listener = bind(settings.server.host, settings.server.port)
    try:
        with Runtime(settings) as runtime:
            host, port = listener.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            if runtime.database.lock is not None:
                runtime.database.lock.publish(url)
            config = uvicorn.Config(
                build_app(runtime, gatekeeper=gate),
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
                server_header=False,
            )
            server = _Server(config)
            if open_grpc is not None:
                server.open_grpc = partial(open_grpc, settings, Intake(runtime), gate)
            server.on_started = lambda: _started(runtime, url, ready, background)
            server.on_stopping = runtime.live.close
            server.run(sockets=[listener])
    finally:
        listener.close()


def _grpc_opener() -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return what opens the second port; raises :class:`ConfigError` where its library is not installed."""
    try:
        from opsloop.server.otlp_grpc import start_grpc  # noqa: PLC0415 - an extra that most do without
    except ImportError as cause:
        raise ConfigError("server.grpc_port needs grpcio", fix="pip install 'opsloop[grpc]', or unset it") from cause
    return start_grpc


def _started(
    runtime: Runtime,
    url: str,
    ready: Callable[[str], None] | None,
    background: Callable[[Runtime, threading.Event], None] | None,
) -> None:
    if background is None:
        runtime.start()
    else:
        runtime.run_in_background("opsloop-beside", lambda stop: background(runtime, stop))
    if ready is not None:
        ready(url)


class _Server(uvicorn.Server):
    """A uvicorn server that says when it has started, and lets live streams end before it waits for the others."""

    on_started: Callable[[], None]
    on_stopping: Callable[[], None]
    open_grpc: Callable[[], Coroutine[Any, Any, Any]] | None = None
    grpc: Any = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the signal is dealt with then, and not raised again before the store is closed."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        if self.open_grpc is not None:
            self.grpc = await self.open_grpc()
        await super().startup(sockets=sockets)
        if self.started:
            self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what would never end by itself, then stop."""
        self.on_stopping()
        if self.grpc is not None:
            await self.grpc.stop(GRACE_SECONDS)
        await super().shutdown(sockets=sockets)
