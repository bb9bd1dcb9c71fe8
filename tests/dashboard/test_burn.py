"""Burn: the published vectors, the evidence guard, and what may never happen."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.dashboard import Count, budget, burn, judge_tiers, tail, tiers
from opsloop.dashboard.burn import ALPHA, Tier
from opsloop.errors import ConfigError
from opsloop.verdict import Verdict

counts = st.integers(0, 400).flatmap(lambda total: st.builds(Count, st.integers(0, total), st.just(total)))
targets = st.sampled_from([0.8, 0.9, 0.95, 0.99, 0.995, 0.999])
HOUR = (Tier(severity="page", long_seconds=3600, short_seconds=300, factor=14.4),)


def verdict(long, short, *, target=0.999):
    """Judge the pair of one hour and five minutes."""
    return judge_tiers(HOUR, [(long, short)], target=target)[0].verdict


@pytest.mark.parametrize(
    ("n", "k", "p", "expected"),
    [
        (6, 2, 0.01, 1.460448e-3),
        (6, 3, 0.01, 1.955359e-5),
        (10, 2, 0.001, 4.476063e-5),
        (60, 5, 0.01, 3.457543e-4),
        (60, 6, 0.01, 3.152366e-5),
        (1000, 25, 0.01, 4.202921e-5),
    ],
)
def test_the_binomial_tail_has_its_known_values(n, k, p, expected):
    """Six known values of P(X >= k), to all digits that are given."""
    assert tail(n, k, p) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("target", "least"),
    [
        (0.95, (4, 5, 8, 12, 16, 32, 78, 197)),
        (0.99, (3, 4, 5, 6, 7, 12, 25, 53)),
        (0.999, (2, 2, 3, 3, 4, 5, 7, 12)),
    ],
)
def test_the_least_evidence_is_known(target, least):
    """The smallest number of failures that is evidence, for eight sizes of sample and three objectives."""
    sizes = (5, 10, 30, 60, 100, 300, 1000, 3000)
    share = float(budget(target))
    assert tuple(next(k for k in range(n + 1) if tail(n, k, share) < ALPHA) for n in sizes) == least


@given(
    n=st.integers(0, 60), k=st.integers(-1, 62), p=st.sampled_from([Fraction(1, 100), Fraction(1, 5), Fraction(9, 10)])
)
def test_the_tail_is_the_exact_sum(n, k, p):
    """The tail through log-gamma is the sum of the probabilities in exact fractions, to ten digits."""
    exact = sum(
        (math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(max(k, 0), n + 1)),
        Fraction(0),
    )
    assert tail(n, k, float(p)) == pytest.approx(float(exact), rel=1e-10, abs=1e-14)


def test_the_tail_of_many_millions_is_quick_and_sane():
    """A month of traffic is judged too: on the mean about half, far above it nothing, below it everything."""
    assert 0.49 < tail(50_000_000, 50_000, 0.001) < 0.51
    assert tail(50_000_000, 60_000, 0.001) == 0.0
    assert tail(50_000_000, 40_000, 0.001) == 1.0


def test_fifteen_percent_for_ten_minutes_fires_after_576_and_clears_at_1452():
    """At 99.9% the pair of 1 h and 5 min fires just after 5.76 minutes and clears at 14.52, not at rounded times."""

    def at(moment, length):  # in hundredths of a minute, each with 100 requests of which 15 fail in the first 1000
        return Count(15 * max(0, min(moment, 1000) - max(moment - length, 0)), 100 * length)

    firing = [t for t in range(3000) if verdict(at(t, 6000), at(t, 500)) is Verdict.BREACH]
    assert (firing[0], firing[-1] + 1) == (577, 1452)
    assert firing == list(range(577, 1452))


def test_on_the_edge_is_not_above_it():
    """A ratio of exactly 14.4 thousandths is no breach, and one event more is: no rounding decides."""
    assert verdict(Count(144, 10_000), Count(500, 1000)) is Verdict.OK
    assert verdict(Count(145, 10_000), Count(500, 1000)) is Verdict.BREACH


def test_one_failure_in_a_quiet_hour_is_no_page():
    """Ten requests an hour at 99.9%: one failure burns 100 times, takes 13.9% of the budget, proves nothing."""
    one = Count(1, 10)
    assert burn(one, 0.999) == 100.0
    assert burn(Count(1, 7200), 0.999) == pytest.approx(0.1389, abs=1e-4)
    assert verdict(one, Count(1, 1)) is Verdict.INSUFFICIENT
    assert verdict(Count(2, 10), Count(1, 1)) is Verdict.BREACH


def test_no_events_is_no_verdict():
    """An empty long window is NO_DATA; a burning long window with an empty short one is too: silence clears nothing."""
    assert verdict(Count(), Count()) is Verdict.NO_DATA
    assert verdict(Count(9, 10), Count()) is Verdict.NO_DATA
    assert verdict(Count(0, 10), Count()) is Verdict.OK


def test_thirty_days_have_the_workbooks_table():
    """At 30 days the scaled tiers are the workbook's: windows, factors and the share of the budget at firing."""
    found = tiers(target=0.999, period_days=30)
    rows = [
        (tier.severity, tier.long_seconds, tier.short_seconds, tier.factor, tier.factor * tier.long_seconds / 2_592_000)
        for tier in found
    ]
    assert rows == [
        ("page", 3600, 300, 14.4, 0.02),
        ("page", 21_600, 1800, 6, 0.05),
        ("ticket", 86_400, 7200, 3, 0.1),
        ("ticket", 259_200, 21_600, 1, 0.1),
    ]


