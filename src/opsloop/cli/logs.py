"""``opsloop logs``: find events in one line, or read one request's whole story."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.text import Text

from opsloop.cli.client import Api, connect
from opsloop.cli.options import Asking, Window
from opsloop.cli.output import console, count, moment, seconds, show_json, table
from opsloop.clock import SystemClock
from opsloop.errors import InputError
from opsloop.structured_logging import Journey, Story, parse_query

__all__ = ["logs"]

_COLOURS = {"WARN": "yellow", "ERROR": "red", "FATAL": "bold red", "DEBUG": "dim", "TRACE": "dim"}


def logs(
    query: Annotated[str, Parameter(help="Such as: event:tool tool:retrieve error:true duration>500ms")] = "",
    *,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-F"], help="Go on with what comes in; Ctrl-C ends it.", negative=())
    ] = False,
    export: Annotated[str, Parameter(help="Write all matching events to this file, or - for standard output.")] = "",
    form: Annotated[
        str, Parameter(name="--format", help="jsonl, csv or parquet; by the file's ending unless given.")
    ] = "",
    correlate: Annotated[str, Parameter(help="A request id: print that request's whole story.")] = "",
    session: Annotated[str, Parameter(help="A session id: print its requests and how each ended.")] = "",
    user: Annotated[str, Parameter(help="A user id: the same of a person's requests.")] = "",
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="How many events at most, newest first.")] = 50,
    window: Window | None = None,
    asking: Asking | None = None,
) -> int:
    """Find events, follow them, export them, or pull one request's whole story with --correlate.

    With --json each event is one line, as it would be sent, so the output can be ingested again.
    """
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        if correlate and export:
            named = {"request_id": correlate, "format": form or "perfetto"}
            return _save(api.download("/api/requests/{request_id}/trace", named), export)
        if correlate:
            return _tell(api.call("/api/requests/{request_id}", {"request_id": correlate}), Story, options)
        if session or user:
            whose = {"session_id": session or None, "user_id": user or None, "limit": limit}
            return _tell(api.call("/api/journeys", whose), Journey, options)
        if follow:
            return _follow(api, query, limit=limit, in_json=options.json)
        arguments = {"q": query or None, **(window or Window()).arguments()}
        if export:
            form = form or Path(export).suffix.removeprefix(".") or "jsonl"
            return _save(api.download("/api/logs/export", {**arguments, "format": form}), export)
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


def _tell(answer: Any, kind: type[Story | Journey], options: Asking) -> int:
    """Print a story as text, or as it came."""
    if options.json:
        show_json(answer)
    else:
        print(msgspec.convert(answer, kind).text())
    return 0


def _follow(api: Api, query: str, *, limit: int, in_json: bool) -> int:
    """Print events as they come, until Ctrl-C."""
    try:
        for kind, value in api.follow(query, limit=limit):
            if kind == "gap":
                print(f"… {value['missed']} events came too fast to be shown; opsloop logs has them", file=sys.stderr)
            elif in_json:
                sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
            else:
                console().print(_line(value), soft_wrap=True)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    return 0


def _save(pieces: Iterator[bytes], target: str) -> int:
    """Write a file that is whole or is not there."""
    if target == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return 0
    part = Path(f"{target}.part")
    try:
        with part.open("wb") as file:
            size = sum(file.write(piece) for piece in pieces)
        part.replace(target)
    except OSError as cause:
        raise InputError(f"cannot write {target}: {cause.strerror}", fix="check path and space there") from cause
    finally:
        part.unlink(missing_ok=True)
    print(f"{count(size)} bytes written to {target}")
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


def _line(event: dict[str, Any]) -> Text:
    """Return an event as one line whose columns do not depend on those of others."""
    at, kind, request_id, tenant, took, message = _row(event)
    kind.pad_right(max(0, 20 - len(kind)))
    return Text("  ").join(
        [Text(at), kind, Text(f"{request_id:<20}"), Text(f"{tenant:<10}"), Text(f"{took:>8}"), message]
    )


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
