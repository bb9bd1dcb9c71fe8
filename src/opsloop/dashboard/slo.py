"""Service level objectives: which events are good, how much of the budget is left, and when it will be gone.

SLI: events, and which of them are bad
    ======================  ==================================================================================
    ``availability``        served requests; bad when they failed
    ``latency``             served requests with a duration; bad above ``threshold_us``
    ``time_to_first_token`` served requests with that time; bad above ``threshold_us``
    ``quality``             scored rows; bad with a score under 0.5
    ``goodput``             served requests; bad when they failed, had an answer that was scored under 0.5 in the
                            period, or took more than ``threshold_us``
    ======================  ==================================================================================

    Requests that our own limiter rejected are in no total: turning them away is a promise kept to the others.
Rule
    The budget is *event-weighted*: ``remaining = 1 - (bad / total) / E`` over all events of the period, never a mean of
    the ratios of slices. It may be negative, and is shown so. At burn b it lasts ``T * remaining / b`` longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.amount import amount, share, span
from opsloop.dashboard.burn import DAY_SECONDS, Count, Tier, TierReading, budget, burn, judge_tiers, tiers
from opsloop.dashboard.quality import score_of
from opsloop.dashboard.window import rejected
from opsloop.event import Event
from opsloop.filter import equals, matches
from opsloop.settings import SloSettings
from opsloop.verdict import Reading, Verdict

__all__ = [
    "GOOD_SCORE",
    "SloReading",
    "burn_readings",
    "count_slo",
    "is_good",
    "judge_slo",
    "slo_tiers",
    "slo_windows",
]

GOOD_SCORE: Final = 0.5
"""A score at or above this is a good answer."""

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


def slo_windows(slo: SloSettings) -> tuple[float, ...]:
    """Return the lengths in seconds of every window that :func:`judge_slo` needs, shortest first.

    >>> slo_windows(SloSettings(id="up"))[:3]
    (300.0, 1800.0, 3600.0)
    """
    pairs = {seconds for tier in slo_tiers(slo) for seconds in (tier.long_seconds, tier.short_seconds)}
    return tuple(sorted(pairs | set(RECENT) | {slo.period_days * DAY_SECONDS}))


def count_slo(
    slo: SloSettings, events: Iterable[Event], *, end_ns: int, windows: Sequence[float] | None = None
) -> dict[float, Count]:
    """Count bad and all events in each window that ends at ``end_ns``, by its length in seconds.

    >>> failed = Event(ts_ns=9, event="request", error=True)
    >>> count_slo(SloSettings(id="up"), [failed], end_ns=10)[300.0]
    Count(bad=1, total=1)
    """
    lengths = slo_windows(slo) if windows is None else tuple(windows)
    starts = {seconds: end_ns - round(seconds * NANOSECONDS) for seconds in lengths}
    period = [event for event in events if min(starts.values()) < event.ts_ns <= end_ns]
    poor = _poorly_answered(period) if slo.sli == "goodput" else frozenset[str]()
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


def judge_slo(slo: SloSettings, counts: Mapping[float, Count]) -> SloReading:
    """Return the reading of an objective from the counts of :func:`slo_windows`.

    >>> counts = dict.fromkeys(slo_windows(SloSettings(id="up", target=0.99)), Count(1, 200))
    >>> judge_slo(SloSettings(id="up", target=0.99), counts).sentence
    '50.0% of the budget is left: 1 of 200 bad in 30 d, 1% allowed. At burn 0.50x it lasts 30 d more.'
    """
    period_seconds = slo.period_days * DAY_SECONDS
    whole = counts[period_seconds]
    spent = burn(whole, slo.target)
    remaining = None if spent is None else 1 - spent
    hour, six, day = (burn(counts[seconds], slo.target) for seconds in RECENT)
    exhausts = None
    if remaining is not None and remaining <= 0:
        exhausts = 0.0
    elif remaining is not None and hour:
        exhausts = period_seconds * remaining / hour
    found = slo_tiers(slo)
    pairs = [(counts[tier.long_seconds], counts[tier.short_seconds]) for tier in found]
    return SloReading(
        id=slo.id,
        sli=slo.sli,
        target=slo.target,
        period_days=slo.period_days,
        bad=whole.bad,
        total=whole.total,
        remaining_ratio=remaining,
        burn_1h=hour,
        burn_6h=six,
        burn_1d=day,
        exhausts_in_seconds=exhausts,
        sentence=_sentence(slo, whole, remaining, hour, exhausts),
        tiers=judge_tiers(found, pairs, target=slo.target),
    )


def burn_readings(slo: SloSettings, found: SloReading, *, end_ns: int) -> tuple[Reading, Reading]:
    """Return two readings for alerts to vote over: ``burn-ID`` of the page tiers, ``slow-burn-ID`` of the ticket tiers.

    Either tier of a pair is enough. A burn of the fastest tier is severe: by the SRE workbook it pages alone.

    >>> up = SloSettings(id="up", target=0.99)
    >>> counts = dict.fromkeys(slo_windows(up), Count(50, 200))
    >>> [reading.id for reading in burn_readings(up, judge_slo(up, counts), end_ns=0)]
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
        pair = score_of(event)
        return None if pair is None else pair[0] >= GOOD_SCORE
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


def _poorly_answered(events: Iterable[Event]) -> frozenset[str]:
    """Return the ids of the requests with a score under :data:`GOOD_SCORE`."""
    pairs = ((event.request_id, score_of(event)) for event in events if event.request_id)
    return frozenset(name for name, pair in pairs if pair is not None and pair[0] < GOOD_SCORE)


def _sentence(
    slo: SloSettings, whole: Count, remaining: float | None, hour: float | None, exhausts: float | None
) -> str:
    period = span(slo.period_days * DAY_SECONDS)
    if remaining is None:
        return f"No events in {period}: nothing is known of the budget."
    allowed = share(float(budget(slo.target)))
    facts = f"{whole.bad} of {whole.total} bad in {period}, {allowed} allowed"
    if exhausts == 0.0:
        return f"The budget is spent {1 - remaining:.1f} times: {facts}."
    text = f"{amount(remaining, 'ratio')} of the budget is left: {facts}."
    if exhausts is None:
        return (
            f"{text} Nothing was lost in the last hour." if hour is not None else f"{text} No events in the last hour."
        )
    return f"{text} At burn {amount(hour, 'burn')} it lasts {span(exhausts)} more."
