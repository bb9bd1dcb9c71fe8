"""What is usual: how long a step takes on its route, and who else met the same failure.

    baseline of a step    n and p95 of ``duration_us`` over the steps of the same kind, tool and model on its route in
                          the 24 hours before the request began; the p95 is the inclusive quantile
    slow                  n >= 20 and the step took longer than that p95
    siblings              events of other requests within 15 minutes of the failure, on either side, with the same
                          fingerprint: kind, tool and error_type, or the message where there is no error_type

The definitions are here; :func:`baselines_statement` is the fast form of the first, and a property test holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from opsloop.event import SEVERITIES, Event
from opsloop.filter import And, Compare, Filter, Not, Op, Statement
from opsloop.quantile import quantile
from opsloop.stream import Database, Source
from opsloop.structured_logging.format import format_query
from opsloop.structured_logging.seen import SPAN_KINDS

__all__ = [
    "BASELINE_NS",
    "LEAST",
    "SIBLING_NS",
    "Baseline",
    "Siblings",
    "Slow",
    "baselines",
    "baselines_from_rows",
    "baselines_statement",
    "siblings_of",
    "slow_steps",
    "usual",
]

BASELINE_NS: Final = 24 * 3600 * 1_000_000_000
SIBLING_NS: Final = 15 * 60 * 1_000_000_000
LEAST: Final = 20
"""Fewer steps than this are no baseline: the p95 would be one of the two largest."""
_MOST: Final = 1_000
_SHOWN: Final = 10
Step = tuple[str, str, str]
"""(kind, tool, model)."""


class Baseline(msgspec.Struct, frozen=True):
    """What is usual for a step."""

    n: int
    p95_us: float


class Slow(msgspec.Struct, frozen=True):
    """A step that took longer than 95 % of its like."""

    event: Event
    p95_us: float
    n: int
    """How many the p95 is of."""


class Siblings(msgspec.Struct, frozen=True):
    """Other requests with the same failure, the nearest in time first."""

    fingerprint: str
    query: str
    """The query line that finds them."""
    start_ns: int
    end_ns: int
    events: int
    requests: tuple[str, ...]
    """At most ten ids."""


def baselines(events: Iterable[Event]) -> dict[Step, Baseline]:
    """Return the baseline of every step among events of one route.

    >>> steps = [Event(ts_ns=n, event="tool", tool="search", duration_us=n) for n in (1, 2, 3)]
    >>> baselines(steps)
    {('tool', 'search', ''): Baseline(n=3, p95_us=2.9)}
    """
    found: dict[Step, list[int]] = {}
    for event in events:
        if event.event in SPAN_KINDS and event.duration_us is not None:
            found.setdefault(_step(event), []).append(event.duration_us)
    return {step: Baseline(len(values), quantile(sorted(values), 0.95)) for step, values in found.items()}


def baselines_statement(route: str, *, start_ns: int, end_ns: int) -> Statement:
    """Return the statement for :func:`baselines`: rows of (kind, tool, model, n, p95)."""
    sql = (
        "SELECT event, tool, model, count(), quantileExactInclusive(0.95)(assumeNotNull(duration_us)) FROM events"
        " WHERE ts_ns > {start_ns:Int64} AND ts_ns <= {end_ns:Int64} AND route = {route:String}"
        " AND event IN {kinds:Array(String)} AND isNotNull(duration_us) GROUP BY event, tool, model"
    )
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns, "route": route, "kinds": sorted(SPAN_KINDS)})


def baselines_from_rows(rows: Iterable[Sequence[Any]]) -> dict[Step, Baseline]:
    """Return the baselines of the statement's rows."""
    return {(kind, tool, model): Baseline(int(n), float(p95)) for kind, tool, model, n, p95 in rows}


def usual(source: Source, request: Event) -> dict[Step, Baseline]:
    """Return the baselines of a request's route before it began; none without a route."""
    if not request.route:
        return {}
    start_ns, end_ns = request.ts_ns - BASELINE_NS, request.ts_ns - 1
    if isinstance(source, Database):
        return baselines_from_rows(source.rows(baselines_statement(request.route, start_ns=start_ns, end_ns=end_ns)))
    return baselines(source.query(Compare("route", Op.EQ, request.route), start_ns=start_ns, end_ns=end_ns))


def slow_steps(events: Sequence[Event], known: Mapping[Step, Baseline]) -> tuple[Slow, ...]:
    """Return the steps that took longer than usual, in their order."""
    found = []
    for event in events:
        base = known.get(_step(event))
        if base is not None and base.n >= LEAST and event.duration_us is not None and event.duration_us > base.p95_us:
            found.append(Slow(event, base.p95_us, base.n))
    return tuple(found)


def siblings_of(source: Source, failure: Event) -> Siblings:
    """Return what else failed in the same way at about the same time; of more than a thousand events, the latest."""
    same = _fingerprint(failure)
    where = And((*same, Not(Compare("request_id", Op.EQ, failure.request_id))))
    start_ns, end_ns = failure.ts_ns - SIBLING_NS - 1, failure.ts_ns + SIBLING_NS
    found = source.query(where, start_ns=start_ns, end_ns=end_ns, limit=_MOST, newest_first=True)
    found.sort(key=lambda event: abs(event.ts_ns - failure.ts_ns))
    names = dict.fromkeys(event.request_id for event in found if event.request_id)
    told = " ".join(part for part in (failure.event, failure.tool, failure.error_type or failure.message) if part)
    return Siblings(told, format_query(And(same)), start_ns, end_ns, len(found), tuple(names)[:_SHOWN])


def _fingerprint(failure: Event) -> tuple[Filter, ...]:
    bad = Compare("error", Op.EQ, value=True) if failure.error else Compare("severity", Op.GE, SEVERITIES[4])
    what = ("error_type", failure.error_type) if failure.error_type else ("message", failure.message)
    tool = (Compare("tool", Op.EQ, failure.tool),) if failure.tool else ()
    return (Compare("event", Op.EQ, failure.event), *tool, bad, Compare(what[0], Op.EQ, what[1]))


def _step(event: Event) -> Step:
    return event.event, event.tool, event.model
