"""Flywheel: does what broke stay fixed? Counted week by week, by definitions that can be audited.

Weeks are ISO weeks in UTC. An incident counts in the week of its detection, a prevention in the week of its first
confirmed fail. A *repeat* is guarded when an active guard existed as its release went live. *Contained* is a live guard
that stopped an answer: once per stretch of an hour without a gap, and never added to prevented. Requests and deploys
stand beside the counts: a falling curve proves nothing when traffic falls.

Every number carries its rows, nothing is cut, and any order of arrival gives the same report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.event import Event
from opsloop.improvement.history import HISTORY_KINDS, History, canonical, rebuild
from opsloop.improvement.incident import Incident
from opsloop.improvement.prevention import Prevention, find_preventions
from opsloop.improvement.rate import Durations, Rate, durations, rate

__all__ = [
    "FLYWHEEL_KINDS",
    "Flywheel",
    "Totals",
    "Week",
    "flywheel",
    "week_index",
    "week_name",
    "weekly_requests",
]

FLYWHEEL_KINDS: Final = (*HISTORY_KINDS, "guardrail")
WEEK_NS: Final = 7 * 86_400 * NANOSECONDS
EPOCH_OFFSET_NS: Final = 3 * 86_400 * NANOSECONDS
"""1970-01-01 was a Thursday: its ISO week began three days before."""
CONTAINED_GAP_NS: Final = 3_600 * NANOSECONDS


class Week(msgspec.Struct, frozen=True, kw_only=True):
    """One ISO week. ``rows`` holds the ids behind each number, by its name."""

    week: str
    new: int
    repeats_guarded: int
    repeats_unguarded: int
    suspected: int
    prevented: int
    """Settled only."""
    pending: int
    caught_other: int
    preexisting: int
    overridden: int
    contained: int
    reruns: int
    """Confirmed fails beyond the first of each (problem, change): seen, and not counted."""
    guards_active: int
    """At the week's end, as are the next two."""
    guards_quarantined: int
    guards_retired: int
    requests: int | None
    """``None`` when traffic was not counted."""
    deploys: int
    rows: dict[str, tuple[str, ...]]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Over the weeks shown."""

    repeat_rate: Rate
    """repeats / incidents."""
    prevention_rate: Rate
    """prevented / (prevented + repeats)."""
    guard_escape_rate: Rate
    """guarded repeats / (prevented + guarded repeats)."""
    time_to_detect: Durations
    time_to_acknowledge: Durations
    time_to_mitigate: Durations
    time_to_resolve: Durations
    time_to_guard: Durations
    """From a problem's first page to its first active guard."""


class Flywheel(msgspec.Struct, frozen=True, kw_only=True):
    """The report."""

    weeks: tuple[Week, ...]
    totals: Totals
    preventions: tuple[Prevention, ...]

    def text(self) -> str:
        """Return the weeks as a table for people."""
        head = f"{'week':<9}{'new':>5}{'repeats':>9}{'prevented':>11}{'guards':>8}{'requests':>10}{'deploys':>9}  also"
        lines = [head]
        for week in self.weeks:
            repeats = week.repeats_guarded + week.repeats_unguarded
            requests = "-" if week.requests is None else str(week.requests)
            row = f"{week.week:<9}{week.new:>5}{repeats:>9}{week.prevented:>11}{week.guards_active:>8}"
            lines.append(f"{row}{requests:>10}{week.deploys:>9}  {_also(week)}".rstrip())
        return "\n".join(lines)


def _also(week: Week) -> str:
    shown = (
        (week.suspected, "suspected"),
        (week.pending, "pending"),
        (week.reruns, "re-run not counted"),
        (week.caught_other, "caught other"),
        (week.preexisting, "pre-existing"),
        (week.overridden, "overridden"),
        (week.contained, "contained"),
        (week.guards_quarantined, "quarantined"),
    )
    return ", ".join(f"{n} {name}" for n, name in shown if n)


def week_index(ts_ns: int) -> int:
    """Return the number of the ISO week of a moment, counted from that of 1970-01-01."""
    return (ts_ns + EPOCH_OFFSET_NS) // WEEK_NS


