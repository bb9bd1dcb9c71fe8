"""Drift: an e-detector on bounded scores, with one knob and a promise.

Objects
    A *stratum* is a stream of scores in [0, 1], 1 being good, with a floor m0: its mean is promised to be at least m0.
    A *bet* of size lambda multiplies its capital by f = 1 + lambda (m0 - x). While the conditional mean is at least
    m0, E[f | past] <= 1: nobody can win against a healthy service.
Rule
    Shiryaev-Roberts sums of eight bets, R = (1 + R) f, grow by at most 1 a score while healthy. So the alarm
    "mean R, summed over the strata, reaches A" comes falsely at most once per A scored answers, whatever the scores'
    distribution or dependence (J. Shin, A. Ramdas, A. Rinaldo: E-detectors, NEJSDS 2(2), 2023). No correction for
    the number of strata is needed: an event raises only its own stratum.
Since when
    Each bet remembers where its capital M was last worth no more than 1. The best bet's memory at the alarm is the
    onset: the alarm comes later by as much as the evidence needed.
Recovery
    From the alarm on the same sum runs reflected, f = 1 + lambda' (x - m0): a false all-clear at most once per C
    scores while the mean is still at or below m0.
Limits
    A floor at the very mean makes daily waves look like drift: leave 2 to 4 points. With m0 = .9 and A = 1000 five
    answers of score .2 suffice; a fall from .9 to .8 in pass/fail scores takes about a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from opsloop.errors import ConfigError, InputError

__all__ = ["BETS", "Decision", "Detector", "Stratum", "bets", "clearing_bets", "declare", "update"]

BETS: Final = 8
"""Bets of halved sizes cover large and small drops within a factor of two."""
SCORES_PER_FALSE_CLEAR: Final = 1000.0
"""C. At 20 a service that is still at .5 would clear within 40 scores."""
_ZEROS: Final = (0.0,) * BETS
_ONES: Final = (1.0,) * BETS


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of scores and what was gathered about it. Healthy: ``sums`` bet on bad; drifted: on good."""

    floor: float
    """m0, at most .99."""
    weight: float = 1.0
    """Its share of the evidence; the weights of scores that one answer raises together sum to at most 1."""
    sums: tuple[float, ...] = _ZEROS
    """R, one per bet."""
    capital: tuple[float, ...] = _ONES
    """M, one per bet; only to localise the onset."""
    starts: tuple[int, ...] = (0,) * BETS
    """Where each bet's capital was last worth no more than 1."""
    n: int = 0
    """Scores seen."""
    onset: int | None = None
    """The sequence at which its drift began; ``None`` while healthy."""
    evidence: float = 0.0
    """The mean of ``sums``: against health while healthy, for recovery while drifted."""


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state: pure data, so it can be stored, compared and replayed."""

    floor: float
    """m0 of strata that were not declared with their own."""
    scores_per_false_page: float = 10_000.0
    """A."""
    scores_per_false_clear: float = SCORES_PER_FALSE_CLEAR
    """C."""
    strata: dict[str, Stratum] = {}

    @property
    def evidence(self) -> float:
        """E: the weighted sum over the healthy strata; an alarm comes when it reaches A."""
        total = 0.0
        for stratum in self.strata.values():
            if stratum.onset is None:
                total += stratum.weight * stratum.evidence
        return total

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of the strata that are in drift."""
        return tuple(name for name, stratum in self.strata.items() if stratum.onset is not None)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What one score led to."""

    evidence: float
    """E as it stood with this score, before an alarm resets it."""
    alarm: bool = False
    cleared: bool = False
    stratum: str = ""
    """Which stratum alarmed or cleared."""
    onset: int | None = None
    """For an alarm: the sequence of the score with which the drift most likely began."""
    reason: str


@lru_cache(maxsize=256)
def bets(floor: float) -> tuple[float, ...]:
    """Return the sizes lambda_k = 0.9 / (1 - m0) / 2^(k-1), k = 1..8; every factor stays at least 0.1.

    >>> bets(0.5)[:3]
    (1.8, 0.9, 0.45)
    """
    if not 0 <= floor <= 0.99:
        raise ConfigError(f"a drift floor of {floor} is not in [0, 0.99]", fix="set floor to the lowest healthy mean")
    return tuple(0.9 / (1 - floor) * 2.0**-k for k in range(BETS))


@lru_cache(maxsize=256)
def clearing_bets(floor: float) -> tuple[float, ...]:
    """Return the reflected sizes 0.9 / m0 / 2^(k-1); a floor below .01 counts as .01."""
    return tuple(0.9 / max(floor, 0.01) * 2.0**-k for k in range(BETS))


def declare(detector: Detector, name: str, *, floor: float | None = None, weight: float = 1.0) -> Detector:
    """Return the detector with a new, empty stratum of its own floor and weight."""
    floor = detector.floor if floor is None else floor
    bets(floor)
    return _with(detector, name, Stratum(floor=floor, weight=weight))


def update(detector: Detector, score: float, sequence: int, *, stratum: str = "") -> tuple[Detector, Decision]:
    """Take one score into account and say what follows; nothing is changed in place.

    ``sequence`` labels the score (a running number or a time): the onset is given as one. A score outside [0, 1] is
    clipped. Raises :class:`InputError` for NaN, :class:`ConfigError` for a floor outside [0, .99].

    >>> state = Detector(floor=0.9, scores_per_false_page=1000)
    >>> for n, score in enumerate([1, 1, 1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.2]):
    ...     state, decision = update(state, score, n)
    >>> decision.alarm, decision.onset, round(decision.evidence)
    (True, 5, 3753)
    """
    if math.isnan(score):
        raise InputError("a score of NaN", fix="leave an answer without a score unscored")
    x = min(1.0, max(0.0, score))
    if stratum not in detector.strata:
        detector = declare(detector, stratum)
    before = detector.strata[stratum]
    if before.onset is not None:
        return _recover(detector, stratum, x)
    detector = _with(detector, stratum, _bet(before, x, sequence))
    evidence = detector.evidence
    limit = detector.scores_per_false_page
    if evidence < limit:
        return detector, Decision(evidence=evidence, reason=f"evidence {evidence:.4g} is below {limit:g}")
    return _alarm(detector, evidence)


def _bet(before: Stratum, x: float, sequence: int) -> Stratum:
    sums, capital, starts = [], [], []
    for size, total, worth, start in zip(bets(before.floor), before.sums, before.capital, before.starts, strict=True):
        factor = 1 + size * (before.floor - x)
        sums.append((1 + total) * factor)
        restart = worth <= 1
        capital.append(factor if restart else worth * factor)
        starts.append(sequence if restart else start)
    return Stratum(
        floor=before.floor,
        weight=before.weight,
        sums=tuple(sums),
        capital=tuple(capital),
        starts=tuple(starts),
        n=before.n + 1,
        evidence=_mean(sums),
    )


def _alarm(detector: Detector, evidence: float) -> tuple[Detector, Decision]:
    """Mark the stratum with most evidence as drifted and start all others anew, so that the full promise holds."""
    healthy = {name: stratum for name, stratum in detector.strata.items() if stratum.onset is None}
    worst = max(healthy, key=lambda name: healthy[name].weight * healthy[name].evidence)
    found = healthy[worst]
    onset = found.starts[max(range(BETS), key=found.capital.__getitem__)]
    fresh = {name: _fresh(stratum) for name, stratum in healthy.items()} | {worst: _fresh(found, onset=onset)}
    reason = f"evidence {evidence:.4g} reached {detector.scores_per_false_page:g}, most of it since {onset}"
    decision = Decision(evidence=evidence, alarm=True, stratum=worst, onset=onset, reason=reason)
    return msgspec.structs.replace(detector, strata={**detector.strata, **fresh}), decision


def _recover(detector: Detector, name: str, x: float) -> tuple[Detector, Decision]:
    before = detector.strata[name]
    sizes = clearing_bets(before.floor)
    sums = tuple((1 + r) * (1 + size * (x - before.floor)) for r, size in zip(before.sums, sizes, strict=True))
    after = msgspec.structs.replace(before, sums=sums, n=before.n + 1, evidence=_mean(sums))
    gathered, limit = after.evidence, detector.scores_per_false_clear
    if gathered < limit:
        detector = _with(detector, name, after)
        reason = f"still in drift: evidence of recovery {gathered:.4g} is below {limit:g}"
        return detector, Decision(evidence=detector.evidence, stratum=name, reason=reason)
    detector = _with(detector, name, _fresh(after))
    reason = f"recovered: evidence {gathered:.4g} reached {limit:g}"
    return detector, Decision(evidence=detector.evidence, cleared=True, stratum=name, reason=reason)


def _fresh(stratum: Stratum, *, onset: int | None = None) -> Stratum:
    return Stratum(floor=stratum.floor, weight=stratum.weight, n=stratum.n, onset=onset)


def _with(detector: Detector, name: str, stratum: Stratum) -> Detector:
    return msgspec.structs.replace(detector, strata={**detector.strata, name: stratum})


def _mean(values: Sequence[float]) -> float:
    """Return the mean by plain left-to-right addition: what ``arrayAvg`` does, on every Python version."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
