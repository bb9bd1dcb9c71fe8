"""``opsloop up``: the server, with or without the simulated bot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from opsloop.cli.options import Place
from opsloop.server import Runtime, instants, rehearse, serve
from opsloop.settings import Settings, without_password
from opsloop.sim import Scenario, SupportBot, history

__all__ = ["up"]

DEMO_STORE = ".opsloop-demo"
DEMO_RATE_PER_MINUTE = 20.0
DEMO_SAMPLE_RATE = 0.2
"""Of the history; what comes live is scored as the settings say."""


def up(
    *,
    host: Annotated[str, Parameter(help="Address to listen on; anything but loopback needs tokens.")] = "",
    port: Annotated[int | None, Parameter(help="Port; 4318 by default, 0 takes a free one.")] = None,
    demo: Annotated[bool, Parameter(help="Add the simulated support bot.", negative=())] = False,
    days: Annotated[float, Parameter(help="With --demo: days of history to fill in first.")] = 3.0,
    limits: Annotated[
        str, Parameter(help="Where limits are counted: redis://host:6379/0, shared by all replicas.")
    ] = "",
    seed: Annotated[int, Parameter(help="With --demo: which simulated world to run.")] = 0,
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
    if limits:
        changes["limits"] = limits
    if port is not None:
        changes["port"] = port
    if demo and not chosen.store:
        changes["store"] = DEMO_STORE
    settings = msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **changes))
    screen = Console(stderr=True, highlight=False, soft_wrap=True)

    def ready(url: str) -> None:
        screen.print(f"opsloop is up at {url} and keeps its events in {without_password(settings.server.store)}")
        screen.print(f"  send   OTEL_EXPORTER_OTLP_ENDPOINT={url}   (traces, logs and metrics)")
        if settings.server.grpc_port is not None:
            screen.print(f"  grpc   OTLP over gRPC at {settings.server.host}:{settings.server.grpc_port}")
        screen.print("  ask    opsloop logs 'event:tool error:true' · opsloop dashboard · opsloop alert")
        screen.print("  stop   Ctrl-C")

    if demo:
        settings = _demo_settings(settings)
    serve(settings, ready=ready, background=_demo(screen, days, seed) if demo else None)
    return 0


def _demo_settings(settings: Settings) -> Settings:
    """Return the settings with notices going into the demo's own folder, wherever they would go otherwise."""
    folder = Path(settings.server.store) if "://" not in settings.server.store else Path()
    receivers = tuple(
        msgspec.structs.replace(receiver, kind="file", path=str(folder / "notices.jsonl"))
        for receiver in settings.receiver
    )
    return msgspec.structs.replace(settings, receiver=receivers)


def _demo(screen: Console, days: float, seed: int) -> Callable[[Runtime, threading.Event], None]:
    """Return what runs beside the server: fill in the history, go on live, judge the history as if it were now."""

    def beside(runtime: Runtime, stop: threading.Event) -> None:
        now_ns = runtime.clock.now_ns()
        scenario = history(days, now_ns)
        filled = bool(runtime.database.query(limit=1))
        bot = SupportBot(
            start_ns=now_ns if filled else scenario.start_ns,
            seed=seed,
            rate_per_minute=DEMO_RATE_PER_MINUTE,
            faults=scenario.faults,
            deploys=scenario.deploys,
        )
        if filled:
            screen.print("  the store holds events already: no history is filled in, the bot goes on live")
            runtime.start()
            bot.live(runtime.database, runtime.clock, stop, since_ns=now_ns)
            return
        columns = (TextColumn("  {task.description:<34}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=screen, transient=True) as bars:
            filling = bars.add_task(f"filling in {days:g} days of history", total=1.0)
            bot.backfill(
                runtime.database,
                end_ns=now_ns,
                days=days,
                progress=lambda _, share: bars.update(filling, completed=share),
            )
            runtime.live.tick(now_ns)
            runtime.run_in_background(
                "opsloop-bot", lambda stop: bot.live(runtime.database, runtime.clock, stop, since_ns=now_ns)
            )
            _judge(runtime, scenario, stop, bars)
        runtime.start()
        screen.print("  the simulated bot is live; five minutes after the start it has an outage")

    return beside


def _judge(runtime: Runtime, scenario: Scenario, stop: threading.Event, bars: Progress) -> None:
    """Take the loop's turns over the filled-in history, dense where something was broken."""
    end_ns = runtime.clock.now_ns()
    busy = [(fault.start_ns, fault.end_ns) for fault in scenario.faults if fault.start_ns < end_ns]
    moments = instants(scenario.start_ns, end_ns, busy)
    task = bars.add_task("judging it as if we had been there", total=len(moments))
    sampled = msgspec.structs.replace(runtime.settings.eval, sample_rate=DEMO_SAMPLE_RATE)
    rehearse(
        runtime.database,
        msgspec.structs.replace(runtime.settings, eval=sampled),
        moments,
        stopped=stop.is_set,
        progress=lambda turns: bars.update(task, completed=turns),
    )
