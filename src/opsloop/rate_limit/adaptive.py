"""How many requests a model can take at once, found by trying: additive increase, multiplicative decrease (AIMD).

Signal
    Whole response times are useless for language models: they follow the length of the answer. The signal is the time
    **per output token**, ``duration_us / output_tokens``, or a time to first token; and whether the upstream turned
    the request away (429, 503, a timeout), which needs no number.
Rule
    Once per window of ``window`` answers: if any was turned away, or the median time per token exceeds ``tolerance``
    times the baseline, the cap becomes ``floor(cap * backoff)``, at least one less; else it grows by one, but only if
    the slots were in use: a cap that nobody touches says nothing about what is above it. It stays in [least, most].
Baseline
    The smallest median of the last ``memory`` windows, so it follows a model that became slower for good, and no single
    lucky answer sets it. Under steady load all of them would be slow and the baseline would creep up: so when the
    smallest is about to be forgotten, one window runs at half the cap to measure again.

Sources: AIMD, Chiu and Jain (1989); a limit that only grows while in use, Netflix concurrency-limits (AIMDLimit);
measuring again at a lower load, BBR (Cardwell et al., 2016).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from opsloop.errors import InputError
from opsloop.rate_limit.limit import Limit
from opsloop.rate_limit.limiter import Limiter
from opsloop.rate_limit.policy import Policy

__all__ = ["Aimd", "Cap", "Controller", "Sample", "observe"]


class Aimd(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the rule."""

    least: int = 1
    most: int = 1000
    window: int = 20
    """Answers per step."""
    memory: int = 50
    """Windows that the baseline looks back over."""
    tolerance: float = 1.5
    """How many times slower than the baseline is too slow."""
    backoff: float = 0.9

    def __post_init__(self) -> None:
        """Refuse numbers under which the cap could not move as it should."""
        if not 1 <= self.least <= self.most:
            raise InputError("least and most are no range", fix="let 1 <= least <= most")
        if not 0 < self.backoff < 1 or self.tolerance <= 1 or self.window < 1 or self.memory < 1:
            raise InputError(
                "an adaptive cap needs 0 < backoff < 1, tolerance > 1, window >= 1 and memory >= 1",
                fix="leave them at their defaults",
            )


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the upstream."""

    us_per_token: float | None
    """Microseconds per output token; ``None`` when there was no output to measure by."""
    in_flight: int
    """How many requests ran when it began, itself included."""
    turned_away: bool = False
    """Whether the upstream had no room for it."""


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one cap."""

    amount: int
    samples: tuple[Sample, ...] = ()
    medians: tuple[float, ...] = ()
    resume: int | None = None
    """While it measures the unloaded speed: the amount that it goes back to."""
    reason: str = "as it began"


UNKNOWN: Final = "too few answers had output to measure by"
MEASURING: Final = "measuring the unloaded speed again"


def observe(cap: Cap, sample: Sample, rule: Aimd) -> Cap:
    """Return the cap after one more answer.

    >>> rule = Aimd(window=2)
    >>> cap = Cap(amount=4)
    >>> for us in (100, 100, 100, 100, 300, 300):
    ...     cap = observe(cap, Sample(us_per_token=us, in_flight=4), rule)
    >>> cap.amount, cap.reason
    (5, '300 us per token, more than 1.5 times 100')
    """
    samples = (*cap.samples, sample)
    if len(samples) < rule.window:
        return msgspec.structs.replace(cap, samples=samples)
    times = sorted(one.us_per_token for one in samples if one.us_per_token is not None)
    median = times[len(times) // 2] if 2 * len(times) >= rule.window else None
    medians = cap.medians if median is None else (*cap.medians, median)[-rule.memory :]
    amount, reason = _step(cap, samples, median, medians, rule)
    if cap.resume is None and len(medians) == rule.memory > 1 and medians[0] < min(medians[1:]):
        low = max(rule.least, amount // 2)
        return Cap(amount=low, medians=medians, resume=amount, reason=MEASURING)
    return Cap(amount=amount, medians=medians, reason=reason)


def _step(
    cap: Cap, samples: tuple[Sample, ...], median: float | None, medians: tuple[float, ...], rule: Aimd
) -> tuple[int, str]:
    """Return the next amount and why."""
    in_flight, turned_away = max(one.in_flight for one in samples), sum(one.turned_away for one in samples)
    less = max(rule.least, min(cap.amount - 1, int(cap.amount * rule.backoff)))
    if turned_away:
        return less, f"{turned_away} turned away"
    if cap.resume is not None:
        return cap.resume, "measured"
    if median is None:
        return cap.amount, UNKNOWN
    baseline = min(medians)
    if median > rule.tolerance * baseline:
        return less, f"{median:.6g} us per token, more than {rule.tolerance:g} times {baseline:.6g}"
    if 2 * in_flight < cap.amount:
        return cap.amount, f"at most {in_flight} of {cap.amount} in use"
    return min(rule.most, cap.amount + 1), f"{median:.6g} us per token, {in_flight} of {cap.amount} in use"


class Controller:
    """Moves the amount of one concurrency limit of a limiter, by reloading its policy. For one thread.

    It reports nothing by itself: ``cap`` says where it stands and why, for a gauge or a log line of yours.
    """

    def __init__(self, limiter: Limiter, limit: str, *, rule: Aimd | None = None) -> None:
        """Begin at the amount of the limit with that id. Raises :class:`InputError` when it is no concurrency limit."""
        self._limiter = limiter
        self._id = limit
        self._rule = rule or Aimd()
        found = next((one for one in limiter.policy.limits if one.id == limit), None)
        if found is None or found.lever != "concurrency" or found.cases:
            fix = 'name a limit with lever = "concurrency", without overrides and ceilings'
            raise InputError(f"{limit!r} is no concurrency limit whose amount can be moved", fix=fix)
        self.cap = Cap(amount=max(self._rule.least, min(self._rule.most, found.amount)))

    def answered(
        self,
        *,
        duration_us: int,
        output_tokens: int | None,
        in_flight: int,
        outcome: Literal["ok", "turned_away"] = "ok",
    ) -> Cap:
        """Take one answer into account; return the cap as it stands now."""
        measured = duration_us / output_tokens if output_tokens and outcome == "ok" else None
        sample = Sample(us_per_token=measured, in_flight=in_flight, turned_away=outcome == "turned_away")
        before, self.cap = self.cap.amount, observe(self.cap, sample, self._rule)
        if self.cap.amount != before:
            self._limiter.reload(_with_amount(self._limiter.policy, self._id, self.cap.amount))
        return self.cap


def _with_amount(policy: Policy, name: str, amount: int) -> Policy:
    def changed(limit: Limit) -> Limit:
        return msgspec.structs.replace(limit, amount=amount) if limit.id == name else limit

    return msgspec.structs.replace(policy, limits=tuple(changed(limit) for limit in policy.limits))
