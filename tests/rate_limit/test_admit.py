"""All or nothing, once, and with reasons."""

from __future__ import annotations

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, MemoryStore, policy_from_settings
from opsloop.rate_limit import admit as core
from opsloop.rate_limit.decision import Request
from opsloop.settings import LimitSettings

ACME = Context(tenant="acme", key="k1")
RATE = LimitSettings(id="rate", lever="rate", amount=10, per="second")
TOKENS = LimitSettings(id="tokens", lever="rate", amount=1000, unit="tokens")
DAILY = LimitSettings(id="daily", lever="quota", amount=5000, per="day", unit="tokens")
SLOTS = LimitSettings(id="slots", lever="concurrency", amount=2)


@pytest.fixture
def make(clock):
    """A limiter over some limits."""
    return lambda *limits: Limiter(policy_from_settings(limits), clock=clock, ids=SeededIds(3))


def left(limiter):
    """What remains of each limit: a question that is never admissible is answered with the levels as they are."""
    huge = {"requests": 10**15, "tokens": 10**15}
    return {name: state.remaining for name, state in limiter.peek(ACME, huge).limits.items()}


def test_a_refusal_writes_nothing_and_names_every_limit(make, clock):
    """Three limits say no at once: all three are named, the longest wait counts, and no limit was charged."""
    limiter = make(
        TOKENS,
        LimitSettings(id="daily", lever="quota", amount=900, per="day", unit="tokens"),
        LimitSettings(id="slots", lever="concurrency", amount=1),
    )
    assert limiter.admit(ACME, {"tokens": 800}).allowed
    before = repr(limiter._store._state)
    refused = limiter.admit(ACME, {"tokens": 300})
    assert (refused.status, refused.reservation, refused.status_code) == ("rejected", "", 429)
    assert [violation.limit for violation in refused.violated] == ["tokens", "daily", "slots"]
    assert [violation.retry_after_ns for violation in refused.violated] == [6 * 10**9, 15 * 3600 * 10**9, 30 * 10**9]
    assert refused.retry_after_seconds == 15 * 3600.0
    assert refused.reason == (
        "tokens for tenant acme: 200 of 1000 tokens per minute left, 300 asked, admissible in 6 s; "
        "daily for tenant acme: 100 of 900 tokens per day left, 300 asked, resets in 54000 s; "
        "slots for tenant acme: all 1 slots are held, the next lease ends in 30 s"
    )
    assert repr(limiter._store._state) == before


def test_what_can_never_be_admitted_is_told_so(make):
    """A cost above a bucket or a whole quota is no endless 429: waiting is not offered."""
    limiter = make(TOKENS, DAILY)
    refused = limiter.admit(ACME, {"tokens": 5001})
    assert (refused.status, refused.retry_after_seconds, refused.status_code) == ("never_admissible", None, 413)
    assert refused.reason == (
        "tokens for tenant acme: 5001 tokens asked, never more than 1000 at once; "
        "daily for tenant acme: 5001 tokens asked, never more than 5000 at once"
    )
    assert left(limiter) == {"tokens": 1000, "daily": 5000}


def test_settle_corrects_down_and_up_once(make):
    """Less than estimated is given back, more is charged beyond the limit, and a second settle changes nothing."""
    limiter = make(TOKENS, DAILY, SLOTS)
    first = limiter.admit(ACME, {"tokens": 900})
    receipt = limiter.settle(first.reservation, {"input_tokens": 100, "output_tokens": 50})
    assert (receipt.status, receipt.reason) == ("settled", "corrected tokens, daily")
    assert left(limiter) == {"tokens": 850, "daily": 4850, "slots": 2}
    second = limiter.admit(ACME, {"tokens": 850})
    limiter.settle(second.reservation, {"tokens": 2850})
    assert limiter.settle(second.reservation, {"tokens": 2850}).status == "not_held"
    after = limiter.peek(ACME, {"tokens": 1})
    assert {name: state.used_ratio for name, state in after.limits.items()} == {
        "tokens": 3.0,
        "daily": 0.6,
        "slots": 0.0,
    }
    assert after.retry_after_seconds == pytest.approx(120.06)


