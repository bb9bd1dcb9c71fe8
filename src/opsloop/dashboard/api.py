"""What the dashboard answers over HTTP and on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from opsloop.clock import NANOSECONDS, Clock
from opsloop.dashboard.board import NEEDED, headline
from opsloop.dashboard.breakdown import DIMENSIONS, Breakdown, breakdown_from_rows, breakdown_statement
from opsloop.dashboard.budgets import budget_series, slo_counts
from opsloop.dashboard.burn import Count, budget
from opsloop.dashboard.compare import Comparison, around, compared, earlier
from opsloop.dashboard.errors import ratio
from opsloop.dashboard.evaluation import (
    read_absences,
    read_last_known,
    read_objectives,
    read_series,
    read_signals,
    read_slos,
    slots_of,
    step_of,
)
from opsloop.dashboard.explain import explain_objective, explain_slo
from opsloop.dashboard.measure import measure
from opsloop.dashboard.signals import Signals
from opsloop.dashboard.slo import SloReading, judge_slo
from opsloop.dashboard.window import STAGES
from opsloop.endpoint import WINDOW_PARAMETERS, Arguments, Endpoint, Parameter, window_of
from opsloop.errors import InputError
from opsloop.filter import equals
from opsloop.settings import Settings, SloSettings
from opsloop.stream import Database
from opsloop.verdict import Reading, Verdict

__all__ = ["endpoints"]

_SHOWN: Final = (
    "latency_us_p50",
    "latency_us_p95",
    "latency_us_p99",
    "time_to_first_token_us_p95",
    "requests_per_second",
    "tokens_per_second",
    "error_ratio",
    "rejected_ratio",
    "saturation_ratio",
    "quality_mean",
)
_COMPARE: Final = Parameter("compare", "1d, 1w or deploy: the same measures a day or week ago, or before a deploy")
_AT_LEAST: Final = re.compile(r"AT_LEAST\(\s*([0-9]+)")


def endpoints(database: Database, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return the dashboard's endpoints. Raises :class:`opsloop.errors.ConfigError` for an unknown measure."""
    for objective in settings.objective:
        measure(objective.measure)
    room = _Room(database, settings, clock)
    return (
        Endpoint(
            path="/api/signals",
            summary="Golden signals, objectives and error budgets of a window, with their series",
            handler=room.signals,
            parameters=(*WINDOW_PARAMETERS, _COMPARE),
        ),
        Endpoint(
            path="/api/signals/by",
            summary="Failures and latency of a window for each service, route, tenant, release or model",
            handler=room.by,
            parameters=(
                Parameter("dimension", f"one of {', '.join(DIMENSIONS)}; route when left out"),
                *WINDOW_PARAMETERS,
            ),
        ),
        Endpoint(
            path="/api/signals/explain",
            summary="Why an objective or a service level objective has its verdict, to be worked out by hand",
            handler=room.explain,
            parameters=(
                Parameter("id", "the id of an objective or of a service level objective", required=True),
                WINDOW_PARAMETERS[1],
            ),
        ),
    )


