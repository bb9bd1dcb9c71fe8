"""What budgets are judged from, read from the database: by roll-up where one has an objective's counts, else by row.

Both ways count the same events. :func:`opsloop.dashboard.rollup.why_rows` tells which way an objective goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from opsloop.dashboard.burn import Count
from opsloop.dashboard.period import period_of
from opsloop.dashboard.rollup import rolled_statement, why_rows
from opsloop.dashboard.sql import (
    budget_series_from_rows,
    budget_series_statement,
    slo_band,
    slo_counts_from_rows,
    slo_starts,
    slo_statement,
)
from opsloop.rollup import SLOT_NS
from opsloop.settings import SloSettings
from opsloop.stream import Database

__all__ = ["MOST_STEPS", "budget_series", "slo_counts"]

MOST_STEPS: Final = 120


def slo_counts(database: Database, slos: Sequence[SloSettings], *, end_ns: int) -> dict[str, dict[float, Count]]:
    """Count bad and all events of every objective in its windows up to ``end_ns``, in one statement for each way."""
    rolled, others = _by_way(slos)
    counts: dict[str, dict[float, Count]] = {}
    if rolled:
        starts = slo_starts(rolled, end_ns=end_ns)
        statement = rolled_statement(rolled, cuts=(*starts, end_ns), band=slo_band(starts))
        counts |= slo_counts_from_rows(database.rows(statement), rolled, end_ns=end_ns)
    if others:
        counts |= slo_counts_from_rows(database.rows(slo_statement(others, end_ns=end_ns)), others, end_ns=end_ns)
    return counts


def budget_series(
    database: Database, slos: Sequence[SloSettings], *, end_ns: int
) -> dict[str, tuple[list[int], list[Count]]]:
    """Return each objective's step ends and its counts up to each of them, from the start of its period to ``end_ns``.

    One statement for each distinct period and way. By roll-up, all steps but the last end on quarter-hours.
    """
    found: dict[str, tuple[list[int], list[Count]]] = {}
    starts = {slo.id: period_of(slo, now_ns=end_ns).start_ns for slo in slos}
    for start_ns in sorted(set(starts.values())):
        same = [slo for slo in slos if starts[slo.id] == start_ns]
        rolled, others = _by_way(same) if end_ns - start_ns >= MOST_STEPS * SLOT_NS else ([], same)
        if rolled:
            ends, band = _quarter_hours(start_ns=start_ns, end_ns=end_ns)
            rows = database.rows(rolled_statement(rolled, cuts=(start_ns, *ends), band=band))
            for name, counts in budget_series_from_rows(rows, rolled, steps=len(ends)).items():
                found[name] = (ends, _running(counts))
        if others:
            step_ns = -(-(end_ns - start_ns) // MOST_STEPS)
            ends = [end_ns - step_ns * back for back in reversed(range(MOST_STEPS))]
            rows = database.rows(budget_series_statement(others, start_ns=start_ns, end_ns=end_ns, step_ns=step_ns))
            for name, counts in budget_series_from_rows(rows, others, steps=MOST_STEPS).items():
                found[name] = (ends, _running(counts))
    return found


def _by_way(slos: Iterable[SloSettings]) -> tuple[list[SloSettings], list[SloSettings]]:
    """Part the objectives that roll-ups can answer from those that they cannot."""
    ways: tuple[list[SloSettings], list[SloSettings]] = ([], [])
    for slo in slos:
        ways[bool(why_rows(slo))].append(slo)
    return ways


def _quarter_hours(*, start_ns: int, end_ns: int) -> tuple[list[int], str]:
    """Return the ends of at most 120 steps, all but the last on quarter-hours, and a row's step counted from the last.

    >>> ends, _ = _quarter_hours(start_ns=0, end_ns=30 * 86_400 * 10**9)
    >>> len(ends), (ends[1] - ends[0]) // SLOT_NS
    (116, 25)
    """
    step_ns = -(-(end_ns - start_ns) // ((MOST_STEPS - 1) * SLOT_NS)) * SLOT_NS
    last_ns = -(-end_ns // SLOT_NS) * SLOT_NS
    ends = range(last_ns - step_ns, start_ns, -step_ns)
    return [*reversed(ends), end_ns], f"intDiv({last_ns} - ts_ns, {step_ns})"


def _running(counts: Sequence[Count]) -> list[Count]:
    """Return the sums up to and with each count."""
    bad = total = 0
    sums = []
    for count in counts:
        bad, total = bad + count.bad, total + count.total
        sums.append(Count(bad, total))
    return sums
