"""Estimates against two-pass oracles and published check values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import seeded
from opsloop.errors import InputError
from opsloop.online_eval import (
    Agreement,
    Estimate,
    Sums,
    agreement,
    estimate,
    horvitz_thompson,
    lower_bound,
    ppi_mean,
    rogan_gladen,
    sums,
)

pairs = st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=2, max_size=30)


@given(pairs)
def test_sums_agree_with_the_formulas(scores):
    """From the sums come the same mean, interval and n_eff as from two passes over the scores."""
    weights = [1 / p for _, p in scores]
    mean = sum(w * x for w, (x, _) in zip(weights, scores, strict=True)) / sum(weights)
    spread = sum(w * w * (x - mean) ** 2 for w, (x, _) in zip(weights, scores, strict=True)) / sum(weights) ** 2
    found = estimate(sums(scores))
    assert found.mean == pytest.approx(mean)
    assert found.n_eff == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert found.high == pytest.approx(min(1, mean + 1.959963984540054 * math.sqrt(spread)), abs=1e-6)
    assert found.low == pytest.approx(max(0, mean - 1.959963984540054 * math.sqrt(spread)), abs=1e-6)


@given(pairs, pairs)
def test_sums_merge(left, right):
    """The sums of two sets, added, are the sums of both."""
    merged, whole = sums(left) + sums(right), sums(left + right)
    assert [*map(float, (merged.n, merged.w, merged.wx, merged.ww, merged.wwx, merged.wwxx))] == pytest.approx(
        [whole.n, whole.w, whole.wx, whole.ww, whole.wwx, whole.wwxx]
    )


def test_biased_sampling_is_made_good():
    """10 % bad answers taken at .55, the rest at .05: the naive mean is far off, the Hajek mean right."""
    dice = seeded("signal")
    taken = []
    for n in range(20_000):
        bad = n % 10 == 0
        if dice.random() < (0.55 if bad else 0.05):
            taken.append((0.0 if bad else 1.0, 0.55 if bad else 0.05))
    naive = sum(x for x, _ in taken) / len(taken)
    found = estimate(sums(taken))
    assert naive < 0.6
    assert found.low < 0.9 < found.high
    assert found.mean == pytest.approx(0.9, abs=0.02)
    assert horvitz_thompson(sums(taken), 20_000) == pytest.approx(0.9, abs=0.09)


def test_nothing_is_not_zero():
    """Without a score there is no mean; one score has a mean and no certainty."""
    assert estimate(Sums()) == Estimate(None, None, None, 0, 0.0)
    assert estimate(sums([(0.5, 1.0)])) == Estimate(0.5, 0.0, 1.0, 1, 1.0)
    assert horvitz_thompson(Sums(), 5) is None
    with pytest.raises(InputError, match=r"an inclusion probability of 0"):
        sums([(1.0, 0)])


@pytest.mark.parametrize(("n", "wanted"), [(50, 0.78063), (200, 0.83140), (1000, 0.87418)])
def test_betting_bound_check_values(n, wanted):
    """Every tenth score 0, the others 1: the published lower bounds, to five digits."""
    assert round(lower_bound([float(i % 10 != 0) for i in range(1, n + 1)]), 5) == wanted


def test_betting_bound_of_perfect_scores():
    """Even flawless scores support a floor only slowly: five of them .48, fifty .924, two hundred .980."""
    assert [round(lower_bound([1.0] * n), 5) for n in (5, 50, 200)] == [0.47754, 0.92373, 0.98010]
    assert lower_bound([]) == 0.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_betting_bound_is_below_the_mean(scores):
    """The bound lies between 0 and the mean."""
    assert 0 <= lower_bound(scores) <= sum(scores) / len(scores) + 1e-12


def test_agreement_with_people():
    """kappa, sensitivity, specificity and base rate of a small table, and what cannot be said stays None."""
    labels = [True] * 6 + [False] * 4
    verdicts = [True] * 5 + [False] + [False] * 3 + [True]
    assert agreement(labels, verdicts) == Agreement(10, 0.6, pytest.approx(0.5833, abs=1e-4), 5 / 6, 0.75)
    assert agreement([True], [True]) == Agreement(1, 1.0, None, 1.0, None)
    with pytest.raises(InputError, match="no label to compare the judge with"):
        agreement([], [])


def test_rogan_gladen_corrects_and_refuses():
    """A judge with se .9 and sp .8 that passes 60 % saw 57 % good; one that guesses gives no number."""
    labels = [True] * 10 + [False] * 10
    found = rogan_gladen(60, 100, labels, [True] * 9 + [False] * 9 + [True] * 2)
    assert found.mean == pytest.approx((0.6 + 0.8 - 1) / 0.7)
    assert found.low < found.mean < found.high
    assert rogan_gladen(60, 100, labels, [True, False] * 10).mean is None


def test_ppi_uses_a_good_judge_and_ignores_a_bad_one():
    """A judge that equals the labels narrows the interval; a judge that is constant leaves the labels' own mean."""
    dice = seeded("ppi")
    truth = [float(dice.random() < 0.7) for _ in range(1040)]
    few, many = truth[:40], truth[40:]
    good = ppi_mean(few, few, many)
    alone = ppi_mean(few, [1.0] * 40, [1.0] * 1000)
    assert alone.mean == pytest.approx(sum(few) / 40)
    assert good.high - good.low < 0.35 * (alone.high - alone.low)
    assert good.low < 0.7 < good.high
    with pytest.raises(InputError, match="1 labels, 1 verdicts on them and 1 others"):
        ppi_mean([1], [1], [1])
