"""The sequential test against the published table, number by number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import ConfigError
from opsloop.improvement.sprt import Sprt

STRICT = Sprt(alpha=0.001)


@pytest.mark.parametrize(
    ("rule", "p", "block", "inconclusive", "runs"),
    [
        (Sprt(), 0.99, 0.000, None, 5.3),
        (Sprt(), 0.95, 0.005, 0.002, None),
        (Sprt(), 0.9, 0.039, 0.020, None),
        (Sprt(), 0.7, 0.639, 0.060, None),
        (Sprt(), 0.5, 0.960, None, 6.1),
        (Sprt(), 0.2, 1.000, None, 3.0),
        (STRICT, 0.99, 0.000, None, 5.3),
        (STRICT, 0.95, 0.000, 0.003, None),
        (STRICT, 0.9, 0.009, 0.037, None),
        (STRICT, 0.7, 0.513, 0.179, None),
        (STRICT, 0.5, 0.952, None, 8.8),
        (STRICT, 0.2, 1.000, None, 4.4),
        (Sprt(good=0.98, bad=0.6), 0.99, 0.001, None, 7.5),
        (Sprt(good=0.98, bad=0.6), 0.95, 0.032, None, None),
        (Sprt(good=0.98, bad=0.6), 0.9, 0.168, None, None),
        (Sprt(good=0.98, bad=0.6), 0.7, 0.871, None, None),
        (Sprt(good=0.98, bad=0.6), 0.5, 0.992, None, 4.6),
        (Sprt(good=0.98, bad=0.6), 0.2, 1.000, None, 2.5),
    ],
)
def test_the_table_of_block_probabilities(rule, p, block, inconclusive, runs):
    """P(block), P(inconclusive) and the mean runs are those of the exact enumeration, to the printed digit."""
    outlook = rule.outlook(p)
    assert round(outlook.block, 3) == block
    if inconclusive is not None:
        assert round(outlook.inconclusive, 3) == inconclusive
    if runs is not None:
        assert round(outlook.runs, 1) == runs


def boundaries(rule, verdict):
    """Return {failures: the last (block) or first (pass) run at which these failures decide}."""
    found = {}
    for n in range(1, rule.max_runs + 1):
        for failures in range(n + 1):
            if rule.decide(n - failures, failures) == verdict:
                known = found.get(failures, n)
                found[failures] = max(known, n) if verdict == "fail" else min(known, n)
    return found


@pytest.mark.parametrize(
    ("rule", "block"),
    [
        (Sprt(), {2: 2, 3: 6, 4: 11, 5: 15, 6: 20, 7: 25}),
        (STRICT, {3: 3, 4: 7, 5: 12, 6: 16, 7: 21, 8: 25}),
    ],
)
def test_the_boundaries(rule, block):
    """So many failures by this run block; so few at this run pass."""
    found = boundaries(rule, "fail")
    assert {failures: found[failures] for failures in block} == block
    assert min(found) == min(block)
    passing = boundaries(rule, "pass")
    assert {failures: passing[failures] for failures in range(5)} == {0: 5, 1: 10, 2: 14, 3: 19, 4: 24}


def test_fifty_guards_rarely_block_a_harmless_change():
    """With alpha shared out, a suite of fifty blocks a change that breaks nothing in at most 5 % of the runs."""
    each = Sprt(alpha=0.05 / 50).outlook(0.95).block
    assert 1 - (1 - each) ** 50 <= 0.05
    assert Sprt(alpha=0.05 / 50).outlook(0.5).block >= 0.94


@given(st.floats(0.01, 0.99))
def test_the_outlook_is_a_distribution(p):
    """Blocking, passing and not knowing are all there is, within the allowed runs."""
    outlook = Sprt().outlook(p)
    assert 0 <= outlook.block <= 1 + 1e-9
    assert 0 <= outlook.inconclusive <= 1 + 1e-9
    assert 1 <= outlook.runs <= 25
    assert math.isfinite(outlook.runs)


def test_what_is_no_test_is_refused():
    """Two sides that cannot be told apart, or errors that add up to one, are wrong settings."""
    with pytest.raises(ConfigError, match="told apart"):
        Sprt(good=0.5, bad=0.5)
    with pytest.raises(ConfigError, match="alpha"):
        Sprt(alpha=0.6, beta=0.5)
