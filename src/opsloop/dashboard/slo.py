"""Service level objectives: which events are good, how much of the budget is left, and when it will be gone.

SLI: events, and which of them are bad
    ======================  ==================================================================================
    ``availability``        served requests; bad when they failed
    ``latency``             served requests with a duration; bad above ``threshold_us``
    ``time_to_first_token`` served requests with that time; bad above ``threshold_us``
    ``quality``             scored rows, of ``scorer`` where it is set; bad with a score under ``threshold``
    ``goodput``             served requests; bad when they failed, had an answer that was scored under ``threshold`` (by
                            ``scorer``) in the period, or took more than ``threshold_us``
    ======================  ==================================================================================

    Requests that our own limiter rejected are in no total: turning them away is a promise kept to the others.
Rule
    The budget is *event-weighted*: ``spent = (bad / total) / E`` over all events of the period, never a mean of the
    ratios of slices. Of a calendar period that is still running the share p has passed, and the events so far stand
    for those to come: ``spent = (bad / total) / E * p``, which is exact at its end; a rolling period is always whole,
    p = 1. ``remaining = 1 - spent`` may be negative, and is shown so. At burn b it lasts ``T * remaining / b`` longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.amount import amount, share, span
from opsloop.dashboard.burn import DAY_SECONDS, Count, Tier, TierReading, budget, burn, judge_tiers, tiers
from opsloop.dashboard.period import Period, period_of
from opsloop.dashboard.quality import score_of
from opsloop.dashboard.window import rejected
from opsloop.event import Event, flatten
from opsloop.filter import equals, matches
from opsloop.settings import SloSettings
from opsloop.verdict import Reading, Verdict

__all__ = [
    "SloReading",
    "burn_readings",
    "count_slo",
    "is_good",
    "judge_slo",
    "period_seconds",
    "slo_tiers",
    "slo_windows",
]

GROUP_OF: Final[Mapping[str, str]] = {
    "availability": "errors",
    "latency": "latency",
    "time_to_first_token": "latency",
    "quality": "quality",
    "goodput": "errors",
}
"""The signal that each SLI belongs to: its burn is no second vote beside that signal."""

HOUR_SECONDS: Final = 3600.0
RECENT: Final = (HOUR_SECONDS, 6 * HOUR_SECONDS, 24 * HOUR_SECONDS)


class SloReading(msgspec.Struct, frozen=True, kw_only=True):
    """One objective at one moment."""

    id: str
    sli: str
    target: float
    period_days: float
    bad: int
    total: int
    remaining_ratio: float | None
    """The share of the budget that is left; below 0 when overspent, ``None`` without events."""
    period_start_ns: int
    """Its period so far is ``(period_start_ns, now]``."""
    period_end_ns: int
    """When the period ends and a new budget begins; now for a rolling period, which never does."""
    calendar: str | None
    """``week``, ``month`` or ``quarter``; ``None`` for a rolling period."""
    burn_1h: float | None
    burn_6h: float | None
    burn_1d: float | None
    exhausts_in_seconds: float | None
    """How long the budget lasts at the burn of the last hour; ``None`` when it does not end, 0 when it is gone."""
    sentence: str
    tiers: tuple[TierReading, ...]


def slo_tiers(slo: SloSettings) -> tuple[Tier, ...]:
    """Return the burn tiers of an objective, fastest first."""
    return tiers(target=slo.target, period_days=slo.period_days)


def slo_windows(slo: SloSettings, *, end_ns: int) -> dict[float, int]:
    """Return every window ``(start, end_ns]`` that :func:`judge_slo` needs: its start in ns by its length in seconds.

    >>> list(slo_windows(SloSettings(id="up"), end_ns=0).items())[:2]
    [(300.0, -300000000000), (1800.0, -1800000000000)]
    """
    pairs = {seconds for tier in slo_tiers(slo) for seconds in (tier.long_seconds, tier.short_seconds)}
    starts = {seconds: end_ns - round(seconds * NANOSECONDS) for seconds in pairs | set(RECENT)}
    period = period_of(slo, now_ns=end_ns)
    return dict(sorted((starts | {period_seconds(period, end_ns=end_ns): period.start_ns}).items()))


def period_seconds(period: Period, *, end_ns: int) -> float:
    """Return the length in seconds of the window that counts the period so far."""
    return (end_ns - period.start_ns) / NANOSECONDS


def count_slo(
    slo: SloSettings, events: Iterable[Event], *, end_ns: int, windows: Sequence[float] | None = None
) -> dict[float, Count]:
    """Count bad and all events in each window that ends at ``end_ns``, by its length in seconds.

    >>> failed = Event(ts_ns=9, event="request", error=True)
    >>> count_slo(SloSettings(id="up"), [failed], end_ns=10)[300.0]
    Count(bad=1, total=1)
    """
    starts = slo_windows(slo, end_ns=end_ns)
    if windows is not None:
        starts = {seconds: end_ns - round(seconds * NANOSECONDS) for seconds in windows}
    period = [event for event in events if min(starts.values()) < event.ts_ns <= end_ns]
    poor = _poorly_answered(slo, period) if slo.sli == "goodput" else frozenset[str]()
    where = equals(**slo.labels)
    seen = [
        (event.ts_ns, good)
        for event in period
        if matches(where, event) and (good := is_good(slo, event, poorly_answered=poor)) is not None
    ]
    return {
        seconds: Count(
            bad=sum(not good for ts_ns, good in seen if ts_ns > start),
            total=sum(ts_ns > start for ts_ns, _ in seen),
        )
        for seconds, start in starts.items()
    }


def judge_slo(slo: SloSettings, counts: Mapping[float, Count], *, end_ns: int) -> SloReading:
    """Return the reading of an objective at ``end_ns`` from the counts of :func:`slo_windows`.

    >>> counts = dict.fromkeys(slo_windows(SloSettings(id="up", target=0.99), end_ns=0), Count(1, 200))
    >>> judge_slo(SloSettings(id="up", target=0.99), counts, end_ns=0).sentence
    '50.0% of the budget is left: 1 of 200 bad in 30 d, 1% allowed. At burn 0.50x it lasts 30 d more.'
    """
    period = period_of(slo, now_ns=end_ns)
    whole = counts[period_seconds(period, end_ns=end_ns)]
    spent = burn(whole, slo.target)
    remaining = None if spent is None else 1 - spent * period.passed(end_ns)
    hour, six, day = (burn(counts[seconds], slo.target) for seconds in RECENT)
    exhausts = None
    if remaining is not None and remaining <= 0:
        exhausts = 0.0
    elif remaining is not None and hour:
        exhausts = period.seconds * remaining / hour
    found = slo_tiers(slo)
    pairs = [(counts[tier.long_seconds], counts[tier.short_seconds]) for tier in found]
    resets_seconds = (period.end_ns - end_ns) / NANOSECONDS
    return SloReading(
        id=slo.id,
        sli=slo.sli,
        target=slo.target,
        period_days=slo.period_days,
        bad=whole.bad,
        total=whole.total,
        remaining_ratio=remaining,
        period_start_ns=period.start_ns,
        period_end_ns=period.end_ns,
        calendar=slo.calendar,
        burn_1h=hour,
        burn_6h=six,
        burn_1d=day,
        exhausts_in_seconds=exhausts,
        sentence=_sentence(slo, whole, remaining, hour, exhausts, resets_seconds=resets_seconds),
        tiers=judge_tiers(found, pairs, target=slo.target),
    )


def burn_readings(slo: SloSettings, found: SloReading, *, end_ns: int) -> tuple[Reading, Reading]:
    """Return two readings for alerts to vote over: ``burn-ID`` of the page tiers, ``slow-burn-ID`` of the ticket tiers.

    Either tier of a pair is enough. A burn of the fastest tier is severe: by the SRE workbook it pages alone.

    >>> up = SloSettings(id="up", target=0.99)
    >>> counts = dict.fromkeys(slo_windows(up, end_ns=0), Count(50, 200))
    >>> [reading.id for reading in burn_readings(up, judge_slo(up, counts, end_ns=0), end_ns=0)]
    ['burn-up', 'slow-burn-up']
    """
    pages, tickets = found.tiers[:2], found.tiers[2:]
    return (
        _pair_reading(f"burn-{slo.id}", slo, pages, end_ns=end_ns, severe=pages[0].verdict is Verdict.BREACH),
        _pair_reading(f"slow-burn-{slo.id}", slo, tickets, end_ns=end_ns, severe=False),
    )


_URGENCY: Final = (Verdict.BREACH, Verdict.INSUFFICIENT, Verdict.OK, Verdict.NO_DATA)


def _pair_reading(name: str, slo: SloSettings, pair: Sequence[TierReading], *, end_ns: int, severe: bool) -> Reading:
    """Return the reading of the pair's most urgent tier: of equals, the faster."""
    tier = min(pair, key=lambda each: _URGENCY.index(each.verdict))
    return Reading(
        id=name,
        group=GROUP_OF[slo.sli],
        verdict=tier.verdict,
        value=tier.burn_long,
        threshold=tier.factor,
        unit="burn",
        n=tier.n,
        window_start_ns=end_ns - round(tier.long_seconds * NANOSECONDS),
        window_end_ns=end_ns,
        reason=tier.reason,
        severe=severe,
        labels=slo.labels,
    )


