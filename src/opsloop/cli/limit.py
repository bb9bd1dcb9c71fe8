"""``opsloop limit``: the limits, how they are used, why one rejected, and what others would have done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.text import Text

from opsloop.cli.client import connect
from opsloop.cli.decide import admit, peek, release, settle
from opsloop.cli.options import Asking, Window
from opsloop.cli.output import console, count, moment, percent, show_json, table
from opsloop.rate_limit.policy_file import load_policy

__all__ = ["app", "check", "explain", "limits", "simulate"]

app = App(name="limit", help="Limits: use and rejections, explain one, try others on recorded traffic, decide.")
for decides in (admit, peek, release, settle):
    app.command(decides)


@app.default
def limits(*, window: Window | None = None, asking: Asking | None = None) -> int:
    """Show each limit with its use, its rejections and who met them."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/limits", (window or Window()).arguments())
    if options.json:
        show_json(answer)
        return 0
    screen = console()
    usage = answer["usage"]
    screen.print(Text(f"{count(usage['decisions'])} decisions, {count(usage['rejected'])} rejected", style="bold"))
    screen.print(Text(f"{moment(answer['start_ns'])} to {moment(answer['end_ns'])} UTC\n", style="dim"))
    used = {row["limit"]: row for row in usage["limits"]}
    rows = [_limit(policy, used.get(policy["id"])) for policy in answer["policy"]]
    rows += [_limit({"id": name}, row) for name, row in used.items() if name not in {p["id"] for p in answer["policy"]}]
    columns = ("limit", "allows", "by", "used now", "at most", "rejected", "who")
    screen.print(table(columns, rows, right=("used now", "at most", "rejected")))
    if usage["recent"]:
        screen.print(Text("\nlatest rejections", style="bold"))
        recent = [(moment(r["ts_ns"]), r["request_id"], r["tenant"], r["reason"]) for r in usage["recent"][:10]]
        screen.print(table(("time (UTC)", "request", "tenant", "why"), recent))
    return 0


@app.command
def explain(request_id: str, /, *, asking: Asking | None = None) -> int:
    """Say why one request was admitted or rejected."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/limits/explain", {"request_id": request_id})
    if options.json:
        show_json(answer)
    else:
        print(answer["reason"])
    return 0


@app.command
def check(policy: Path, /) -> int:
    """Say what the [[limit]] tables of a file mean, or in which line they contradict themselves."""
    found = load_policy(policy)
    rows = [
        (limit.id, limit.spelled(), ", ".join(limit.scope) or "everyone", len(limit.cases), mode)
        for part, mode in ((found.limits, "enforced"), (found.shadow, "shadow"))
        for limit in part
    ]
    console().print(table(("limit", "allows", "by", "cases", "mode"), rows, right=("cases",)))
    return 0


@app.command
def simulate(
    *,
    policy: Annotated[Path, Parameter(help="A TOML file with [[limit]] tables.")],
    window: Window | None = None,
    asking: Asking | None = None,
) -> int:
    """Replay recorded traffic against other limits: who would have been rejected, by which."""
    options = asking or Asking()
    load_policy(policy)  # what is wrong with it is told here, with its line
    body = policy.read_bytes()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/limits/simulate", (window or Window()).arguments(), method="POST", body=body)
    if options.json:
        show_json(answer)
        return 0
    screen = console()
    said = f"{count(answer['rejected'])} of {count(answer['decisions'])} would have been rejected"
    change = f"{count(answer['newly_rejected'])} that passed, {count(answer['newly_allowed'])} now let through"
    screen.print(Text(f"{said}: {change}\n", style="bold"))
    rows = [
        (r["limit"], count(r["decisions"]), count(r["rejected"]), percent(r["used_ratio_max"]))
        for r in answer["limits"]
    ]
    screen.print(table(("limit", "decisions", "rejected", "at most"), rows, right=("decisions", "rejected", "at most")))
    tenants = [
        (t["tenant"], count(t["decisions"]), count(t["rejected"]), ", ".join(t["violated"])) for t in answer["tenants"]
    ]
    screen.print(Text(""))
    screen.print(table(("tenant", "decisions", "rejected", "by"), tenants[:10], right=("decisions", "rejected")))
    return 0


def _limit(policy: dict[str, Any], used: dict[str, Any] | None) -> tuple[Any, ...]:
    allows = None
    if "amount" in policy:
        period = "at once" if policy["lever"] == "concurrency" else f"per {policy.get('per', 'minute')}"
        allows = f"{count(policy['amount'])} {policy.get('unit', 'requests')} {period}"
    who = ", ".join(f"{top['tenant'] or '?'} {top['rejected']}" for top in used["top_rejected"]) if used else None
    return (
        policy["id"],
        allows,
        ", ".join(policy.get("scope", ("tenant",))) or "everyone",
        percent(used["used_ratio"]) if used else None,
        percent(used["used_ratio_max"]) if used else None,
        count(used["rejected"]) if used else None,
        who,
    )
