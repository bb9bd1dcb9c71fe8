"""Estimates from sampled scores: what the mean over *all* answers is, and how sure that is.

A score that was taken with probability p stands for 1/p answers. All sums needed are additive, so SQL, Python and
several replicas make the same :class:`Sums` and merge them. The judge's corrections need labels from people.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean
from typing import Final

import msgspec

from opsloop.errors import InputError

__all__ = [
    "Agreement",
    "Estimate",
    "Sums",
    "agreement",
    "estimate",
    "horvitz_thompson",
    "lower_bound",
    "ppi_mean",
    "rogan_gladen",
    "sums",
]

CONFIDENCE: Final = 0.95


class Sums(msgspec.Struct, frozen=True):
    """Additive sums over scored answers; x a score, p its inclusion probability."""

    n: int = 0
    w: float = 0.0
    """Sum of 1/p: how many answers the scored ones stand for."""
    wx: float = 0.0
    """Sum of x/p."""
    ww: float = 0.0
    """Sum of 1/p²."""
    wwx: float = 0.0
    """Sum of x/p²."""
    wwxx: float = 0.0
    """Sum of x²/p²."""

    def __add__(self, other: Sums) -> Sums:
        """Merge the sums of two disjoint sets of answers."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Sums(*(a + b for a, b in pairs))


class Estimate(msgspec.Struct, frozen=True):
    """A mean with its confidence interval and what it rests on; all ``None`` without a score."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Scored answers."""
    n_eff: float
    """How many equally weighted answers they are worth."""


class Agreement(msgspec.Struct, frozen=True):
    """A judge beside people's labels, both pass/fail."""

    n: int
    base_rate: float
    """Share of good answers among the labels."""
    kappa: float | None
    sensitivity: float | None
    """Share of good answers that the judge passes; ``None`` without a good answer."""
    specificity: float | None


def sums(scores: Iterable[tuple[float, float]]) -> Sums:
    """Add up (score, probability) pairs.

    >>> sums([(1.0, 0.5), (0.0, 1.0)])
    Sums(n=2, w=3.0, wx=2.0, ww=5.0, wwx=4.0, wwxx=4.0)
    """
    n, w, wx, ww, wwx, wwxx = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for x, probability in scores:
        if not 0 < probability <= 1:
            raise InputError(f"an inclusion probability of {probability}", fix="store the probability of each score")
        weight = 1 / probability
        n, w, wx = n + 1, w + weight, wx + weight * x
        ww, wwx, wwxx = ww + weight**2, wwx + weight**2 * x, wwxx + weight**2 * x * x
    return Sums(n, w, wx, ww, wwx, wwxx)


def estimate(of: Sums, *, confidence: float = CONFIDENCE) -> Estimate:
    """Return the Hajek mean, its normal interval and Kish's effective sample size.

    mean = Σ(x/p) / Σ(1/p); variance = Σ((x - mean)²/p²) / (Σ1/p)²; n_eff = (Σ1/p)² / Σ(1/p²). A single score has
    no spread, so its interval is the whole range (L. Kish, Survey Sampling, 1965; J. Hájek 1971).

    >>> estimate(sums([(1.0, 0.5), (0.0, 1.0)])).mean
    0.6666666666666666
    """
    if not of.n:
        return Estimate(None, None, None, 0, 0.0)
    mean = of.wx / of.w
    n_eff = of.w**2 / of.ww
    if of.n == 1:
        return Estimate(mean, 0.0, 1.0, 1, n_eff)
    variance = max(0.0, of.wwxx - 2 * mean * of.wwx + mean**2 * of.ww) / of.w**2
    half = _z(confidence) * math.sqrt(variance)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), of.n, n_eff)


def horvitz_thompson(of: Sums, population: int) -> float | None:
    """Return Σ(x/p) / N for a known number of answers; unbiased, but noisier than the Hajek mean.

    >>> horvitz_thompson(sums([(1.0, 0.5), (0.0, 1.0)]), 4)
    0.5
    """
    return of.wx / population if of.n and population > 0 else None


def lower_bound(scores: Sequence[float], *, error: float = 0.05) -> float:
    """Return the largest mean that the scores, in order, do not yet support betting against: a floor to declare.

    The betting bound of I. Waudby-Smith and A. Ramdas (JRSS B 86(1), 2024), predictable plug-in bets, 40 bisections.
    With ``error`` chance at most the true mean is below it. Without a score it is 0.

    >>> round(lower_bound([1.0] * 50), 5)
    0.92373
    """
    if not scores:
        return 0.0
    goal = math.log(1 / error)
    spread, centre, total, squares = [], 0.5, 0.5, 0.25
    for t, x in enumerate(scores, 1):
        spread.append(math.sqrt(2 * goal / (len(scores) * squares / t)))
        total += x
        centre = total / (t + 1)
        squares += (x - centre) ** 2

    def refuted(m: float) -> bool:
        capital = 0.0
        for x, size in zip(scores, spread, strict=True):
            capital += math.log1p(min(size, 0.75 / m) * (x - m))
            if capital >= goal:
                return True
        return False

    low, high = 0.0, fmean(scores)
    for _ in range(40):
        middle = (low + high) / 2
        if middle > 0 and refuted(middle):
            low = middle
        else:
            high = middle
    return low