def is_good(slo: SloSettings, event: Event, *, poorly_answered: frozenset[str] = frozenset()) -> bool | None:
    """Tell whether an event is good, or ``None`` when it is no part of the objective's total.

    Labels are not looked at. Goodput needs the ids of the requests whose answers had a poor score.

    >>> is_good(SloSettings(id="up"), Event(ts_ns=0, event="request", error=True))
    False
    """
    if slo.sli == "quality":
        score = _score(slo, event)
        return None if score is None else score >= slo.threshold
    if event.event != "request" or rejected(event):
        return None
    if slo.sli == "availability":
        return not event.error
    limit = slo.threshold_us
    if slo.sli == "goodput":
        if event.error or event.request_id in poorly_answered:
            return False
        return True if limit is None else None if event.duration_us is None else event.duration_us <= limit
    took = event.duration_us if slo.sli == "latency" else event.time_to_first_token_us
    return None if took is None or limit is None else took <= limit


def _score(slo: SloSettings, event: Event) -> float | None:
    """Return the score of a row that the objective looks at; what could not be scored has none."""
    pair = score_of(event)
    if pair is None or (slo.scorer and flatten(event.attributes).get("scorer") != slo.scorer):
        return None
    return pair[0]


def _poorly_answered(slo: SloSettings, events: Iterable[Event]) -> frozenset[str]:
    """Return the ids of the requests with a score under the objective's threshold."""
    scores = ((event.request_id, _score(slo, event)) for event in events if event.request_id)
    return frozenset(name for name, score in scores if score is not None and score < slo.threshold)


def _sentence(
    slo: SloSettings,
    whole: Count,
    remaining: float | None,
    hour: float | None,
    exhausts: float | None,
    *,
    resets_seconds: float,
) -> str:
    period = f"this {slo.calendar}" if slo.calendar else span(slo.period_days * DAY_SECONDS)
    if remaining is None:
        return f"No events in {period}: nothing is known of the budget."
    allowed = share(float(budget(slo.target)))
    facts = f"{whole.bad} of {whole.total} bad in {period}, {allowed} allowed"
    resets = f" A new one begins in {span(resets_seconds)}." if slo.calendar else ""
    if exhausts == 0.0:
        return f"The budget is spent {1 - remaining:.1f} times: {facts}.{resets}"
    text = f"{amount(remaining, 'ratio')} of the budget is left: {facts}."
    if exhausts is None:
        last = "Nothing was lost in the last hour." if hour is not None else "No events in the last hour."
        return f"{text} {last}{resets}"
    return f"{text} At burn {amount(hour, 'burn')} it lasts {span(exhausts)} more.{resets}"