def test_a_repeated_admit_is_answered_as_before_and_costs_nothing(make, clock):
    """The same reservation gets the same decision, before and after it was settled, for an hour."""
    limiter = make(TOKENS, SLOTS)
    first = limiter.admit(ACME, {"tokens": 600}, reservation="r1")
    assert limiter.admit(ACME, {"tokens": 600}, reservation="r1") == first
    assert left(limiter) == {"tokens": 400, "slots": 1}
    limiter.settle("r1", {"tokens": 100})
    assert limiter.admit(ACME, {"tokens": 600}, reservation="r1") == first
    assert limiter.settle("r1", {"tokens": 0}).status == "not_held"
    assert left(limiter) == {"tokens": 900, "slots": 2}
    clock.advance(seconds=3600)
    assert limiter.admit(ACME, {"tokens": 600}, reservation="r1") != first


def test_a_refused_reservation_may_be_tried_again(make, clock):
    """A refusal is not remembered: the same id is admitted once there is room."""
    limiter = make(TOKENS)
    limiter.admit(ACME, {"tokens": 1000})
    assert not limiter.admit(ACME, {"tokens": 100}, reservation="r1").allowed
    clock.advance(seconds=6)
    assert limiter.admit(ACME, {"tokens": 100}, reservation="r1").allowed


def test_a_settle_after_midnight_goes_to_yesterday(make, clock):
    """The correction counts in the period of the request; today is untouched by it."""
    limiter = make(DAILY)
    clock.advance(seconds=14 * 3600 + 59 * 60)
    late = limiter.admit(ACME, {"tokens": 4000})
    clock.advance(seconds=120)
    receipt = limiter.settle(late.reservation, {"tokens": 4500})
    assert receipt.levels[0].value == 4500
    assert left(limiter) == {"daily": 5000}
    clock.set_time("2026-01-05T23:59:59Z")
    assert left(limiter) == {"daily": 500}


def test_a_crashed_holder_is_free_after_its_lease_and_still_settles(make, clock):
    """The slot comes back at the lease's end, to the nanosecond; the late settlement corrects the tokens once."""
    limiter = make(SLOTS, TOKENS)
    held = [limiter.admit(ACME, {"tokens": 100}) for _ in range(2)]
    clock.advance(ns=30 * 10**9 - 1)
    assert limiter.admit(ACME, {"tokens": 1}).violated[0].retry_after_ns == 1
    clock.advance(ns=1)
    assert limiter.admit(ACME, {"tokens": 100}).allowed
    assert limiter.renew(held[0].reservation).reason == "the lease on slots ran out"
    assert limiter.settle(held[0].reservation, {"tokens": 101}).reason == "corrected tokens"
    assert left(limiter)["slots"] == 1


def test_a_renewed_lease_goes_on_and_a_released_one_does_not(make, clock):
    """Renewal counts from now, for at most an hour in all; release frees at once, and only once."""
    limiter = make(SLOTS, RATE)
    one = limiter.admit(ACME)
    for _ in range(178):
        clock.advance(seconds=20)
        assert limiter.renew(one.reservation).status == "renewed"
    clock.advance(seconds=20)
    assert limiter.renew(one.reservation).reason == "slots was held for the longest time"
    two = limiter.admit(ACME)
    assert limiter.release(two.reservation).reason == "1 slots given back"
    assert limiter.release(two.reservation).reason == "0 slots given back"
    assert left(limiter) == {"slots": 1, "rate": 9}


def test_a_released_estimate_can_be_settled_for_a_minute(make, clock):
    """A stream's usage that arrives after the response is counted; much later it is not."""
    limiter = make(DAILY)
    soon, late = (limiter.admit(ACME, {"tokens": 100}).reservation for _ in range(2))
    limiter.release(soon)
    limiter.release(late)
    clock.advance(seconds=59)
    assert limiter.settle(soon, {"tokens": 40}).status == "settled"
    clock.advance(seconds=1)
    assert limiter.settle(late, {"tokens": 40}).status == "not_held"
    assert left(limiter) == {"daily": 4860}


