"""What other limiters got wrong, each as one test that this one passes."""

from __future__ import annotations

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, limit_headers, policy_from_settings, simulate
from opsloop.settings import LimitSettings

A = Context(organisation="org", tenant="acme", key="a")
B = Context(organisation="org", tenant="acme", key="b")
SECOND = 10**9


def rate(name="rate", **table):
    """A rate."""
    return LimitSettings(id=name, lever="rate", **table)


def quota(name="quota", **table):
    """A quota."""
    return LimitSettings(id=name, lever="quota", **table)


def slots(name="slots", **table):
    """A number of slots."""
    return LimitSettings(id=name, lever="concurrency", **table)


def limiter(*limits, clock=None):
    """A limiter on a clock that stands still."""
    return Limiter(policy_from_settings(limits), clock=clock or ManualClock("2026-01-05T09:00:00Z"), ids=SeededIds(1))


def admitted(gate, calls, context=A, estimate=None):
    """How many of so many calls are admitted."""
    return sum(gate.admit(context, estimate).allowed for _ in range(calls))


def test_a_burst_below_half_a_second_of_rate_is_still_a_limit():
    """Throttled-py deletes the bucket at once when the burst is small: 2000 of 2000 got through."""
    assert admitted(limiter(rate(amount=1000, per="second", burst=100)), 2000) == 100


@pytest.mark.parametrize("amount", [54, 59, 119])
def test_a_rate_that_does_not_divide_the_minute_is_sustained(amount):
    """Whole-second clocks lost half of it: here, whoever comes back when told gets all of it for ten minutes."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(rate(amount=amount, burst=1), clock=clock)
    got = 0
    for _ in range(6000):
        got += gate.admit(A).allowed
        wait = gate.peek(A).retry_after_ns
        clock.advance(ns=wait or 100_000_000)
        if clock.monotonic_ns() >= 600 * SECOND:
            break
    assert got == amount * 10


def test_a_rejected_cost_consumes_nothing():
    """The package limits charges a rejected hit: 500 of 100 per hour is refused, and then 100 times 1 still fits."""
    gate = limiter(quota(amount=100, per="hour", unit="tokens"))
    assert not gate.admit(A, {"tokens": 500}).allowed
    assert admitted(gate, 101, estimate={"tokens": 1}) == 100


def test_a_window_edge_does_not_double_a_rate():
    """Fixed windows admit twice the limit around their edge; a bucket has no edge."""
    clock = ManualClock("2026-01-05T09:00:59.999Z")
    gate = limiter(rate(amount=100), clock=clock)
    first = admitted(gate, 200)
    clock.advance(seconds=0.002)
    assert first + admitted(gate, 200) == 100


def test_a_large_cost_takes_no_more_memory_than_a_small_one():
    """Logs keep an entry per token; a bucket is one integer."""
    gate = limiter(rate(amount=1_000_000, unit="requests"))
    admitted(gate, 200, estimate={"requests": 4000})
    assert len(gate._store) == 1


def test_a_wall_clock_that_is_wrong_lets_nobody_through():
    """Client time let 200 through a limit of 100; rates here run on a clock that cannot be set."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(rate(amount=100), clock=clock)
    first = admitted(gate, 100)
    clock.set_time("2026-01-05T09:01:30Z")
    assert first + admitted(gate, 100) == 100


def test_a_cost_above_the_limit_is_never_true():
    """The package limits once admitted a cost above its limit; here it is refused for good, and not told to wait."""
    decision = limiter(rate(amount=10, unit="tokens")).admit(A, {"tokens": 11})
    assert (decision.status, decision.retry_after_seconds) == ("never_admissible", None)


def test_a_keys_rejections_do_not_exhaust_its_tenant():
    """Checking limits one after the other burned the tenant's ten with key A's refusals; here key B has its eight."""
    gate = limiter(
        rate("tenant", amount=10, per="hour"),
        rate("key", amount=2, per="hour", scope=("tenant", "key")),
    )
    assert admitted(gate, 10, A) == 2
    assert admitted(gate, 10, B) == 2
    assert gate.peek(B).limits["tenant"].remaining == 6


@pytest.mark.parametrize("amount", [7_000_000, 70_000_000, 100_000_000])
def test_millions_per_minute_are_not_rounded_away(amount):
    """An emission interval in whole microseconds lost 5 to 40 percent; here a minute repays all of it."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(rate(amount=amount, unit="tokens"), clock=clock)
    gate.admit(A, {"tokens": amount})
    clock.advance(seconds=60)
    assert gate.peek(A, {"tokens": amount}).allowed


def test_a_concurrency_rejection_does_not_spend_the_rate():
    """LiteLLM counts the request before it looks at the slots: two rejections exhausted three per minute."""
    gate = limiter(rate(amount=3), slots(amount=1))
    held = gate.admit(A)
    assert admitted(gate, 5) == 0
    gate.release(held.reservation)
    assert admitted(gate, 1) == 1


def test_a_freed_slot_is_seen_at_once():
    """A stale mirror still said full; there is one truth here."""
    gate = limiter(slots(amount=2))
    one, _ = gate.admit(A), gate.admit(A)
    gate.release(one.reservation)
    assert gate.admit(A).allowed


def test_no_counter_moves_unless_all_agree():
    """Incrementing all before comparing counted five of two; the organisation's quota counts what was admitted."""
    gate = limiter(quota("org", amount=100, per="day", scope=("organisation",)), rate(amount=2, per="hour"))
    assert admitted(gate, 5) == 2
    assert gate.peek(A).limits["org"].remaining == 98


