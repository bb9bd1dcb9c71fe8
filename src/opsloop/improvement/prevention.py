"""Prevention: one pair (problem, change), claimed only when all of five conditions hold.

1. A guard of the problem that was *active*, and so proved, and comes from an incident before the change, has a
   confirmed FAIL on the change in mode frozen or live. An error, an inconclusive or a skipped run is nothing.
2. The same run's baseline passes, else ``preexisting``: the change did not do it.
3. The failure is the problem's own, by fingerprint or by the assertion that fails on the proof's bad answers, else
   ``caught_other``: worth having caught, but no repeat.
4. The change was not deployed with that guard failing, else ``overridden``.
5. It counts once, however many guards, commits and re-runs.

It is *pending* until the change lands, or for 14 days; only settled ones are reported as prevented.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.event import Event
from opsloop.improvement.history import History

__all__ = ["Prevention", "find_preventions"]

ABANDONED_AFTER_SECONDS: Final = 14 * 86_400
CONFIRMED: Final = frozenset({"pass", "fail"})
REAL_MODES: Final = frozenset({"frozen", "live"})
Outcome = Literal["prevented", "preexisting", "caught_other", "overridden"]


class Prevention(msgspec.Struct, frozen=True, kw_only=True):
    """What the guards of one problem did about one change."""

    problem_id: str
    change_id: str
    outcome: Outcome
    state: Literal["pending", "settled"]
    reason: str
    guard_ids: tuple[str, ...]
    first_failed_ns: int
    fails: int
    """Confirmed fails, re-runs included: all of them together count once."""


def find_preventions(history: History, *, now_ns: int) -> tuple[Prevention, ...]:
    """Return every (problem, change) with a confirmed fail, as it stands at ``now_ns``; oldest first."""
    fails: dict[tuple[str, str], list[Event]] = {}
    for event in history.events:
        if event.ts_ns <= now_ns and _confirmed_fail(history, event):
            problem = history.root(str(event.attributes["problem_id"]))
            fails.setdefault((problem, str(event.attributes["change_id"])), []).append(event)
    found = [_weigh(history, problem, change, group, now_ns) for (problem, change), group in fails.items()]
    return tuple(sorted(found, key=lambda item: (item.first_failed_ns, item.problem_id, item.change_id)))


def _is_result(event: Event) -> bool:
    attributes = event.attributes
    return (
        event.event == "gate"
        and attributes.get("phase") == "result"
        and attributes.get("mode") in REAL_MODES
        and attributes.get("verdict") in CONFIRMED
        and bool(attributes.get("change_id"))
    )


def _confirmed_fail(history: History, event: Event) -> bool:
    """Condition 1."""
    if not _is_result(event) or event.attributes["verdict"] != "fail":
        return False
    record = history.guards.get(str(event.attributes.get("guard_id", "")))
    if record is None or record.state_at(event.ts_ns) != "active":
        return False
    return any(incident.detected_ns < event.ts_ns for incident in history.incidents_of(record.problem_id))


def _weigh(history: History, problem: str, change: str, fails: Sequence[Event], now_ns: int) -> Prevention:
    fresh = [event for event in fails if event.attributes.get("baseline_verdict") == "pass"]
    known = history.fingerprints_of(problem)
    own = [e for e in fresh if e.attributes.get("matches_proof") or e.attributes.get("fingerprint") in known]
    outcome: Outcome
    state: Literal["pending", "settled"] = "settled"
    if not fresh:
        said = sorted({str(event.attributes.get("baseline_verdict") or "not known") for event in fails})
        outcome, reason = "preexisting", f"the baseline does not pass either: {', '.join(said)}"
    elif not own:
        outcome, reason = "caught_other", "another failure than the problem's"
    else:
        outcome, state, reason = _settle(history, change, own, now_ns)
    return Prevention(
        problem_id=problem,
        change_id=change,
        outcome=outcome,
        state=state,
        reason=reason,
        guard_ids=tuple(sorted({str(event.attributes["guard_id"]) for event in fails})),
        first_failed_ns=min(event.ts_ns for event in fails),
        fails=len(fails),
    )


def _settle(
    history: History, change: str, own: Sequence[Event], now_ns: int
) -> tuple[Outcome, Literal["pending", "settled"], str]:
    """Conditions 4 and 5: what became of the change."""
    landings = [event.ts_ns for event in history.events if event.ts_ns <= now_ns and _lands(event, change)]
    first_ns = min(event.ts_ns for event in own)
    if not landings:
        if now_ns - first_ns >= ABANDONED_AFTER_SECONDS * NANOSECONDS:
            return "prevented", "settled", "the change was given up"
        return "prevented", "pending", "the change has not landed"
    for landed_ns in landings:
        for guard_id in sorted({str(event.attributes["guard_id"]) for event in own}):
            if _last_verdict(history, guard_id, change, landed_ns) == "fail":
                return "overridden", "settled", f"it landed while {guard_id} failed"
    return "prevented", "settled", "it landed with the guard passing"


def _lands(event: Event, change: str) -> bool:
    says_so = event.event == "deploy" or (event.event == "gate" and event.attributes.get("phase") == "landed")
    return says_so and event.attributes.get("change_id") == change


def _last_verdict(history: History, guard_id: str, change: str, until_ns: int) -> str:
    last = ""
    for event in history.events:
        attributes = event.attributes
        same = attributes.get("guard_id") == guard_id and attributes.get("change_id") == change
        if same and event.ts_ns <= until_ns and _is_result(event):
            last = str(attributes["verdict"])
    return last
