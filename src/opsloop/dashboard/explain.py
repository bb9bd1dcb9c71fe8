"""Explanations: every input of a verdict, in the order in which a person would work it out by hand."""

from __future__ import annotations

from collections.abc import Mapping

from opsloop.clock import NANOSECONDS, utc
from opsloop.dashboard.amount import amount, share, span
from opsloop.dashboard.burn import ALPHA, DAY_SECONDS, Count, Tier, TierReading, budget, tail
from opsloop.dashboard.hysteresis import clear_at, holds
from opsloop.dashboard.measure import measure
from opsloop.dashboard.period import period_of
from opsloop.dashboard.rollup import why_rows
from opsloop.dashboard.slo import SloReading, period_seconds, slo_tiers
from opsloop.settings import ObjectiveSettings, SloSettings
from opsloop.verdict import Reading

__all__ = ["explain_objective", "explain_slo"]


def explain_objective(objective: ObjectiveSettings, reading: Reading) -> str:
    """Return what was measured, how, in which window, and what it was compared with.

    >>> from opsloop.dashboard.measure import Measured
    >>> from opsloop.dashboard.objective import judge
    >>> errors = ObjectiveSettings(id="errors", group="errors", measure="error_ratio", threshold=0.02)
    >>> reading = judge(Measured(0.05, 100, "5 of 100"), errors, start_ns=0, end_ns=300 * 10**9)
    >>> print(explain_objective(errors, reading))
    errors: failed requests, objective at most 2.00%
    window: 1970-01-01T00:00:00.000Z (outside) to 1970-01-01T00:05:00.000Z (inside), 5 m
    formula: failed / requests that were let in
    value: 0.05, n = 100 requests, at least 20 needed
    compared: 0.05 > 0.02
    BREACH: failed requests of 5.00% over 100 requests in 5 m is above 2.00% (5 of 100)
    """
    what = measure(objective.measure)
    above = objective.direction == "above"
    seconds = (reading.window_end_ns - reading.window_start_ns) / NANOSECONDS
    labels = "".join(f", {name}={value}" for name, value in sorted(objective.labels.items()))
    most = f"objective at {'most' if above else 'least'} {amount(objective.threshold, what.unit)}"
    lines = [
        f"{objective.id}: {what.title}{labels}, {most}",
        f"window: {utc(reading.window_start_ns)} (outside) to {utc(reading.window_end_ns)} (inside), {span(seconds)}",
        f"formula: {what.formula}",
        f"value: {_plain(reading.value)}, n = {reading.n} {what.counted}, at least {objective.min_samples} needed",
        f"compared: {_plain(reading.value)} {'>' if above else '<'} {objective.threshold!r}",
    ]
    if objective.severe_factor is not None:
        edge = objective.threshold * objective.severe_factor if above else objective.threshold / objective.severe_factor
        lines.append(f"severe: {'above' if above else 'below'} {edge!r}")
    if holds(objective):
        lasting = f" for {span(objective.clear_for_seconds)}" if objective.clear_for_seconds else ""
        lines.append(f"clears: {clear_at(objective)}{lasting}, once in breach{_clearing(reading)}")
    if objective.absent_seconds is not None:
        lines.append(f"absent-{objective.id}: in breach when nothing was measured for {span(objective.absent_seconds)}")
    return "\n".join([*lines, f"{reading.verdict}: {reading.reason}"])


def _clearing(reading: Reading) -> str:
    if not reading.held:
        return ""
    return "; not clear yet" if reading.clear_since_ns is None else f"; clear since {utc(reading.clear_since_ns)}"


def explain_slo(slo: SloSettings, reading: SloReading, counts: Mapping[float, Count], *, end_ns: int) -> str:
    """Return the budget, what was spent of it, and each tier's windows, edge and evidence."""
    left = float(budget(slo.target))
    period = period_of(slo, now_ns=end_ns)
    length = slo.period_days * DAY_SECONDS
    what = f"{slo.sli}{_quality(slo)}"
    whole = _count(counts[period_seconds(period, end_ns=end_ns)])
    lines = [
        f"{slo.id}: {share(slo.target)} good by {what} over {_over(slo)}",
        f"budget: E = 1 - {slo.target!r} = {left:.6g}",
    ]
    if slo.calendar is None:
        lines.append(f"period: {whole}; left = 1 - (bad / total) / E = {_plain(reading.remaining_ratio)}")
    else:
        first, following = utc(period.start_ns + 1), utc(period.end_ns + 1)
        passed = period.passed(end_ns)
        lines += [
            f"period: {first} (inside) to {following} (outside), T = {span(period.seconds)}, of which p = {passed:.6g}",
            f"so far: {whole}; left = 1 - (bad / total) / E * p = {_plain(reading.remaining_ratio)}",
        ]
    why = why_rows(slo)
    lines.append(
        f"counted: {f'every event, for {why}' if why else 'roll-ups of quarter-hours, events where a window cuts one'}"
    )
    for tier, judged in zip(slo_tiers(slo), reading.tiers, strict=True):
        lines += _tier_lines(tier, judged, counts, left=left, period_seconds=length)
    return "\n".join([*lines, reading.sentence])


def _over(slo: SloSettings) -> str:
    return span(slo.period_days * DAY_SECONDS) if slo.calendar is None else f"a {slo.calendar} in {slo.time_zone}"


def _quality(slo: SloSettings) -> str:
    if slo.sli not in {"quality", "goodput"}:
        return ""
    return f" (a score{f' of {slo.scorer}' if slo.scorer else ''} of at least {slo.threshold:g})"


def _tier_lines(
    tier: Tier, judged: TierReading, counts: Mapping[float, Count], *, left: float, period_seconds: float
) -> list[str]:
    long, short = counts[tier.long_seconds], counts[tier.short_seconds]
    chance = tail(long.total, long.bad, left)
    spent = tier.factor * tier.long_seconds / period_seconds
    outage = span(tier.factor * left * tier.long_seconds)
    return [
        f"{tier.severity} {tier.name}: both windows above {tier.factor:g} x {left:.6g} = {tier.factor * left:.6g}",
        f"  {span(tier.long_seconds)}: {_count(long)}, burn {_plain(judged.burn_long)}",
        f"  {span(tier.short_seconds)}: {_count(short)}, burn {_plain(judged.burn_short)}",
        f"  evidence: P(X >= {long.bad} | n = {long.total}, p = {left:.6g}) = {chance:.3g}, below {ALPHA:g} counts",
        f"  a full outage fires it after {outage}; {amount(spent, 'ratio')} of the budget is spent at its pace",
        f"  {judged.verdict}: {judged.reason}",
    ]


def _count(count: Count) -> str:
    return f"{count.bad} / {count.total} = {count.bad / count.total:.6g}" if count.total else "no events"


def _plain(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
