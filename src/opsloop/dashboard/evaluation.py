"""Objectives and budgets of a moment, read from the database in few statements: what the API and the worker share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.absence import absence, received_statement
from opsloop.dashboard.budgets import MOST_STEPS, slo_counts
from opsloop.dashboard.hysteresis import hold, holds, said_from_rows, said_statement
from opsloop.dashboard.measure import measure
from opsloop.dashboard.objective import judge
from opsloop.dashboard.signals import Signals
from opsloop.dashboard.slo import SloReading, judge_slo
from opsloop.dashboard.sql import (
    budget_series_from_rows,
    budget_series_statement,
    levels_statement,
    signals_from_rows,
    signals_statement,
)
from opsloop.filter import And, Or, equals
from opsloop.settings import ObjectiveSettings, Settings, SloSettings
from opsloop.stream import Database
from opsloop.verdict import Reading

__all__ = [
    "grid",
    "read_absences",
    "read_last_known",
    "read_objectives",
    "read_series",
    "read_signals",
    "read_slos",
    "slots_of",
    "step_of",
]

STEPS_SECONDS: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
)  # fmt: skip
"""Steps that people read easily."""

LAST_KNOWN_SECONDS: Final = 604_800


def slots_of(settings: Settings) -> int | None:
    """Return how many requests may run at once: the smallest concurrency limit that holds for all of them together.

    >>> slots_of(Settings())
    32
    """
    amounts = [
        each.amount for each in settings.limit if each.lever == "concurrency" and not each.scope and not each.when
    ]
    return min(amounts, default=None)


def step_of(*, start_ns: int, end_ns: int) -> int:
    """Return the step in seconds that cuts a window into about 120: the smallest readable one that does.

    >>> step_of(start_ns=0, end_ns=3600 * 10**9)
    30
    """
    most = (end_ns - start_ns) / NANOSECONDS / MOST_STEPS
    return next((step for step in STEPS_SECONDS if step >= most), STEPS_SECONDS[-1])


def grid(*, start_ns: int, end_ns: int, step_ns: int) -> list[tuple[int, int]]:
    """Return the windows ``(start_ns, end_ns]`` of the steps in a window, clipped to it.

    Steps end at multiples of ``step_ns``, so a later window has the same ones. The first and the last are as long as
    the window lets them; one shorter than half a step is left out, or its rate would be mostly chance.

    >>> grid(start_ns=4, end_ns=26, step_ns=10)
    [(4, 10), (10, 20), (20, 26)]
    """
    edges = range(start_ns // step_ns * step_ns, end_ns + step_ns, step_ns)
    steps = [(max(edge, start_ns), min(edge + step_ns, end_ns)) for edge in edges if edge < end_ns]
    return [(first, last) for first, last in steps if 2 * (last - first) >= step_ns]


def read_signals(
    database: Database,
    *,
    start_ns: int,
    end_ns: int,
    labels: Mapping[str, str] | None = None,
    slots: int | None = None,
    levels: bool = True,
) -> Signals:
    """Return the signals of a window, in two statements; in one without ``levels``.

    Levels are what saturation is worked out from; without them it is not known.
    """
    rows = database.rows(signals_statement(start_ns=start_ns, end_ns=end_ns, labels=labels))
    seen = database.rows(levels_statement(start_ns=start_ns, end_ns=end_ns, labels=labels)) if levels else ()
    (signals,) = signals_from_rows(rows, seen, windows=[(start_ns, end_ns)], slots=slots)
    return signals


def read_series(
    database: Database, *, start_ns: int, end_ns: int, step_ns: int, slots: int | None = None
) -> tuple[Signals, list[Signals]]:
    """Return the signals of a window and of each of its steps, in the same two statements."""
    rows = database.rows(signals_statement(start_ns=start_ns, end_ns=end_ns, step_ns=step_ns))
    seen = database.rows(levels_statement(start_ns=start_ns, end_ns=end_ns, step_ns=step_ns))
    (whole,) = signals_from_rows(rows, seen, windows=[(start_ns, end_ns)], slots=slots)
    steps = grid(start_ns=start_ns, end_ns=end_ns, step_ns=step_ns)
    return whole, signals_from_rows(rows, seen, windows=steps, step_ns=step_ns, slots=slots)


def read_objectives(
    database: Database, objectives: Sequence[ObjectiveSettings], *, end_ns: int, slots: int | None = None
) -> list[Reading]:
    """Judge every objective in its own window up to ``end_ns``; those of one window and labels share statements."""
    read: dict[tuple[float, tuple[tuple[str, str], ...]], Signals] = {}
    full = {_window(each) for each in objectives if measure(each.measure).counted == "observations"}
    readings = []
    for objective in objectives:
        what = measure(objective.measure)
        start_ns = end_ns - round(objective.window_seconds * NANOSECONDS)
        key = _window(objective)
        if key not in read:
            read[key] = read_signals(
                database, start_ns=start_ns, end_ns=end_ns, labels=objective.labels, slots=slots, levels=key in full
            )
        readings.append(judge(what.read(read[key]), objective, start_ns=start_ns, end_ns=end_ns))
    names = [objective.id for objective in objectives if holds(objective)]
    before = said_from_rows(database.rows(said_statement(names, end_ns=end_ns))) if names else {}
    return [
        hold(reading, objective, before.get(reading.id))
        for reading, objective in zip(readings, objectives, strict=True)
    ]


def _window(objective: ObjectiveSettings) -> tuple[float, tuple[tuple[str, str], ...]]:
    """Return what objectives have in common that are read together."""
    return objective.window_seconds, tuple(sorted(objective.labels.items()))


def read_absences(database: Database, settings: Settings, *, end_ns: int) -> list[Reading]:
    """Return ``absent-ID`` of every objective and service level objective that has ``absent_seconds``."""
    found = []
    watched: list[ObjectiveSettings | SloSettings] = [*settings.objective, *settings.slo]
    for each in watched:
        if each.absent_seconds is not None:
            start_ns = end_ns - round(each.absent_seconds * NANOSECONDS)
            counted, n = _seen(database, each, start_ns=start_ns, end_ns=end_ns)
            received, ever = database.rows(received_statement(start_ns=start_ns, end_ns=end_ns))[0]
            found.append(absence(each, counted=counted, n=n, received=received, ever=bool(ever), end_ns=end_ns))
    return found


def _seen(
    database: Database, objective: ObjectiveSettings | SloSettings, *, start_ns: int, end_ns: int
) -> tuple[str, int]:
    """Return what an objective counts, and how many of these were seen in a window."""
    if isinstance(objective, ObjectiveSettings):
        what = measure(objective.measure)
        seen = read_signals(database, start_ns=start_ns, end_ns=end_ns, labels=objective.labels)
        measured = what.read(seen)
        return what.counted, 0 if measured.value is None else measured.n
    statement = budget_series_statement([objective], start_ns=start_ns, end_ns=end_ns, step_ns=end_ns - start_ns)
    (count,) = budget_series_from_rows(database.rows(statement), [objective], steps=1)[objective.id]
    return "scores" if objective.sli == "quality" else "requests", count.total


def read_last_known(
    database: Database, objective: ObjectiveSettings, *, end_ns: int, slots: int | None = None
) -> Reading | None:
    """Return what was measured of an objective when it was last known, at most a week before ``end_ns``.

    Its window ends at the newest event that its measure may count.
    """
    where = And(
        (Or(tuple(equals(event=kind) for kind in measure(objective.measure).kinds)), equals(**objective.labels))
    )
    start_ns = end_ns - LAST_KNOWN_SECONDS * NANOSECONDS
    newest = database.query(where, start_ns=start_ns, end_ns=end_ns, limit=1, newest_first=True)
    if not newest:
        return None
    (reading,) = read_objectives(database, [objective], end_ns=newest[0].ts_ns, slots=slots)
    return reading if reading.value is not None else None


def read_slos(database: Database, slos: Sequence[SloSettings], *, end_ns: int) -> list[SloReading]:
    """Judge every service level objective at ``end_ns``."""
    counts = slo_counts(database, slos, end_ns=end_ns)
    return [judge_slo(slo, counts[slo.id], end_ns=end_ns) for slo in slos]
