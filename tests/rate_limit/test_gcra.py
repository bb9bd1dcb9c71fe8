"""The rate is exact: never one too many, never one too few, never a nanosecond late."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.rate_limit import gcra
from tests.rate_limit.oracle import RateOracle

SECOND = 1_000_000_000
amounts = st.sampled_from([1, 2, 7, 54, 59, 60, 100, 119, 450_000, 7_000_000, 100_000_000])
periods = st.sampled_from([1, 7, 1_000_000, SECOND, 60 * SECOND, 3600 * SECOND])
bursts = st.none() | st.integers(1, 12)
rates = st.tuples(amounts, periods, bursts)
steps = st.lists(
    st.tuples(st.sampled_from(["exact", "early", "late", "same", "idle", "tick"]), st.integers(0, 14)), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(rates, steps)
def test_no_arrival_is_over_or_under_admitted(numbers, moves):
    """Against the oracle in exact rationals, arrivals at the legal instant and one tick around it: 0 over, 0 under."""
    amount, period_ns, burst = numbers
    bucket = gcra.rate(amount, period_ns, burst=burst)
    size = amount if burst is None else burst
    oracle = RateOracle(amount, period_ns, size)
    state, now_ns = 0, 0
    for move, scale in moves:
        cost = scale if size <= 14 else scale * size // 12
        wait = gcra.take(bucket, state, cost, now_ns)[1] or 0
        now_ns += {"exact": wait, "early": max(0, wait - 1), "late": wait + 1, "same": 0, "tick": 1}.get(
            move, 3 * period_ns
        )
        legal = oracle.legal(cost, now_ns)
        after, wait = gcra.take(bucket, state, cost, now_ns)
        assert (wait == 0) == legal
        assert (wait is None) == (cost > size)
        if wait == 0:
            oracle.record(cost, now_ns)
        else:
            assert after == state
        state = after


@settings(max_examples=100, deadline=None)
@given(rates, steps)
def test_the_wait_is_the_first_nanosecond_that_admits(numbers, moves):
    """A nanosecond before the wait is over the answer is still no; when it is over the answer is yes."""
    bucket = gcra.rate(numbers[0], numbers[1], burst=numbers[2])
    state, now_ns = 0, 0
    for _, cost in moves:
        state, wait = gcra.take(bucket, state, cost, now_ns)
        if wait:
            assert gcra.take(bucket, state, cost, now_ns + wait - 1)[1] != 0
            assert gcra.take(bucket, state, cost, now_ns + wait)[1] == 0


@settings(max_examples=100, deadline=None)
@given(rates, st.integers(0, 10**12), st.integers(0, 10), st.integers(0, 40))
def test_a_settled_estimate_is_as_if_the_actual_had_been_taken(numbers, now_ns, estimate, actual):
    """Charging (actual - estimate) leaves the debt of the actual, above the capacity too, and never below zero."""
    bucket = gcra.rate(numbers[0], numbers[1], burst=numbers[2])
    state, wait = gcra.take(bucket, 0, estimate, now_ns)
    if wait == 0:
        state = gcra.correct(bucket, state, actual - estimate, now_ns)
        assert gcra.debt(bucket, state, now_ns) == actual * bucket.weight
        assert gcra.debt(bucket, gcra.correct(bucket, state, -actual - 5, now_ns), now_ns) == 0


@given(rates, st.integers(0, 40), st.integers(0, 10**12))
def test_remaining_is_what_can_be_taken(numbers, charged, now_ns):
    """``remaining`` units are admitted at once and one more is not; a bucket is full when it says it will be."""
    bucket = gcra.rate(numbers[0], numbers[1], burst=numbers[2])
    state = gcra.correct(bucket, 0, charged, now_ns)
    left = gcra.remaining(bucket, state, now_ns)
    if left:
        assert gcra.take(bucket, state, left, now_ns)[1] == 0
    assert gcra.take(bucket, state, left + 1, now_ns)[1] != 0
    full_ns = now_ns + gcra.full_in_ns(bucket, state, now_ns)
    assert gcra.debt(bucket, state, full_ns) == 0
    assert full_ns == now_ns or gcra.debt(bucket, state, full_ns - 1) > 0


@pytest.mark.parametrize(
    ("amount", "period_us", "gain", "weight"),
    [
        (60, 60_000_000, 1, 1_000_000),
        (54, 60_000_000, 9, 10_000_000),
        (450_000, 60_000_000, 3, 400),
        (7_000_000, 60_000_000, 7, 60),
    ],
)
def test_rates_reduce_to_these_integers(amount, period_us, gain, weight):
    """The reduced fractions of four common rates in microseconds."""
    bucket = gcra.rate(amount, period_us, burst=10)
    assert (bucket.gain, bucket.weight, bucket.capacity) == (gain, weight, 10 * weight)