class _Room:
    """The handlers, over what they read from."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._slots = slots_of(settings)

    def signals(self, arguments: Arguments, _body: bytes) -> dict[str, Any]:
        """Answer ``GET /api/signals``."""
        settings, database = self._settings, self._database
        start_ns, end_ns = window_of(arguments, clock=self._clock)
        step_seconds = step_of(start_ns=start_ns, end_ns=end_ns)
        whole, steps = read_series(
            database, start_ns=start_ns, end_ns=end_ns, step_ns=step_seconds * NANOSECONDS, slots=self._slots
        )
        readings = read_objectives(database, settings.objective, end_ns=end_ns, slots=self._slots)
        readings += read_absences(database, settings, end_ns=end_ns)
        slos = read_slos(database, settings.slo, end_ns=end_ns)
        spent = budget_series(database, settings.slo, end_ns=end_ns)
        needed = _needed(settings)
        way = arguments.get("compare", "")
        return {
            "now_ns": self._clock.now_ns(),
            "start_ns": start_ns,
            "end_ns": end_ns,
            "sentence": headline(readings, slos, needed=needed),
            "breaching": len({reading.group for reading in readings if reading.verdict is Verdict.BREACH}),
            "signals": len({reading.group for reading in readings}),
            "needed": needed,
            "readings": readings,
            "last_known": self._last_known(readings, end_ns=end_ns),
            "totals": _totals(whole),
            "comparison": self._comparison(way, start_ns=start_ns, end_ns=end_ns) if way else None,
            "series": _series(steps, step_seconds=step_seconds),
            "objectives": [
                {
                    "id": objective.id,
                    "group": objective.group,
                    "measure": objective.measure,
                    "threshold": objective.threshold,
                    "direction": objective.direction,
                    "unit": measure(objective.measure).unit,
                    "clear": objective.clear,
                    "clear_for_seconds": objective.clear_for_seconds,
                }
                for objective in settings.objective
            ],
            "slos": [
                msgspec.to_builtins(reading) | {"series": _remaining(slo, reading, *spent[slo.id])}
                for slo, reading in zip(settings.slo, slos, strict=True)
            ],
        }

    def _last_known(self, readings: Sequence[Reading], *, end_ns: int) -> dict[str, Reading]:
        """Return what was last measured of the objectives without data, by id: to be shown with its age, not judged."""
        silent = {reading.id for reading in readings if reading.verdict is Verdict.NO_DATA}
        found = {
            each.id: read_last_known(self._database, each, end_ns=end_ns, slots=self._slots)
            for each in self._settings.objective
            if each.id in silent
        }
        return {name: reading for name, reading in found.items() if reading is not None}

    def _comparison(self, way: str, *, start_ns: int, end_ns: int) -> Comparison:
        """Compare the window, or what lies around the last deploy before its end."""
        release = ""
        after = (start_ns, end_ns)
        if way == "deploy":
            found = self._database.query(equals(event="deploy"), end_ns=end_ns, limit=1, newest_first=True)
            if not found:
                raise InputError("no deploy was seen", fix="send an event of kind deploy, or compare with 1d or 1w")
            before, after = around(found[0].ts_ns, start_ns=start_ns, end_ns=end_ns)
            release = found[0].release
        else:
            before = earlier(way, start_ns=start_ns, end_ns=end_ns)
        old, new = (
            read_signals(self._database, start_ns=first, end_ns=last, slots=self._slots)
            for first, last in (before, after)
        )
        return compared(way, _SHOWN, old, new, release=release)

    def by(self, arguments: Arguments, _body: bytes) -> Breakdown:
        """Answer ``GET /api/signals/by``."""
        start_ns, end_ns = window_of(arguments, clock=self._clock)
        dimension = arguments.get("dimension") or "route"
        statement = breakdown_statement(dimension, start_ns=start_ns, end_ns=end_ns)
        return breakdown_from_rows(self._database.rows(statement), dimension)

    def explain(self, arguments: Arguments, _body: bytes) -> dict[str, Any]:
        """Answer ``GET /api/signals/explain``."""
        name = arguments.get("id", "")
        _, end_ns = window_of({key: value for key, value in arguments.items() if key == "to"}, clock=self._clock)
        for objective in self._settings.objective:
            if objective.id == name:
                (reading,) = read_objectives(self._database, [objective], end_ns=end_ns, slots=self._slots)
                text = explain_objective(objective, reading)
                return {"id": name, "kind": "objective", "text": text, "objective": objective, "reading": reading}
        for slo in self._settings.slo:
            if slo.id == name.removeprefix("slow-").removeprefix("burn-"):
                counts = slo_counts(self._database, [slo], end_ns=end_ns)[slo.id]
                judged = judge_slo(slo, counts, end_ns=end_ns)
                text = explain_slo(slo, judged, counts, end_ns=end_ns)
                windows = [{"seconds": each, "bad": n.bad, "total": n.total} for each, n in counts.items()]
                return {"id": name, "kind": "slo", "text": text, "slo": slo, "reading": judged, "windows": windows}
        known = [each.id for each in self._settings.objective] + [each.id for each in self._settings.slo]
        raise InputError(f"there is no objective {name!r}", fix=f"use one of {', '.join(known)}")


def _needed(settings: Settings) -> int:
    """Return how many signals the first paging alert needs, as its composite says it."""
    pages = (alert.when for alert in settings.alert if alert.severity == "page")
    match = _AT_LEAST.search(next(pages, ""))
    return int(match[1]) if match else NEEDED


def _totals(found: Signals) -> dict[str, Any]:
    values = {name: measure(name).read(found).value for name in _SHOWN if name != "rejected_ratio"}
    return {
        "requests": found.errors.requests,
        "errors": found.errors.failed,
        "rejected": found.errors.rejected,
        **values,
        "cost_microusd": found.cost.microusd,
    }


def _series(steps: Sequence[Signals], *, step_seconds: int) -> dict[str, Any]:
    stages = [name for name in STAGES if any(found.errors.by_stage.get(name) for found in steps)]
    series: dict[str, Any] = {"step_seconds": step_seconds, "ts_ns": [found.end_ns for found in steps]}
    for name in _SHOWN:
        read = measure(name).read
        series[name] = [read(found).value for found in steps]
    series["errors_by_stage"] = {
        name: [ratio(found.errors.by_stage.get(name, 0), found.errors.served) for found in steps] for name in stages
    }
    return series


def _remaining(slo: SloSettings, reading: SloReading, ends: Sequence[int], sums: Sequence[Count]) -> dict[str, Any]:
    """Return how the budget of the period was spent: it ends on what remains now.

    The budget is of the whole period: of a calendar one that still runs, as many events more as its time is to come.
    """
    now_ns = ends[-1]
    passed = (now_ns - reading.period_start_ns) / (reading.period_end_ns - reading.period_start_ns)
    allowed = budget(slo.target) * sums[-1].total
    return {
        "ts_ns": list(ends),
        "remaining_ratio": [float(1 - each.bad / allowed * passed) if allowed else None for each in sums],
    }
