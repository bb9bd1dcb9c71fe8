"""What ``/metrics`` says of the service: counters of what came in, and gauges of how it is judged.

The gauges are read from the store, at most once per evaluation interval however many scrape: signals of the last
window, every objective with its verdict, every budget with its burn in each window. What is not known has no sample: a
gauge is never 0 because nothing was measured.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from opsloop.clock import NANOSECONDS, Clock
from opsloop.dashboard import Count, Signals, SloReading, burn, burn_readings, judge_slo
from opsloop.dashboard.evaluation import read_absences, read_objectives, read_signals, slots_of
from opsloop.dashboard.sql import slo_counts_from_rows, slo_statement
from opsloop.integrations.exposition import Family, Sample
from opsloop.integrations.prometheus_rules import WINDOW_BAD, WINDOW_TOTAL, duration
from opsloop.settings import Settings, SloSettings
from opsloop.stream import Database
from opsloop.verdict import Reading, Verdict

__all__ = ["SignalGauges", "budget_families", "reading_families", "signal_families"]

WINDOW_SECONDS: Final = 300.0
_QUANTILES: Final = ("p50", "p90", "p95", "p99")


class SignalGauges:
    """Reads the gauges of a store, and keeps them for an evaluation interval."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        """Read what the settings name."""
        self._database, self._settings, self._clock = database, settings, clock
        self._lock = threading.Lock()
        self._read_ns: int | None = None
        self._kept: list[Family] = []

    def families(self) -> list[Family]:
        """Return the gauges. Raises :class:`opsloop.errors.StoreError` when the store does not answer."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            age = self._settings.server.evaluate_seconds * NANOSECONDS
            if self._read_ns is None or now_ns - self._read_ns >= age:
                self._kept = self._read()
                self._read_ns = now_ns
            return self._kept

    def _read(self) -> list[Family]:
        settings, database = self._settings, self._database
        end_ns = self._clock.now_ns()
        start_ns = end_ns - round(WINDOW_SECONDS * NANOSECONDS)
        slots = slots_of(settings)
        signals = read_signals(database, start_ns=start_ns, end_ns=end_ns, slots=slots)
        readings = read_objectives(database, settings.objective, end_ns=end_ns, slots=slots)
        counts: dict[str, dict[float, Count]] = {}
        if settings.slo:
            rows = database.rows(slo_statement(settings.slo, end_ns=end_ns))
            counts = slo_counts_from_rows(rows, settings.slo, end_ns=end_ns)
        judged = [judge_slo(slo, counts[slo.id], end_ns=end_ns) for slo in settings.slo]
        for slo, reading in zip(settings.slo, judged, strict=True):
            readings.extend(burn_readings(slo, reading, end_ns=end_ns))
        readings.extend(read_absences(database, settings, end_ns=end_ns))
        return [
            *signal_families(signals),
            *reading_families(readings),
            *budget_families(settings.slo, judged, counts, end_ns=end_ns),
        ]


def signal_families(signals: Signals) -> list[Family]:
    """Return the gauges of one window: exact quantiles, rates, saturation and quality."""
    served, first = signals.latency.served, signals.latency.first_token
    return [
        _gauge("opsloop_request_duration_quantile_seconds", "Exact quantiles, 5 minutes.", _quantiles(served)),
        _gauge("opsloop_time_to_first_token_quantile_seconds", "Exact quantiles, 5 minutes.", _quantiles(first)),
        _gauge("opsloop_requests_per_second", "Request rate, 5 minutes.", _one(signals.traffic.requests_per_second)),
        _gauge("opsloop_saturation_ratio", "How full each resource is.", _saturation(signals)),
        _gauge("opsloop_quality_mean", "Mean score of the answers, 5 minutes.", _one(signals.quality.mean)),
    ]


def reading_families(readings: Iterable[Reading]) -> list[Family]:
    """Return each reading's value, threshold, number of events, and its verdict: 1 for the one that holds."""
    seen = list(readings)
    values = [(reading, reading.value) for reading in seen if reading.value is not None]
    limits = [(reading, reading.threshold) for reading in seen if reading.threshold is not None]
    return [
        _gauge("opsloop_objective_value", "What was measured.", (_sample(r, value) for r, value in values)),
        _gauge("opsloop_objective_threshold", "Where a breach begins.", (_sample(r, value) for r, value in limits)),
        _gauge("opsloop_objective_events", "How many events it rests on.", (_sample(r, r.n) for r in seen)),
        _gauge(
            "opsloop_objective_verdict",
            "1 for the verdict that holds, 0 for the others.",
            (
                Sample(int(reading.verdict is verdict), {"objective": reading.id, "verdict": verdict.value})
                for reading in seen
                for verdict in Verdict
            ),
        ),
    ]


def budget_families(
    slos: Sequence[SloSettings],
    judged: Sequence[SloReading],
    counts: Mapping[str, Mapping[float, Count]],
    *,
    end_ns: int,
) -> list[Family]:
    """Return each objective's promise, what is left of its budget, and the counts and burn of each window.

    The window of a calendar period is called after it: its length would be another series at each scrape.
    """
    left = [(reading.id, reading.remaining_ratio) for reading in judged]
    windows = [
        (slo, {"slo": slo.id, "window": _window(slo, reading, seconds, end_ns=end_ns)}, count)
        for slo, reading in zip(slos, judged, strict=True)
        for seconds, count in counts[slo.id].items()
    ]
    burns = [(labels, burn(count, slo.target)) for slo, labels, count in windows]
    return [
        _gauge("opsloop_slo_target_ratio", "The promise.", (Sample(slo.target, {"slo": slo.id}) for slo in slos)),
        _gauge(
            "opsloop_slo_budget_remaining_ratio",
            "What is left of the error budget; below 0 when overspent.",
            (Sample(value, {"slo": name}) for name, value in left if value is not None),
        ),
        _gauge(WINDOW_TOTAL, "Events of a window.", (Sample(count.total, labels) for _, labels, count in windows)),
        _gauge(WINDOW_BAD, "Bad events of a window.", (Sample(count.bad, labels) for _, labels, count in windows)),
        _gauge(
            "opsloop_slo_burn",
            "How fast the budget is spent: at 1 it lasts the period.",
            (Sample(value, labels) for labels, value in burns if value is not None),
        ),
    ]


def _window(slo: SloSettings, reading: SloReading, seconds: float, *, end_ns: int) -> str:
    whole = seconds == (end_ns - reading.period_start_ns) / NANOSECONDS
    return slo.calendar if slo.calendar and whole else duration(seconds)


_Kind = Literal["gauge"]
_GAUGE: Final[_Kind] = "gauge"


def _gauge(name: str, text: str, samples: Iterable[Sample]) -> Family:
    return Family(name, _GAUGE, text, tuple(samples))


def _one(value: float | None) -> tuple[Sample, ...]:
    return () if value is None else (Sample(value),)


def _sample(reading: Reading, value: float) -> Sample:
    return Sample(value, {"objective": reading.id, "group": reading.group, "unit": reading.unit})


def _quantiles(found: object) -> list[Sample]:
    values = [(name, getattr(found, name)) for name in _QUANTILES]
    return [Sample(value / 1e6, {"rank": name}) for name, value in values if value is not None]


def _saturation(signals: Signals) -> list[Sample]:
    return [Sample(level, {"resource": name}) for name, level in sorted(signals.saturation.by_resource.items())]