def agreement(labels: Sequence[bool], verdicts: Sequence[bool]) -> Agreement:
    """Compare a judge's verdicts with people's labels of the same answers.

    kappa = (po - pe) / (1 - pe), and is undefined when chance alone agrees always (J. Cohen, 1960).

    >>> agreement([True, True, False, False], [True, True, False, True]).kappa
    0.5
    """
    pairs = list(zip(labels, verdicts, strict=True))
    if not pairs:
        raise InputError("no label to compare the judge with", fix="label some answers first")
    n = len(pairs)
    good, passed = sum(labels), sum(verdicts)
    observed = sum(a == b for a, b in pairs) / n
    chance = (good * passed + (n - good) * (n - passed)) / n**2
    return Agreement(
        n=n,
        base_rate=good / n,
        kappa=(observed - chance) / (1 - chance) if chance < 1 else None,
        sensitivity=sum(a and b for a, b in pairs) / good if good else None,
        specificity=sum(not a and not b for a, b in pairs) / (n - good) if n > good else None,
    )


def rogan_gladen(passed: int, judged: int, labels: Sequence[bool], verdicts: Sequence[bool]) -> Estimate:
    """Correct a judge's pass rate for its measured sensitivity and specificity; no number at J <= 0.

    theta = (p + sp - 1)/J, J = se + sp - 1; variance = [p(1-p)/N + theta² se(1-se)/n1 + (1-theta)² sp(1-sp)/n0]/J²
    (W. J. Rogan, B. Gladen, Am. J. Epidemiology 107(1), 1978). A judge no better than chance gives no number.

    >>> round(rogan_gladen(60, 100, [True] * 10 + [False] * 10, [True] * 9 + [False] * 9 + [True] * 2).mean, 3)
    0.571
    """
    found = agreement(labels, verdicts)
    se, sp = found.sensitivity, found.specificity
    if judged < 1 or se is None or sp is None or se + sp - 1 <= 0:
        return Estimate(None, None, None, judged, 0.0)
    p, gain = passed / judged, se + sp - 1
    mean = min(1.0, max(0.0, (p + sp - 1) / gain))
    good = sum(labels)
    spread = p * (1 - p) / judged + mean**2 * se * (1 - se) / good + (1 - mean) ** 2 * sp * (1 - sp) / (found.n - good)
    half = _z(CONFIDENCE) * math.sqrt(spread) / gain
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), judged, float(judged))


def ppi_mean(labels: Sequence[float], verdicts: Sequence[float], unlabelled: Sequence[float]) -> Estimate:
    """Combine few labels with many verdicts of a judge: never worse than the labels alone, however bad the judge.

    PPI++ (A. N. Angelopoulos, J. C. Duchi, T. Zrnic, 2023): mean = λ·mean(f_U) + mean(y - λ·f_L) with
    λ = cov(y, f_L) / ((1 + n/N) var f), variance = λ² var(f)/N + var(y - λ f)/n.

    >>> round(ppi_mean([1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 1, 0, 1, 1, 1]).mean, 3)
    0.5
    """
    n, many = len(labels), len(unlabelled)
    if n < 2 or many < 1 or len(verdicts) != n:
        message = f"{n} labels, {len(verdicts)} verdicts on them and {many} others"
        raise InputError(message, fix="give two labels or more with one verdict each, and one other verdict or more")
    judge = [*verdicts, *unlabelled]
    spread = _variance(judge)
    mean_y, mean_f = fmean(labels), fmean(verdicts)
    covariance = sum((y - mean_y) * (f - mean_f) for y, f in zip(labels, verdicts, strict=True)) / (n - 1)
    tuned = covariance / ((1 + n / many) * spread) if spread > 0 else 0.0
    rest = [y - tuned * f for y, f in zip(labels, verdicts, strict=True)]
    mean = tuned * fmean(unlabelled) + fmean(rest)
    half = _z(CONFIDENCE) * math.sqrt(tuned**2 * spread / many + _variance(rest) / n)
    return Estimate(mean, mean - half, mean + half, n, float(n))


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
