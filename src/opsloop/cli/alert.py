"""``opsloop alert``: the rules and their state, why one did or did not page, and what others would have done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.text import Text

from opsloop.cli.client import connect
from opsloop.cli.options import Asking, Window
from opsloop.cli.output import console, moment, show_json, table
from opsloop.errors import InputError

__all__ = ["alerts", "app", "backtest", "explain"]

app = App(name="alert", help="Alerts: their state, explain one, try other rules on recorded readings.")

_SHAPES = {"inactive": "●", "pending": "▲", "firing": "◆", "recovering": "▲"}


@app.default
def alerts(*, window: Window | None = None, asking: Asking | None = None) -> int:
    """Show each rule with its state, and what happened to them in the window."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/alerts", {"from": "1d", **_given(window)})
    if options.json:
        show_json(answer)
        return 0
    screen = console()
    rows = [row for rule in answer["rules"] for row in _states(rule)]
    screen.print(table(("", "alert", "state", "since (UTC)", "when"), rows))
    if answer["transitions"]:
        screen.print(Text("\nwhat happened", style="bold"))
        happened = [(moment(event["ts_ns"]), event["message"]) for event in answer["transitions"][-20:]]
        screen.print(table(("time (UTC)", "what"), happened))
    screen.print(Text(f"\n{len(answer['notices'])} notices in the window", style="dim"))
    return 0


@app.command
def explain(alert: str, /, *, asking: Asking | None = None) -> int:
    """Say why an alert did or did not page: votes, formula, transition, and the path of its notice."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/alerts/explain", {"id": alert})
    if options.json:
        show_json(answer)
    else:
        print(answer["text"])
    return 0


@app.command
def backtest(
    *,
    rules: Annotated[Path, Parameter(help="A TOML file with [[alert]] tables.")],
    window: Window | None = None,
    asking: Asking | None = None,
) -> int:
    """Run other rules over the recorded readings: how many pages they would have sent."""
    options = asking or Asking()
    try:
        body = rules.read_bytes()
    except OSError as cause:
        raise InputError(f"cannot read {rules}: {cause.strerror}", fix="check --rules") from cause
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/alerts/backtest", (window or Window()).arguments(), method="POST", body=body)
    if options.json:
        show_json(answer)
        return 0
    print(f"{answer['pages']} pages and {answer['tickets']} tickets in {answer['evaluations']} evaluations")
    for name, pages in sorted(answer["pages_by_alert"].items()):
        print(f"  {name}: {pages}")
    return 0


def _given(window: Window | None) -> dict[str, str]:
    return {name: value for name, value in (window or Window()).arguments().items() if value}


def _states(rule: dict[str, Any]) -> list[tuple[Any, ...]]:
    keys = rule["keys"] or [{"key": "", "phase": "inactive", "since": None}]
    return [
        (
            _SHAPES.get(key["phase"], "○"),
            f"{rule['id']} {key['key']}".rstrip(),
            key["phase"],
            (key["since"] or "")[:19].replace("T", " "),
            rule["formula"],
        )
        for key in keys
    ]