def test_a_week_keeps_an_hour_and_says_what_it_costs():
    """At 7 days the shortest window stays an hour and keeps its factor, so it fires at 8.6% of the budget."""
    first = tiers(target=0.999, period_days=7)[0]
    assert (first.long_seconds, first.factor) == (3600, 14.4)
    assert first.factor * first.long_seconds / (7 * 86_400) == pytest.approx(0.0857, abs=1e-4)


@given(targets, st.sampled_from([1, 7, 28, 30, 90]))
def test_every_tier_can_fire(target, period_days):
    """Whatever the objective, a full outage fires every tier, and no tier fires on a service inside its objective."""
    found = tiers(target=target, period_days=period_days)
    outage = judge_tiers(found, [(Count(500, 500), Count(500, 500))] * 4, target=target)
    assert [tier.verdict for tier in outage] == [Verdict.BREACH] * 4
    assert all(tier.factor >= 1 for tier in found)


def test_a_factor_that_could_never_fire_is_lowered_and_says_so():
    """At 90% a burn of 14.4 would be 144% of the requests: the tier stays, with a factor that can be reached."""
    fast, slow, *_ = tiers(target=0.9, period_days=30)
    assert fast.factor == 5.5
    assert fast.note == "a factor of 14.4 with a budget of 10% could never fire: lowered to 5.5"
    assert (slow.factor, slow.note) == (6.0, "")


def test_a_factor_below_one_is_refused():
    """A factor below 1 would alert on a service that is inside its objective."""
    with pytest.raises(ConfigError, match=r"0\.933 alerts on a service that is inside its objective; use a factor"):
        tiers(target=0.99, period_days=28, factors=(13.44, 5.6, 2.8, 0.933))


def test_the_fastest_tier_speaks_for_the_others():
    """A short outage trips several tiers: the fastest speaks, the slower ones say by which they are suppressed."""
    found = tiers(target=0.999, period_days=30)
    read = judge_tiers(found, [(Count(60, 100), Count(30, 50))] * 4, target=0.999)
    assert [tier.verdict for tier in read] == [Verdict.BREACH] * 4
    assert "suppressed" not in read[0].reason
    assert all(tier.reason.endswith("; suppressed by the page 1 h / 5 m tier") for tier in read[1:])


@given(long=counts, short=counts, target=targets)
def test_more_failures_never_burn_less(long, short, target):
    """Burn grows with bad events, and never falls from BREACH when one more request of the window had failed."""
    if long.bad < long.total:
        worse = Count(long.bad + 1, long.total)
        assert burn(worse, target) > burn(long, target)
        if verdict(long, short, target=target) is Verdict.BREACH:
            assert verdict(worse, short, target=target) is Verdict.BREACH


@given(long=counts, short=counts, target=targets)
def test_a_good_event_never_starts_a_page(long, short, target):
    """One more good request in both windows, or in the long one alone, never turns anything into a breach."""
    before = verdict(long, short, target=target)
    more = Count(long.bad, long.total + 1)
    for after in (
        verdict(more, short, target=target),
        verdict(more, Count(short.bad, short.total + 1), target=target),
    ):
        assert after is not Verdict.BREACH or before is Verdict.BREACH
