"""``opsloop eval``: how good the answers are, and whether that drifts."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from opsloop.cli.client import connect
from opsloop.cli.options import Asking, Window
from opsloop.cli.output import SHAPES, console, count, moment, show_json, table

__all__ = ["evaluate"]


def evaluate(
    *,
    explain: Annotated[str, Parameter(help="A request id: what each scorer says of its answer, and why.")] = "",
    window: Window | None = None,
    asking: Asking | None = None,
) -> int:
    """Show the mean score of live answers by scorer, drift since when, coverage, and the worst answers."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        if explain:
            answer = api.call("/api/quality/explain", {"request_id": explain})
        else:
            answer = api.call("/api/quality", (window or Window()).arguments())
    if options.json:
        show_json(answer)
    elif explain:
        _explain(answer)
    else:
        _overview(answer)
    return 0


def _overview(answer: dict[str, Any]) -> None:
    screen = console()
    drift = answer["drift"]["reading"]
    screen.print(Text(f"{SHAPES[drift['verdict']]} drift: {drift['verdict']}, {drift['reason']}", style="bold"))
    coverage = answer["coverage"]
    said = f"{count(coverage['scored'])} of {count(coverage['answered'])} answers scored"
    screen.print(Text(f"{moment(answer['start_ns'])} to {moment(answer['end_ns'])} UTC · {said}\n", style="dim"))
    columns = ("scorer", "mean", "95 % interval", "n", "unscored")
    screen.print(table(columns, map(_scorer, answer["scorers"]), right=("mean", "n", "unscored")))
    if answer["worst"]:
        screen.print(Text("\nworst answers", style="bold"))
        rows = [
            (low["request_id"], low["scorer"], f"{low['score']:.2f}", low["explanation"]) for low in answer["worst"]
        ]
        screen.print(table(("request", "scorer", "score", "why"), rows[:10], right=("score",)))


def _scorer(summary: dict[str, Any]) -> tuple[Any, ...]:
    estimate = summary["estimate"]
    mean, low, high = estimate["mean"], estimate["low"], estimate["high"]
    interval = None if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return (
        f"{summary['scorer']} {summary['version']}",
        None if mean is None else f"{mean:.3f}",
        interval,
        count(estimate["n"]),
        count(summary["unscored"]),
    )


def _explain(answer: dict[str, Any]) -> None:
    screen = console()
    screen.print(Text(f"question  {answer['question']}"))
    screen.print(Text(f"answer    {answer['answer'] or '– none was given'}\n"))
    rows = []
    for verdict in answer["verdicts"]:
        score = verdict["score"]
        value = score.get("score")
        rows.append((verdict["scorer"], "unscored" if value is None else f"{value:.2f}", score["explanation"]))
    screen.print(table(("scorer", "score", "why"), rows, right=("score",)))
