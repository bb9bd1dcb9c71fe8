"""``opsloop logs``: find events in one line, or read one request's whole story."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.text import Text

from opsloop.cli.client import connect
from opsloop.cli.options import Asking, Window
from opsloop.cli.output import console, count, moment, seconds, show_json, table
from opsloop.clock import SystemClock
from opsloop.structured_logging import Story, parse_query

__all__ = ["logs"]

_COLOURS = {"WARN": "yellow", "ERROR": "red", "FATAL": "bold red", "DEBUG": "dim", "TRACE": "dim"}


def logs(
    query: Annotated[str, Parameter(help="Such as: event:tool tool:retrieve error:true duration>500ms")] = "",
    *,
    correlate: Annotated[str, Parameter(help="A request id: print that request's whole story.")] = "",
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="How many events at most, newest first.")] = 50,
    window: Window | None = None,
    asking: Asking | None = None,
) -> int:
    """Find events, or pull one request's whole story with --correlate.

    With --json each event is one line, as it would be sent, so the output can be ingested again.
    """
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        if correlate:
            story = api.call("/api/requests/{request_id}", {"request_id": correlate})
            if options.json:
                show_json(story)
            else:
                print(msgspec.convert(story, Story).text())
            return 0
        arguments = {"q": query or None, **(window or Window()).arguments()}
        if parse_query(query, now_ns=SystemClock().now_ns()).summary:
            return _groups(api.call("/api/logs/groups", arguments), in_json=options.json)
        answer = api.call("/api/logs", {**arguments, "limit": limit})
    if options.json:
        for event in answer["events"]:
            sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        return 0
    if not answer["events"]:
        print(f"nothing matches between {moment(answer['start_ns'])} and {moment(answer['end_ns'])} UTC")
        return 0
    columns = ("time (UTC)", "event", "request", "tenant", "took", "message")
    console().print(table(columns, map(_row, answer["events"]), right=("took",)))
    if answer["more"]:
        print(f"… more than {limit}; raise --limit or narrow the query")
    return 0


def _groups(answer: dict[str, Any], *, in_json: bool) -> int:
    """Print a number per group."""
    if in_json:
        show_json(answer)
        return 0
    summary = answer["summary"]
    shown = seconds if summary["field"].endswith("_us") and summary["function"] != "count" else "{:,.6g}".format
    name = " ".join(part for part in (summary["function"], summary["field"]) if part)
    columns = (name, "events", summary["by"] or "all")
    rows = [(shown(group["value"]), count(group["n"]), group["group"]) for group in answer["groups"]]
    console().print(table(columns, rows, right=columns[:2]))
    return 0


def _row(event: dict[str, Any]) -> tuple[Any, ...]:
    kind = event["event"] if not event.get("tool") else f"{event['event']}:{event['tool']}"
    status = f"{event['status_code']} " if event.get("status_code") else ""
    why = f" [{event['error_type']}]" if event.get("error_type") else ""
    severity = event.get("severity", "INFO")
    style = "red" if event.get("error") else _COLOURS.get(severity, "")
    return (
        moment(event["ts_ns"]),
        Text(kind, style=style),
        event.get("request_id", ""),
        event.get("tenant", ""),
        seconds(event.get("duration_us")),
        Text(f"{status}{event.get('message', '')}{why}", style=style),
    )
