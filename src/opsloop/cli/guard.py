"""``opsloop guard``: run the guards over a change, and list them with their proofs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from opsloop.cli.client import connect
from opsloop.cli.options import Asking
from opsloop.cli.output import console, show_json, table
from opsloop.clock import SystemClock
from opsloop.event import Event, encode_event
from opsloop.improvement import junit_xml, landed_event, load_guards, load_target, prove, run_guards

__all__ = ["app", "landed", "list_guards", "run"]

app = App(name="guard", help="Guards: run them over a change, and check their proofs.")

Mode = Literal["selftest", "frozen", "live", "declared"]


@app.command
def run(
    folder: Annotated[Path | None, Parameter(help="Where the guards are; guards/ unless the settings say.")] = None,
    /,
    *,
    mode: Annotated[
        Mode, Parameter(help="Check the guards, the code, the whole, or each as its file declares.")
    ] = "selftest",
    target: Annotated[str, Parameter(help="module:function that answers, for frozen and live.")] = "",
    baseline: Annotated[
        str, Parameter(help="module:function without the change, to tell what was broken before.")
    ] = "",
    change: Annotated[str, Parameter(help="The change's id, such as a pull request's; its results are recorded.")] = "",
    select: Annotated[str, Parameter(help="Only guards whose id or problem contains this.")] = "",
    junit: Annotated[Path | None, Parameter(help="Write the report as JUnit XML here.")] = None,
    strict: Annotated[bool, Parameter(help="Let an inconclusive result block too.", negative=())] = False,
    record: Annotated[bool, Parameter(help="Store the results as events.", negative=())] = False,
    asking: Asking | None = None,
) -> int:
    """Run the guards; every guard proves itself red and green first.

    Exit codes: 0 all pass · 1 a confirmed regression · 2 a wrong file or target · 3 something could not be evaluated ·
    4 inconclusive under --strict · 5 nothing ran.
    """
    options = asking or Asking()
    report = run_guards(
        folder or Path(options.settings().guards.folder),
        mode=None if mode == "declared" else mode,
        target=load_target(target) if target else None,
        baseline=load_target(baseline) if baseline else None,
        change_id=change,
        strict=strict,
        select=select,
    )
    if junit is not None:
        junit.write_text(junit_xml(report), encoding="utf-8")
    if record:
        _store(report.events(ts_ns=SystemClock().now_ns()), options)
    if options.json:
        show_json({**msgspec.to_builtins(report), "exit_code": report.exit_code})
    else:
        print(report.text())
    return report.exit_code


@app.command(name="list")
def list_guards(folder: Path | None = None, /, *, asking: Asking | None = None) -> int:
    """List the guards with their state and whether their proof holds."""
    options = asking or Asking()
    found = load_guards(folder or Path(options.settings().guards.folder))
    if options.json:
        show_json([{**msgspec.to_builtins(guard), "proof_result": prove(guard)} for guard in found.values()])
        return 0
    rows = []
    for path, guard in found.items():
        proof = prove(guard)
        rows.append((guard.id, guard.problem, guard.state, guard.severity, proof.outcome, proof.reason, path))
    console().print(table(("guard", "problem", "state", "severity", "proof", "why", "file"), rows))
    return 0


@app.command
def landed(change: str, /, *, release: str = "", asking: Asking | None = None) -> int:
    """Record that a change was merged: what its guards caught counts as prevented or overridden from then on."""
    _store([landed_event(change, ts_ns=SystemClock().now_ns(), release=release)], asking or Asking())
    print(f"{change} landed")
    return 0


def _store(events: list[Event], options: Asking) -> None:
    with connect(options.settings(), url=options.url, create=True) as api:
        api.send(b"".join(encode_event(event) + b"\n" for event in events))
