"""Golden signals, objectives and error budgets, worked out from events.

Objects
    A :class:`Window` of events gives :class:`Signals`: latency, traffic, errors, saturation, quality, cost. A *measure*
    (:data:`MEASURES`) reads one number from them. An objective and a measure give a :class:`opsloop.verdict.Reading`.
    A service level objective counts bad and total events over its period and gives an :class:`SloReading`.
Rule
    Windows are ``(start, end]``. Quantiles are exact. Comparisons are strict and unrounded. Nothing measured is
    ``NO_DATA`` and too little is ``INSUFFICIENT``: neither is met, neither is breached. A budget is event-weighted,
    and a burn needs two windows and evidence.
Limits
    A request counts when it *began*: the slowest of the last minute are not yet written. Signals read the events of
    their window each time, so they cost what it holds; budgets read roll-ups where these have their counts.
"""

from __future__ import annotations

from opsloop.dashboard.board import Dashboard, dashboard, headline
from opsloop.dashboard.burn import Count, Tier, TierReading, budget, burn, judge_tiers, tail, tiers
from opsloop.dashboard.measure import MEASURES, Measure, Measured, measure
from opsloop.dashboard.objective import judge
from opsloop.dashboard.signals import Signals, signals
from opsloop.dashboard.slo import SloReading, burn_readings, count_slo, judge_slo, slo_windows
from opsloop.dashboard.window import Window

__all__ = [
    "MEASURES",
    "Count",
    "Dashboard",
    "Measure",
    "Measured",
    "Signals",
    "SloReading",
    "Tier",
    "TierReading",
    "Window",
    "budget",
    "burn",
    "burn_readings",
    "count_slo",
    "dashboard",
    "headline",
    "judge",
    "judge_slo",
    "judge_tiers",
    "measure",
    "signals",
    "slo_windows",
    "tail",
    "tiers",
]
