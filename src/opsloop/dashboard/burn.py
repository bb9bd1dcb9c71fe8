"""Burn: how fast an error budget is spent, over pairs of windows, with an exact guard against too little evidence.

Objects
    The *budget* is ``E = 1 - target``. The *burn* of a window is ``(bad / total) / E``: at 1 the budget lasts exactly
    the period. A *tier* is a long window, a short one (a twelfth), a factor and a severity.
Rule
    A tier is in breach when the burn of **both** windows is strictly above its factor **and** the long window's
    failures would show by chance, in a service exactly on its objective, with a probability below :data:`ALPHA`.
    Burning without that evidence is ``INSUFFICIENT``. The short window ends the breach soon after the trouble ends.
Tiers
    The table of the SRE workbook (ch. 5, table 5-8 and its rules) at 30 days, scaled with the period T: long = T/720,
    T/120, T/30, T/10 with factors 14.4, 6, 3, 1. A long window is never shorter than an hour.
Limits
    Events are taken as independent: retries of one bad input are not. Below some 6 requests an hour traffic alone
    cannot show an outage of three hours; send probes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Literal

import msgspec

from opsloop.dashboard.amount import amount, share, span
from opsloop.errors import ConfigError
from opsloop.verdict import Verdict

__all__ = [
    "ALPHA",
    "FACTORS",
    "Count",
    "Tier",
    "TierReading",
    "budget",
    "burn",
    "judge_tiers",
    "tail",
    "tiers",
]

ALPHA: Final = 1e-4
"""The chance that a service exactly on its objective shows this much: below it, failures are evidence."""

FACTORS: Final = (14.4, 6.0, 3.0, 1.0)
"""The burn that each tier begins at, fastest first."""

SHARES: Final = (720, 120, 30, 10)
"""A tier's long window is the period divided by this."""

SHORTEST_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 86_400.0


class Count(msgspec.Struct, frozen=True):
    """Bad events and all events of a window."""

    bad: int = 0
    total: int = 0


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of windows."""

    severity: Literal["page", "ticket"]
    long_seconds: float
    short_seconds: float
    factor: float
    note: str = ""
    """Why the factor is not the usual one; empty when it is."""

    @property
    def name(self) -> str:
        """Return the tier's windows, as ``1 h / 5 m``."""
        return f"{span(self.long_seconds)} / {span(self.short_seconds)}"


class TierReading(msgspec.Struct, frozen=True, kw_only=True):
    """A tier, judged."""

    severity: Literal["page", "ticket"]
    long_seconds: float
    short_seconds: float
    factor: float
    burn_long: float | None
    burn_short: float | None
    n: int
    """Events of the long window."""
    verdict: Verdict
    reason: str


def budget(target: float) -> Fraction:
    """Return ``1 - target`` exactly, as the decimal that was written: a binary 0.999 leaves more than a thousandth.

    >>> budget(0.999)
    Fraction(1, 1000)
    """
    return 1 - _exact(target)


def burn(count: Count, target: float) -> float | None:
    """Return the burn of a window, or ``None`` when it holds no events.

    >>> burn(Count(15, 1000), 0.999)
    15.0
    """
    return float(_ratio(count) / budget(target)) if count.total else None


def tiers(*, target: float, period_days: float, factors: Sequence[float] = FACTORS) -> tuple[Tier, ...]:
    """Return the four tiers of an objective, fastest first: two that page and two that open a ticket.

    A tier can fire only while ``factor * E < 1``: above, not even a full outage would. Its factor is then lowered to
    where half of what a window can lose beyond its budget is lost, ``(1 + E) / (2 E)``, and its note says so. Raises
    :class:`ConfigError` for a factor below 1, which would alert on a service that is inside its objective.

    >>> [(tier.name, tier.factor) for tier in tiers(target=0.999, period_days=30)]
    [('1 h / 5 m', 14.4), ('6 h / 30 m', 6.0), ('1 d / 2 h', 3.0), ('3 d / 6 h', 1.0)]
    """
    found = []
    for part, factor, severity in zip(SHARES, factors, _SEVERITIES, strict=True):
        if factor < 1:
            message = f"a burn factor of {factor} alerts on a service that is inside its objective"
            raise ConfigError(message, fix="use a factor of at least 1")
        long_seconds = max(period_days * DAY_SECONDS / part, SHORTEST_SECONDS)
        used, note = _feasible(factor, budget(target))
        found.append(
            Tier(
                severity=severity,
                long_seconds=long_seconds,
                short_seconds=long_seconds / 12,
                factor=used,
                note=note,
            )
        )
    return tuple(found)


