"""``opsloop incident``: what broke, whether it was here before, and what keeps it from coming back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.text import Text

from opsloop.cli.client import connect
from opsloop.cli.options import Asking, Window
from opsloop.cli.output import console, moment, seconds, show_json, table
from opsloop.clock import SystemClock
from opsloop.improvement import Flywheel, Incident, capture, prove, write_guard

__all__ = ["acknowledge", "app", "flywheel", "guard", "incidents", "postmortem", "resolve", "show"]

app = App(name="incident", help="Incidents: list, read, move on, turn into a guard, count what came back.")

COLUMNS = ("incident", "problem", "status", "relation", "detected (UTC)", "took", "guards", "title")
Name = Annotated[str, Parameter(help="The incident's id, such as INC-….")]


@app.default
def incidents(*, window: Window | None = None, asking: Asking | None = None) -> int:
    """List the incidents of the last 30 days, or of the window, newest first."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        found = api.call("/api/incidents", (window or Window()).arguments())
    if options.json:
        show_json(found)
    elif not found:
        print("no incidents")
    else:
        console().print(table(COLUMNS, map(_row, found), right=("took",)))
    return 0


@app.command
def show(incident: Name, /, *, asking: Asking | None = None) -> int:
    """Show one incident: its evidence, its timeline, and the other times it happened."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/incidents/{incident_id}", {"incident_id": incident})
    if options.json:
        show_json(answer)
        return 0
    found = answer["incident"]
    screen = console()
    screen.print(Text(f"{found['id']}  {found['title']}", style="bold"))
    screen.print(Text(f"{found['status']}, {found['relation']}: {found['reason']}"))
    screen.print(
        Text(f"problem {found['problem_id']}, fingerprint {found['fingerprint']}, release {found['release']}\n")
    )
    rows = [(moment(entry["ts_ns"]), entry["status"], entry["text"]) for entry in found["timeline"]]
    screen.print(table(("time (UTC)", "status", "what"), rows))
    examples = (found.get("evidence") or {}).get("examples", [])
    if examples:
        screen.print(Text("\nrequests in the evidence", style="bold"))
        requests = [(one["request_id"], one.get("stage"), one.get("input"), one.get("output")) for one in examples]
        screen.print(table(("request", "stage", "question", "answer"), requests))
    if len(answer["episodes"]) > 1:
        screen.print(Text("\nall episodes of the problem", style="bold"))
        screen.print(table(COLUMNS, map(_row, answer["episodes"]), right=("took",)))
    return 0


@app.command
def acknowledge(incident: Name, /, *, by: str = "", note: str = "", asking: Asking | None = None) -> int:
    """Say that someone is on it."""
    return _step(incident, "acknowledge", {"by": by, "note": note}, asking)


@app.command
def resolve(
    incident: Name, /, *, by: str = "", note: str = "", fix_release: str = "", asking: Asking | None = None
) -> int:
    """Say that it is over, and which release holds the fix: a later failure in that release is a repeat."""
    return _step(incident, "resolve", {"by": by, "note": note, "fix_release": fix_release}, asking)


@app.command
def postmortem(incident: Name, /, *, asking: Asking | None = None) -> int:
    """Print what is known as a post-mortem in Markdown, to be completed."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/incidents/{incident_id}/postmortem", {"incident_id": incident})
    if options.json:
        show_json(answer)
    else:
        print(answer["markdown"])
    return 0


@app.command
def guard(
    incident: Name,
    /,
    *,
    good: Annotated[tuple[str, ...], Parameter(help="An answer that would have been right; may be repeated.")] = (),
    by: str = "",
    folder: Annotated[Path | None, Parameter(help="Where to write; the settings' guards folder.")] = None,
    asking: Asking | None = None,
) -> int:
    """Write a proposed guard from the incident's evidence, redacted, and say what its proof still lacks."""
    options = asking or Asking()
    settings = options.settings()
    with connect(settings, url=options.url) as api:
        answer = api.call("/api/incidents/{incident_id}", {"incident_id": incident})
    found = msgspec.convert(answer["incident"], Incident)
    drafted = capture(found, now_ns=SystemClock().now_ns(), by=by, good=good)
    path = write_guard(drafted, folder or Path(settings.guards.folder))
    proof = prove(drafted)
    print(f"{path}\nproof: {proof.outcome}, {proof.reason}")
    return 0


@app.command
def flywheel(*, weeks: int = 12, asking: Asking | None = None) -> int:
    """Count new, repeated and prevented incidents week by week."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/flywheel", {"weeks": weeks})
    if options.json:
        show_json(answer)
    else:
        print(msgspec.convert(answer, Flywheel).text())
    return 0


def _step(incident: str, step: str, body: dict[str, str], asking: Asking | None) -> int:
    options = asking or Asking()
    path = f"/api/incidents/{{incident_id}}/{step}"
    with connect(options.settings(), url=options.url) as api:
        answer = api.call(path, {"incident_id": incident}, method="POST", body=msgspec.json.encode(body))
    if options.json:
        show_json(answer)
    else:
        print(f"{answer['id']} is {answer['status']}")
    return 0


def _row(found: dict[str, Any]) -> tuple[Any, ...]:
    end_ns = found.get("resolved_ns")
    took = None if end_ns is None else seconds((end_ns - found["started_ns"]) / 1000)
    return (
        found["id"],
        found["problem_id"],
        found["status"],
        found["relation"],
        moment(found["detected_ns"]),
        took,
        ", ".join(found.get("guards", ())),
        found["title"],
    )
