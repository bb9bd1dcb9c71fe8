"""An objective judged: a measured value against its threshold, with the reason in one sentence.

Rule
    Nothing measured is ``NO_DATA``; fewer than ``min_samples`` events are ``INSUFFICIENT``, whatever the value; else
    the value is compared *strictly* with the threshold, unrounded. On the threshold is not beyond it. ``severe`` is
    beyond ``severe_factor`` times the threshold (for ``below``: under the threshold divided by it).
"""

from __future__ import annotations

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.amount import span, two_amounts
from opsloop.dashboard.measure import Measure, Measured, measure
from opsloop.settings import ObjectiveSettings
from opsloop.verdict import Reading, Verdict

__all__ = ["judge"]


def judge(measured: Measured, objective: ObjectiveSettings, *, start_ns: int, end_ns: int) -> Reading:
    """Return the reading of one measured value in the window ``(start_ns, end_ns]``.

    Raises :class:`opsloop.errors.ConfigError` when the objective names no measure.

    >>> slow = ObjectiveSettings(id="slow", group="latency", measure="latency_us_p95", threshold=1_500_000)
    >>> judge(Measured(2_000_000.0, 400), slow, start_ns=0, end_ns=300_000_000_000).reason
    'p95 latency of 2.00 s over 400 requests in 5 m is above 1.50 s'
    """
    what = measure(objective.measure)
    verdict = _verdict(measured, objective)
    return Reading(
        id=objective.id,
        group=objective.group,
        verdict=verdict,
        value=measured.value,
        threshold=objective.threshold,
        unit=what.unit,
        n=measured.n,
        window_start_ns=start_ns,
        window_end_ns=end_ns,
        reason=_reason(measured, objective, what, verdict, seconds=(end_ns - start_ns) / NANOSECONDS),
        severe=verdict is Verdict.BREACH and _severe(measured, objective),
        labels=objective.labels,
    )


def _verdict(measured: Measured, objective: ObjectiveSettings) -> Verdict:
    if measured.value is None or measured.n == 0:
        return Verdict.NO_DATA
    if measured.n < objective.min_samples:
        return Verdict.INSUFFICIENT
    return Verdict.BREACH if _beyond(measured.value, objective, objective.threshold) else Verdict.OK


def _beyond(value: float, objective: ObjectiveSettings, threshold: float) -> bool:
    return value > threshold if objective.direction == "above" else value < threshold


def _severe(measured: Measured, objective: ObjectiveSettings) -> bool:
    factor = objective.severe_factor
    if factor is None or measured.value is None:
        return False
    if objective.direction == "above":
        return measured.value > objective.threshold * factor
    return measured.value < objective.threshold / factor


def _reason(
    measured: Measured, objective: ObjectiveSettings, what: Measure, verdict: Verdict, *, seconds: float
) -> str:
    if measured.value is None or verdict is Verdict.NO_DATA:
        return f"{what.title}: nothing was measured in {span(seconds)}"
    value, threshold = two_amounts(measured.value, objective.threshold, what.unit)
    text = f"{what.title} of {value} over {measured.n} {what.counted} in {span(seconds)}"
    if verdict is Verdict.INSUFFICIENT:
        text += f": too few to judge, {objective.min_samples} are needed"
    else:
        text += f" is {'' if verdict is Verdict.BREACH else 'not '}{objective.direction} {threshold}"
    return f"{text} ({measured.remark})" if measured.remark else text