def tail(n: int, k: int, p: float) -> float:
    """Return ``P(X >= k)`` for X binomial with n trials of probability p: exact, through log-gamma, the shorter side.

    >>> f"{tail(60, 6, 0.01):.6e}"
    '3.152366e-05'
    """
    if k <= 0:
        return 1.0
    if k > n:
        return 0.0
    if k > n * p:
        return _side(n, k, p, step=1)
    return 1.0 - _side(n, k - 1, p, step=-1)


def judge_tiers(
    found: Sequence[Tier], counts: Sequence[tuple[Count, Count]], *, target: float
) -> tuple[TierReading, ...]:
    """Judge tiers, fastest first, from the (long, short) counts of each.

    When several are in breach the fastest speaks; the others keep their verdict and say that they are suppressed.

    >>> found = tiers(target=0.99, period_days=30)
    >>> read = judge_tiers(found, [(Count(30, 100), Count(5, 8))] * 4, target=0.99)
    >>> read[0].reason
    'burn 30.0x over 1 h and 62.5x over 5 m, both above 14.4x; 30 bad of 100 happen by chance with p = 1.49e-35'
    """
    readings: list[TierReading] = []
    speaking = ""
    for tier, (long, short) in zip(found, counts, strict=True):
        verdict, reason = _judge(tier, long, short, target)
        if verdict is Verdict.BREACH:
            reason += f"; suppressed by the {speaking} tier" if speaking else ""
            speaking = speaking or f"{tier.severity} {tier.name}"
        readings.append(
            TierReading(
                severity=tier.severity,
                long_seconds=tier.long_seconds,
                short_seconds=tier.short_seconds,
                factor=tier.factor,
                burn_long=burn(long, target),
                burn_short=burn(short, target),
                n=long.total,
                verdict=verdict,
                reason=f"{reason} ({tier.note})" if tier.note else reason,
            )
        )
    return tuple(readings)


_SEVERITIES: Final[tuple[Literal["page", "ticket"], ...]] = ("page", "page", "ticket", "ticket")


def _exact(value: float) -> Fraction:
    return Fraction(repr(value))


def _ratio(count: Count) -> Fraction:
    return Fraction(count.bad, count.total)


def _feasible(factor: float, left: Fraction) -> tuple[float, str]:
    """Return the factor to use, and why when it is not the one that was asked for."""
    if _exact(factor) * left < 1:
        return factor, ""
    used = float((1 + left) / (2 * left))
    return used, (f"a factor of {factor:g} with a budget of {share(float(left))} could never fire: lowered to {used:g}")


def _judge(tier: Tier, long: Count, short: Count, target: float) -> tuple[Verdict, str]:
    fast, slow = burn(short, target), burn(long, target)
    edge = _exact(tier.factor) * budget(target)
    factor = amount(tier.factor, "burn")
    if slow is None:
        return Verdict.NO_DATA, f"no events in {span(tier.long_seconds)}"
    text = f"burn {amount(slow, 'burn')} over {span(tier.long_seconds)}"
    if _ratio(long) <= edge:
        return Verdict.OK, f"{text}, not above {factor}"
    if fast is None:
        return Verdict.NO_DATA, f"{text}, above {factor}, but no events in {span(tier.short_seconds)}"
    text += f" and {amount(fast, 'burn')} over {span(tier.short_seconds)}"
    if _ratio(short) <= edge:
        return Verdict.OK, f"{text}, not both above {factor}"
    chance = tail(long.total, long.bad, float(budget(target)))
    evidence = f"{long.bad} bad of {long.total} happen by chance with p = {chance:.3g}"
    if chance < ALPHA:
        return Verdict.BREACH, f"{text}, both above {factor}; {evidence}"
    return Verdict.INSUFFICIENT, f"{text}, both above {factor}, but {evidence}, not under {ALPHA:g}"


def _side(n: int, k: int, p: float, *, step: Literal[1, -1]) -> float:
    """Sum the binomial probabilities from k away from the mean, until a term no longer matters."""
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    term = total = math.exp(log)
    odds = p / (1 - p)
    while 0 <= k + step <= n and term > total * 1e-18:
        term *= (n - k) / (k + 1) * odds if step == 1 else k / (n - k + 1) / odds
        k += step
        total += term
    return min(total, 1.0)
