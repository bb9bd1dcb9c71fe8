"""``opsloop dashboard``: the four golden signals, the error budgets and their verdicts."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from opsloop.cli.client import Api, connect
from opsloop.cli.options import Asking, Window
from opsloop.cli.output import SHAPES, console, count, moment, percent, seconds, show_json, table
from opsloop.clock import NANOSECONDS
from opsloop.dashboard.amount import span
from opsloop.dashboard.breakdown import DIMENSIONS
from opsloop.dashboard.png import png as painted
from opsloop.dashboard.svg import PANELS, panel_svg
from opsloop.errors import InputError, OpsloopError

__all__ = ["dashboard"]

_COLOURS = {"OK": "green", "BREACH": "bold red", "NO_DATA": "dim", "INSUFFICIENT": "yellow"}


def dashboard(
    *,
    watch: Annotated[bool, Parameter(help="Stay and refresh until Ctrl-C.", negative=())] = False,
    every: Annotated[float, Parameter(help="With --watch: seconds between refreshes.")] = 5.0,
    times: Annotated[int | None, Parameter(help="With --watch: stop after so many screens.")] = None,
    explain: Annotated[
        str, Parameter(help="An objective or SLO: print its numbers so that you can recompute it.")
    ] = "",
    by: Annotated[str, Parameter(help=f"A table for each {', '.join(DIMENSIONS[:-1])} or {DIMENSIONS[-1]}.")] = "",
    compare: Annotated[str, Parameter(help="Beside: 1d or 1w ago, or before the last deploy (deploy).")] = "",
    svg: Annotated[Path | None, Parameter(help="Write one panel as a picture into this file; - prints it.")] = None,
    png: Annotated[Path | None, Parameter(help="The same as PNG, for mail and chat; needs opsloop[png].")] = None,
    panel: Annotated[str, Parameter(help=f"With --svg or --png: one of {', '.join(PANELS)}.")] = "latency",
    window: Window | None = None,
    asking: Asking | None = None,
) -> int:
    """Show latency, traffic, errors, saturation, quality and SLO burn, each with its objective and verdict."""
    options = asking or Asking()
    arguments = (window or Window()).arguments() | {"compare": compare or None}
    with connect(options.settings(), url=options.url) as api:
        if explain:
            answer = api.call("/api/signals/explain", {"id": explain})
            if options.json:
                show_json(answer)
            else:
                print(answer["text"])
        elif by:
            found = api.call("/api/signals/by", arguments | {"dimension": by})
            if options.json:
                show_json(found)
            else:
                console().print(_breakdown(found))
        elif svg is not None or png is not None:
            picture = panel_svg(api.call("/api/signals", arguments), panel)
            if svg is not None:
                _write(svg, picture.encode(), option="--svg")
            if png is not None:
                _write(png, painted(picture), option="--png")
        elif options.json:
            show_json(api.call("/api/signals", arguments))
        elif watch:
            _watch(api, arguments, every_seconds=every, times=times)
        else:
            console().print(_screen(api.call("/api/signals", arguments)))
    return 0


def _write(file: Path, picture: bytes, *, option: str) -> None:
    if str(file) == "-":
        sys.stdout.buffer.write(picture)
        sys.stdout.flush()
        return
    try:
        file.write_bytes(picture)
    except OSError as cause:
        raise InputError(f"cannot write {file}: {cause.strerror}", fix=f"check {option}") from cause


def _watch(api: Api, arguments: dict[str, str | None], *, every_seconds: float, times: int | None) -> None:
    """Refresh one screen; while there is no answer the last one stays, with the reason above it."""
    pause = threading.Event()
    shown = _screen(api.call("/api/signals", arguments))
    with Live(shown, console=console(), screen=True, auto_refresh=False) as live:
        try:
            for _ in range(1, times) if times is not None else itertools.count():
                if pause.wait(max(every_seconds, 0.1)):
                    break
                try:
                    shown = _screen(api.call("/api/signals", arguments))
                    live.update(shown, refresh=True)
                except OpsloopError as error:
                    live.update(Group(Text(f"No answer: {error}", style="bold yellow"), shown), refresh=True)
        except KeyboardInterrupt:
            return


def _screen(answer: dict[str, Any]) -> RenderableType:
    totals = answer["totals"]
    parts: list[RenderableType] = [
        Text(answer["sentence"], style="bold"),
        Text(f"{moment(answer['start_ns'])} to {moment(answer['end_ns'])} UTC", style="dim"),
        Text(
            f"{count(totals['requests'])} requests · {_rate(totals['requests_per_second'])} requests/s · "
            f"{_rate(totals['tokens_per_second'])} tokens/s · {percent(totals['error_ratio'])} failed · "
            f"{count(totals['rejected'])} rejected · p95 {seconds(totals['latency_us_p95'])}"
        ),
        Text(""),
        table(("", "signal", "now", "objective", "n", "why"), _readings(answer), right=("now", "n")),
    ]
    if answer.get("comparison"):
        parts += [Text(""), *_comparison(answer["comparison"])]
    for slo in answer["slos"]:
        parts += [Text(""), Text(f"{slo['id']}: {slo['sentence']}", style="bold")]
        columns = ("", "severity", "windows", "burn", "pages at", "why")
        parts.append(table(columns, map(_tier, slo["tiers"]), right=("burn", "pages at")))
    return Group(*parts)


def _breakdown(found: dict[str, Any]) -> RenderableType:
    rows = [
        (
            row["key"] or f"(no {found['dimension']})",
            count(row["n"]),
            percent(row["error_ratio"]),
            *(count(row[name]) for name in ("failed", "upstream", "server_errors", "rejected")),
            seconds(row["latency_us_p50"]),
            seconds(row["latency_us_p95"]),
            "few" if row["few"] else "",
        )
        for row in found["rows"]
    ]
    columns = (found["dimension"], "n", "failed %", "failed", "upstream", "5xx", "our 429", "p50", "p95", "")
    left_out = f"; {count(found['left_out'])} smaller ones are left out" if found["left_out"] else ""
    said = f"n counts {found['counted']}{left_out}; few: below 200 a p95 is rough"
    return Group(table(columns, rows, right=columns[1:-1]), Text(said, style="dim"))


def _comparison(found: dict[str, Any]) -> list[RenderableType]:
    rows = [
        (
            each["title"],
            _value(each["before"], each["unit"]),
            _value(each["after"], each["unit"]),
            _change(each["ratio"]),
        )
        for each in found["changes"]
        if each["before"] is not None or each["after"] is not None
    ]
    columns = ("measure", "before", "after", "change")
    return [Text(found["sentence"], style="bold"), table(columns, rows, right=columns[1:])]


def _change(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:+.0%}"


def _readings(answer: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for reading in answer["readings"]:
        verdict = reading["verdict"]
        last = answer.get("last_known", {}).get(reading["id"])
        value = _value((last or reading)["value"], reading["unit"])
        yield (
            Text(SHAPES[verdict], style=_COLOURS[verdict]),
            Text(reading["id"], style=_COLOURS[verdict] if verdict == "BREACH" else ""),
            Text(value, style="dim" if last else ""),
            _value(reading["threshold"], reading["unit"]),
            count(reading["n"]),
            Text(f"{verdict}: {reading['reason']}{_age(last, answer['now_ns'])}", style="dim"),
        )


def _age(last: dict[str, Any] | None, now_ns: int) -> str:
    """Return how old a last known value is."""
    return f"; last known {span((now_ns - last['window_end_ns']) / NANOSECONDS)} ago" if last else ""


def _tier(tier: dict[str, Any]) -> tuple[Any, ...]:
    verdict = tier["verdict"]
    burn = tier["burn_long"]
    return (
        Text(SHAPES.get(verdict, "–"), style=_COLOURS.get(verdict, "dim")),
        tier["severity"],
        f"{_window(tier['long_seconds'])}/{_window(tier['short_seconds'])}",
        None if burn is None else f"{burn:.2f}×",
        f"{tier['factor']:g}×",
        Text(tier["reason"], style="dim"),
    )


def _value(value: float | None, unit: str) -> str:
    match unit:
        case "us":
            return seconds(value)
        case "ratio":
            return percent(value)
        case _:
            return "–" if value is None else f"{value:.3g} {unit}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _window(window_seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if window_seconds >= size:
            return f"{window_seconds / size:g}{unit}"
    return f"{window_seconds:g}s"