def test_nothing_is_held_where_there_is_nothing_to_settle(make):
    """A limit on requests alone needs no reservation, so it costs no memory beyond its bucket."""
    limiter = make(RATE)
    assert limiter.admit(ACME).reservation == ""
    assert limiter.settle("", {}).status == "not_held"
    assert len(limiter._store) == 1


def test_peek_promises_what_admit_then_does_and_changes_nothing(make):
    """The same question asked twice by peek and once by admit has one answer."""
    limiter = make(TOKENS, SLOTS)
    first, second = (limiter.peek(ACME, {"tokens": 700}) for _ in range(2))
    assert first.limits == second.limits == limiter.admit(ACME, {"tokens": 700}).limits
    assert not limiter.peek(ACME, {"tokens": 700}).allowed


def test_the_core_never_writes_the_state_that_it_reads(clock):
    """Decide, settle, renew and release return changes and leave their input alone."""
    policy = policy_from_settings([TOKENS, DAILY, SLOTS])
    demands = policy.demands(ACME, {"tokens": 10}, clock.now_ns())
    request = Request(ACME, {"tokens": 10}, demands, clock.now_ns(), "r1")
    store = MemoryStore(clock=clock)
    store.admit(request)
    before = repr(store._state)
    core.decide(store._state, request, 5)
    core.settle(store._state, "r1", {"tokens": 99}, 5)
    core.renew(store._state, "r1", 5)
    core.release(store._state, "r1", 5)
    assert repr(store._state) == before


def test_a_changed_limit_applies_at_once(clock):
    """A quota and slots keep their counts under a new amount; a changed rate begins with a full bucket."""
    store = MemoryStore(clock=clock)
    small = Limiter(policy_from_settings([RATE, DAILY, SLOTS]), store=store, clock=clock, ids=SeededIds(1))
    for _ in range(2):
        small.admit(ACME, {"tokens": 2000})
    large = [
        LimitSettings(id="rate", lever="rate", amount=20, per="second"),
        LimitSettings(id="daily", lever="quota", amount=9000, per="day", unit="tokens"),
        LimitSettings(id="slots", lever="concurrency", amount=5),
    ]
    assert left(Limiter(policy_from_settings(large), store=store, clock=clock)) == {
        "rate": 20,
        "daily": 5000,
        "slots": 3,
    }


def test_what_no_longer_matters_is_forgotten_a_little_at_a_time(clock):
    """Eight thousand things of long ago are gone a thousand writes later, and no write paid for more than a few."""
    limits = [RATE, SLOTS, TOKENS]
    limiter = Limiter(policy_from_settings(limits), clock=clock, ids=SeededIds(1))
    for n in range(2000):
        limiter.admit(Context(tenant=f"t{n}"), {"tokens": 5})
    assert len(limiter._store) == 8000
    clock.advance(seconds=7200)
    limiter.admit(ACME, {"tokens": 5})
    assert len(limiter._store) >= 8000 - 8
    for _ in range(1200):
        clock.advance(seconds=40)
        limiter.admit(ACME, {"tokens": 5})
    assert len(limiter._store) < 110


def test_a_clock_that_goes_back_stands_still(make, clock):
    """Setting the wall clock back or forth neither gives nor takes a rate's units or a slot's lease."""
    limiter = make(RATE, SLOTS)
    for _ in range(2):
        limiter.admit(ACME)
    for moment in ("2025-12-31T00:00:00Z", "2027-01-01T00:00:00Z"):
        clock.set_time(moment)
        assert left(limiter) == {"rate": 8, "slots": 0}


class Backwards(ManualClock):
    """A broken clock: its monotonic time jumps back."""

    def monotonic_ns(self):
        """Return a time that can go back."""
        return self.now_ns()


def test_even_a_broken_monotonic_clock_stands_still():
    """Time never goes back for a store: the same time is not repaid twice."""
    clock = Backwards(10**12)
    limiter = Limiter(policy_from_settings([RATE]), clock=clock)
    for _ in range(10):
        assert limiter.admit(ACME).allowed
    clock.set_time(10**12 - 10**9)
    assert limiter.admit(ACME).retry_after_seconds == 0.1
    clock.set_time(10**12)
    assert not limiter.admit(ACME).allowed