def test_a_crashed_holder_does_not_block_for_an_hour():
    """Slots without a lease blocked for 3600 s; these are free after 30."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(slots(amount=10), clock=clock)
    admitted(gate, 10)
    clock.advance(seconds=30)
    assert admitted(gate, 11) == 10


def test_a_day_is_a_calendar_day_in_its_zone():
    """A budget by local time was reset by UTC; here a day in Tokyo ends at 15:00 UTC, to the second."""
    clock = ManualClock("2026-01-05T14:59:59Z")
    gate = limiter(quota(amount=1, per="day", time_zone="Asia/Tokyo"), clock=clock)
    assert (admitted(gate, 2), gate.peek(A).retry_after_seconds) == (1, 1.0)
    clock.advance(seconds=1)
    assert admitted(gate, 2) == 1


def test_a_token_limit_holds_for_the_first_request():
    """663 tokens passed a limit of 100 per minute, since they were counted afterwards."""
    assert not limiter(rate(amount=100, unit="tokens")).admit(A, {"tokens": 663}).allowed


def test_concurrent_requests_cannot_overshoot_what_is_charged_later():
    """Charging after the response lets everyone in meanwhile; a reservation keeps the eleventh out."""
    gate = limiter(quota(amount=1000, per="month", unit="tokens"))
    assert admitted(gate, 50, estimate={"tokens": 100}) == 10


def test_every_429_says_when_to_come_back():
    """Without Retry-After clients retry for ever; it is in whole seconds and never too early."""
    gate = limiter(rate(amount=7, burst=1))
    gate.admit(A)
    refused = gate.admit(A)
    assert refused.retry_after_ns == 8_571_428_572
    assert dict(limit_headers(refused))["retry-after"] == "9"


def test_a_bucket_that_is_asked_often_still_refills():
    """A refill that is lost when a bucket is hit often starves the caller; refusals leave the state alone."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(rate(amount=1, per="second"), clock=clock)
    gate.admit(A)
    for _ in range(999):
        clock.advance(ns=SECOND // 1000)
        assert not gate.admit(A).allowed
    clock.advance(ns=SECOND // 1000)
    assert gate.admit(A).allowed


def test_remaining_never_exceeds_the_limit_and_a_reset_lies_ahead():
    """Remaining above the limit, resets in the past and rates above 1000 per second were all seen elsewhere."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(rate(amount=50_000, per="second", unit="tokens"), clock=clock)
    held = gate.admit(A, {"tokens": 50_000})
    state = held.limits["rate"]
    assert (state.remaining, state.used_ratio, state.reset_seconds) == (0, 1.0, 1.0)
    gate.settle(held.reservation, {"tokens": 0})
    clock.advance(seconds=10**9)
    assert gate.peek(A, {"tokens": 0}).limits["rate"].remaining == 50_000


def test_a_long_idle_time_cannot_overflow():
    """A bucket that was left alone for three centuries is full, not negative."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(rate(amount=100_000_000, unit="tokens"), clock=clock)
    gate.admit(A, {"tokens": 5})
    clock.advance(seconds=10**10)
    assert gate.peek(A, {"tokens": 100_000_000}).allowed


def test_a_window_that_is_hit_on_and_on_still_ends():
    """A lifetime that every hit re-arms never ends; an hour's quota is over at the hour."""
    clock = ManualClock("2026-01-05T09:59:00Z")
    gate = limiter(quota(amount=10, per="hour"), clock=clock)
    for _ in range(59):
        clock.advance(seconds=1)
        gate.admit(A)
    assert not gate.admit(A).allowed
    clock.advance(seconds=1)
    assert gate.admit(A).allowed


def test_a_wait_counts_the_partial_token():
    """Half a token that is there already shortens the wait for the next."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(rate(amount=1, per="second"), clock=clock)
    gate.admit(A)
    clock.advance(seconds=0.5)
    assert gate.admit(A).retry_after_seconds == 0.5


def test_an_empty_record_simulates_to_nothing():
    """No traffic is no rejection, and no error."""
    report = simulate(policy_from_settings([rate(amount=1)]), [])
    assert (report.decisions, report.rejected, report.limits[0].decisions) == (0, 0, 0)
