"""Budgets from the roll-ups: exact counts over a month without reading a month of rows.

Which objectives
    Bad and total are counts by :data:`opsloop.rollup.KEYS` for ``availability``; for ``latency`` and
    ``time_to_first_token`` too, where ``threshold_us`` is one of the bounds that a roll-up counts at. All others are
    counted row by row, and :func:`why_rows` says why. Nothing is estimated: a threshold between two bounds is never
    read off a bucket.
Rule
    The windows of an objective cut its period in a dozen places. The quarter-hours between the cuts are summed from
    the roll-ups, the few that a cut runs through from their rows, in one statement.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Any, Final

from opsloop.dashboard.amount import amount
from opsloop.dashboard.sql import judged
from opsloop.filter import Statement, compile_filter, equals
from opsloop.rollup import BY_SLOTS, PLAN, SLOT, SLOT_NS, cut, on_keys
from opsloop.settings import SloSettings

__all__ = ["DURATION_BOUNDS_US", "FIRST_TOKEN_BOUNDS_US", "rolled_statement", "why_rows"]

_MS: Final = 1000
DURATION_BOUNDS_US: Final = tuple(
    _MS * bound
    for bound in (
        *(100, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 2500, 3000, 4000, 5000, 8000),
        *(10_000, 15_000, 20_000, 30_000, 60_000),
    )
)
"""The durations that the roll-ups count the slower ones of."""

FIRST_TOKEN_BOUNDS_US: Final = tuple(
    _MS * bound for bound in (100, 200, 250, 300, 500, 750, 1000, 1500, 2000, 3000, 5000)
)
"""... and the times to first token."""


def why_rows(slo: SloSettings) -> str:
    """Return why an objective is counted row by row; empty when the roll-ups hold its counts.

    >>> why_rows(SloSettings(id="up"))
    ''
    >>> why_rows(SloSettings(id="fast", sli="latency", threshold_us=1_234_000))
    'no roll-up counts at 1.23 s: the next that do are 1.00 s and 1.50 s'
    """
    if slo.sli in {"goodput", "quality"}:
        return f"{slo.sli} asks for single scores"
    if not on_keys(equals(**slo.labels)):
        return f"roll-ups do not tell apart by {', '.join(sorted(slo.labels))}"
    bounds = {"latency": DURATION_BOUNDS_US, "time_to_first_token": FIRST_TOKEN_BOUNDS_US}.get(slo.sli)
    limit = slo.threshold_us
    if bounds is None or limit is None or limit in bounds:
        return ""
    place = bisect.bisect(bounds, limit)
    near = [amount(bound, "us") for bound in bounds[max(0, place - 1) : place + 1]]
    return f"no roll-up counts at {amount(limit, 'us')}: the next that do are {' and '.join(near)}"


def rolled_statement(slos: Sequence[SloSettings], *, cuts: Iterable[int], band: str) -> Statement:
    """Return bad and total events of objectives in the window that ``cuts`` span, by band.

    ``band`` is an expression in ``ts_ns`` that is constant between two cuts. A row is (band, bad and total of the first
    objective, of the second, …).
    """
    moments = sorted(set(cuts))
    found = cut(moments)
    rows, bound = judged(slos, start_ns=moments[0], end_ns=moments[-1], within=found.rows)
    columns = [f"{name}{index}" for index in range(len(slos)) for name in ("bad", "counted")]
    exact = f"SELECT {band} AS band, {', '.join(f'toUInt64({name}) AS {name}' for name in columns)} FROM ({rows})"
    whole, more = _whole(slos, found.slots, band)
    slots = f"SELECT band, {', '.join(columns)} FROM ({whole})"
    sums = ", ".join(f"sum({name})" for name in columns)
    sql = f"SELECT band, {sums} FROM ({slots} UNION ALL {exact}) GROUP BY band{PLAN}"
    return Statement(sql, {**bound, **more})


def _whole(slos: Sequence[SloSettings], slots: str, band: str) -> tuple[str, dict[str, Any]]:
    """Return the query of what every whole slot adds to each objective; a slot stands where it ends."""
    labels = {name for slo in slos for name in slo.labels}
    keys = ["moment", *sorted({"error", "error_type"} | labels)]
    parameters: dict[str, Any] = {}
    columns = [f"{SLOT} * {SLOT_NS} AS moment", f"{band.replace('ts_ns', 'moment')} AS band"]
    for index, slo in enumerate(slos):
        selected = compile_filter(equals(**slo.labels), prefix=f"s{index}_label")
        parameters |= selected.parameters
        condition, (total, bad) = f"error_type != 'rate_limited' AND {selected.sql}", _aggregates(slo)
        columns += [f"if({condition}, {bad}, 0) AS bad{index}", f"if({condition}, {total}, 0) AS counted{index}"]
    where = f"event = 'request' AND {slots}"
    return f"SELECT {', '.join(columns)} FROM events WHERE {where} GROUP BY {', '.join(keys)}{BY_SLOTS}", parameters


def _aggregates(slo: SloSettings) -> tuple[str, str]:
    """Return the total and the bad events of a group of requests, as the roll-ups hold them."""
    if slo.sli == "availability":
        return "count()", "if(error, count(), 0)"
    if slo.threshold_us is None:
        return "0", "0"
    column = "duration_us" if slo.sli == "latency" else "time_to_first_token_us"
    return f"count({column})", f"countIf({column} > {slo.threshold_us})"
