"""``opsloop up``: the server, with or without the simulated bot."""

from __future__ import annotations

import threading
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from opsloop.cli.options import Place
from opsloop.server import Runtime, serve
from opsloop.sim import SupportBot

__all__ = ["up"]

DEMO_STORE = ".opsloop-demo"


def up(
    *,
    host: Annotated[str, Parameter(help="Address to listen on; anything but loopback needs tokens.")] = "",
    port: Annotated[int | None, Parameter(help="Port; 4318 by default, 0 takes a free one.")] = None,
    demo: Annotated[bool, Parameter(help="Add the simulated support bot.", negative=())] = False,
    days: Annotated[float, Parameter(help="With --demo: days of history to fill in first.")] = 3.0,
    seed: Annotated[int, Parameter(help="With --demo: the simulated world to run.")] = 0,
    place: Place | None = None,
) -> int:
    """Start everything on one port: OTLP/HTTP in, the API, live pages, metrics and health.

    Point an OpenTelemetry exporter at the address it prints. Without options it listens on 127.0.0.1:4318 and keeps its
    events in .opsloop; with --demo it keeps the simulated bot's in .opsloop-demo, apart from yours.
    """
    chosen = place or Place()
    settings = chosen.settings()
    changes: dict[str, object] = {}
    if host:
        changes["host"] = host
    if port is not None:
        changes["port"] = port
    if demo and not chosen.store:
        changes["store"] = DEMO_STORE
    settings = msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **changes))
    screen = Console(stderr=True, highlight=False)

    def ready(url: str, _: Runtime) -> None:
        screen.print(f"opsloop is up at [bold]{url}[/]   store: {settings.server.store}")
        screen.print("  send    OTEL_EXPORTER_OTLP_ENDPOINT=" + url + "  (traces and logs, protobuf or JSON)")
        screen.print("  ask     opsloop logs 'event:tool error:true' · opsloop dashboard · opsloop alert")
        screen.print("  stop    Ctrl-C")

    serve(settings, ready=ready, background=_demo(screen, days, seed) if demo else None)
    return 0