def week_name(index: int) -> str:
    """Return the ISO name of a week.

    >>> from opsloop.clock import parse_time
    >>> week_name(week_index(parse_time("2026-01-05T00:00:00Z")))
    '2026-W02'
    """
    thursday = datetime.fromtimestamp((index * WEEK_NS) // NANOSECONDS, tz=UTC)
    year, week, _ = thursday.isocalendar()
    return f"{year}-W{week:02d}"


def weekly_requests(events: Iterable[Event]) -> dict[int, int]:
    """Return how many requests each week had, by its index: the definition that the SQL has to agree with."""
    counts: dict[int, int] = {}
    for event in events:
        if event.event == "request":
            counts[week_index(event.ts_ns)] = counts.get(week_index(event.ts_ns), 0) + 1
    return counts


def flywheel(
    events: Iterable[Event], *, now_ns: int, weeks: int = 12, requests: Mapping[int, int] | None = None
) -> Flywheel:
    """Return the report of the ``weeks`` that end with the week of ``now_ns``.

    ``events`` are those of :data:`FLYWHEEL_KINDS`, in any order; what is later than ``now_ns`` has not happened.
    ``requests`` are the requests per week index, as :func:`weekly_requests` counts them.
    """
    ordered = canonical(event for event in events if event.event in FLYWHEEL_KINDS and event.ts_ns <= now_ns)
    history = rebuild(ordered)
    found = find_preventions(history, now_ns=now_ns)
    contained = _contained(history, ordered)
    last = week_index(now_ns)
    shown = range(last - weeks + 1, last + 1)
    reports = tuple(_week(history, found, contained, index=index, now_ns=now_ns, requests=requests) for index in shown)
    return Flywheel(
        weeks=reports,
        totals=_totals(history, reports, shown),
        preventions=tuple(item for item in found if week_index(item.first_failed_ns) in shown),
    )


def _week(
    history: History,
    found: tuple[Prevention, ...],
    contained: list[tuple[int, str]],
    *,
    index: int,
    now_ns: int,
    requests: Mapping[int, int] | None,
) -> Week:
    end_ns = min((index + 1) * WEEK_NS - EPOCH_OFFSET_NS - 1, now_ns)
    rows: dict[str, list[str]] = {}
    for incident in sorted(history.incidents.values(), key=lambda incident: (incident.detected_ns, incident.id)):
        if week_index(incident.detected_ns) == index and incident.status != "cancelled":
            rows.setdefault(_column(history, incident), []).append(incident.id)
    reruns = 0
    for item in found:
        if week_index(item.first_failed_ns) == index:
            name = "pending" if item.state == "pending" else item.outcome
            rows.setdefault(name, []).append(f"{item.problem_id} {item.change_id}")
            reruns += item.fails - len(item.guard_ids)
    for record in sorted(history.guards.values(), key=lambda record: record.id):
        rows.setdefault(f"guards_{record.state_at(end_ns)}", []).append(record.id)
    rows["contained"] = [name for ts_ns, name in contained if week_index(ts_ns) == index]
    rows["deploys"] = [deploy.release for deploy in history.deploys if week_index(deploy.ts_ns) == index]
    counts = {name: len(rows.get(name, ())) for name in _COUNTED}
    return Week(
        week=week_name(index),
        reruns=reruns,
        requests=None if requests is None else requests.get(index, 0),
        rows={name: tuple(rows[name]) for name in _COUNTED if rows.get(name)},
        **counts,
    )


_COUNTED: Final = (
    "new",
    "repeats_guarded",
    "repeats_unguarded",
    "suspected",
    "prevented",
    "pending",
    "caught_other",
    "preexisting",
    "overridden",
    "contained",
    "guards_active",
    "guards_quarantined",
    "guards_retired",
    "deploys",
)


def _column(history: History, incident: Incident) -> str:
    if incident.relation == "new":
        return "new"
    if incident.relation == "suspected_repeat":
        return "suspected"
    return "repeats_guarded" if _was_guarded(history, incident) else "repeats_unguarded"


def _was_guarded(history: History, incident: Incident) -> bool:
    """Tell whether an active guard existed when the release shipped; when no deploy says so, when it began."""
    live_ns = history.deployed_ns(incident.release, until_ns=incident.detected_ns) if incident.release else None
    shipped_ns = incident.started_ns if live_ns is None else live_ns
    root = history.root(incident.problem_id)
    return any(
        record.state_at(shipped_ns) == "active"
        for record in history.guards.values()
        if history.root(record.problem_id) == root
    )


def _contained(history: History, events: Iterable[Event]) -> list[tuple[int, str]]:
    """Return (when, problem) of every stretch in which a live guard stopped answers of a problem."""
    last: dict[str, int] = {}
    starts: list[tuple[int, str]] = []
    for event in events:
        record = history.guards.get(str(event.attributes.get("name", "")))
        if event.event != "guardrail" or record is None or event.attributes.get("action") != "block":
            continue
        problem = history.root(record.problem_id)
        if problem not in last or event.ts_ns - last[problem] > CONTAINED_GAP_NS:
            starts.append((event.ts_ns, problem))
        last[problem] = event.ts_ns
    return starts


def _totals(history: History, weeks: tuple[Week, ...], shown: range) -> Totals:
    new = sum(week.new + week.suspected for week in weeks)
    guarded = sum(week.repeats_guarded for week in weeks)
    repeats = guarded + sum(week.repeats_unguarded for week in weeks)
    prevented = sum(week.prevented for week in weeks)
    incidents = [incident for incident in history.incidents.values() if week_index(incident.detected_ns) in shown]
    real = sorted((i for i in incidents if i.status != "cancelled"), key=lambda incident: incident.id)
    return Totals(
        repeat_rate=rate(repeats, new + repeats),
        prevention_rate=rate(prevented, prevented + repeats),
        guard_escape_rate=rate(guarded, prevented + guarded),
        time_to_detect=durations(incident.seconds_to("detected") for incident in real),
        time_to_acknowledge=durations(incident.seconds_to("acknowledged") for incident in real),
        time_to_mitigate=durations(incident.seconds_to("mitigated") for incident in real),
        time_to_resolve=durations(incident.seconds_to("resolved") for incident in real),
        time_to_guard=durations(_seconds_to_guard(history, incident) for incident in real if incident.episode_no == 1),
    )


def _seconds_to_guard(history: History, incident: Incident) -> float | None:
    times = [
        record.activated_ns
        for record in history.guards.values()
        if record.problem_id == incident.problem_id and record.activated_ns is not None
    ]
    return (min(times) - incident.detected_ns) / NANOSECONDS if times else None
