"""Memory is bounded by what still matters, and by a hard cap when somebody invents names."""

from __future__ import annotations

import tracemalloc

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.errors import ConfigError
from opsloop.rate_limit import Context, Limiter, MemoryStore, policy_from_settings
from opsloop.rate_limit.expiry import ExpiryWheel
from opsloop.settings import LimitSettings

RATE = LimitSettings(id="rate", lever="rate", amount=10, per="hour", burst=2)
DAILY = LimitSettings(id="daily", lever="quota", amount=100, per="day", unit="tokens")
SLOTS = LimitSettings(id="slots", lever="concurrency", amount=4)


def make(clock, *limits, **options):
    """A limiter and its store."""
    store = MemoryStore(clock=clock, **options)
    return Limiter(policy_from_settings(limits), store=store, clock=clock, ids=SeededIds(1)), store


def test_a_key_costs_at_most_120_bytes(clock):
    """A bucket is a dictionary entry, an integer and a pointer, and callers are remembered up to a fixed number."""
    limiter, _ = make(clock, RATE)
    contexts = [Context(tenant=f"tenant-{n}") for n in range(50_000)]
    tracemalloc.start()
    for context in contexts:
        limiter.admit(context)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(contexts) <= 120


def test_invented_names_share_one_bucket_once_there_are_too_many(clock):
    """A flood of strangers keeps no more than the cap, gets what one caller gets, and takes nothing from the known."""
    limiter, store = make(clock, RATE, max_keys=100)
    for n in range(100):
        assert limiter.admit(Context(tenant=f"known-{n}")).allowed
    assert [limiter.admit(Context(tenant=f"stranger-{n}")).allowed for n in range(1000)] == [True] * 2 + [False] * 998
    assert len(store) == len(store._wheel) == 101
    assert [limiter.admit(Context(tenant="known-7")).allowed for _ in range(2)] == [True, False]
    clock.advance(seconds=3600)
    for n in range(100):
        assert limiter.admit(Context(tenant=f"new-{n}")).allowed
    assert len(store) <= 101


def test_a_strangers_reservation_is_settled_where_it_was_counted(clock):
    """A full quota counts strangers together, and gives back to them together."""
    limiter, store = make(clock, DAILY, max_keys=1)
    limiter.admit(Context(tenant="known"), {"tokens": 1})
    first = limiter.admit(Context(tenant="x"), {"tokens": 90})
    assert not limiter.admit(Context(tenant="y"), {"tokens": 90}).allowed
    assert limiter.peek(Context(tenant="z"), {"tokens": 10}).allowed
    assert limiter.settle(first.reservation, {"tokens": 5}).reason == "corrected daily"
    assert limiter.admit(Context(tenant="y"), {"tokens": 90}).limits["daily"].remaining == 5
    assert len(store) == 2 + 2


def test_a_cap_below_one_is_refused(clock):
    """No room at all is a mistake of the configuration."""
    with pytest.raises(ConfigError, match="max_keys is 0; give room for one key at least"):
        MemoryStore(clock=clock, max_keys=0)


def test_settled_requests_leave_only_their_buckets_behind(clock):
    """Ten thousand whole requests later nothing is kept that grows with their number, not even on the wheel."""
    limiter, store = make(clock, LimitSettings(id="rate", lever="rate", amount=10**6, unit="tokens"), DAILY, SLOTS)
    for n in range(10_000):
        decision = limiter.admit(Context(tenant=f"t{n % 10}"), {"tokens": 5})
        assert decision.allowed
        limiter.settle(decision.reservation, {"tokens": 0})
        clock.advance(ns=10**6)
    assert (len(store), len(store._wheel)) == (20, 30)


def test_what_nobody_settles_is_forgotten_as_fast_as_it_comes(clock):
    """Requests that crash, for two days, each from a tenant never seen again: no more is kept than an hour of them."""
    limiter, store = make(clock, RATE, DAILY, SLOTS)
    most = 0
    for n in range(2 * 24 * 60):
        limiter.admit(Context(tenant=f"t{n}"), {"tokens": 5})
        clock.advance(seconds=60)
        most = max(most, len(store))
    assert most <= 60 + 10 + 2 + (24 + 1) * 60 + 60
    assert len(store._tables) <= 3


def test_a_period_outlives_a_wall_clock_that_is_set_back(clock):
    """Two hours back: the day now ends two hours later, and its count is kept until then."""
    limiter, _ = make(clock, DAILY)
    limiter.admit(Context(tenant="acme"), {"tokens": 100})
    clock.advance(seconds=14 * 3600)
    clock.set_time("2026-01-05T12:00:00Z")
    assert not limiter.admit(Context(tenant="acme"), {"tokens": 1}).allowed
    for n in range(50):
        clock.advance(seconds=800)
        assert not limiter.admit(Context(tenant="acme"), {"tokens": 1}).allowed
        limiter.admit(Context(tenant=f"t{n}"), {"tokens": 1})


def test_a_wheel_asks_a_few_at_a_time_and_again_when_told():
    """Of nine due items four are asked per sweep; one that wants to stay comes out when it said."""
    asked = []

    def forget(item, now_ns):
        asked.append(item)
        return 5 * 10**9 if (item, now_ns) == (0, 10**9) else 0

    wheel = ExpiryWheel()
    for n in range(9):
        wheel.add(forget, n, 10**9)
    assert [wheel.sweep(10**9, most=4) for _ in range(4)] == [4, 4, 1, 0]
    assert (sorted(asked), len(wheel), wheel.next_ns) == (list(range(9)), 1, 5 * 10**9)
    assert (wheel.sweep(ManualClock().monotonic_ns() + 6 * 10**9, most=4), asked[-1], len(wheel)) == (1, 0, 0)
