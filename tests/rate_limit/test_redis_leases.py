"""Leases and rolling quotas on Redis: renewed by the dozen, settled by anyone, undone where nobody waits."""

from __future__ import annotations

import asyncio

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, policy_from_settings, rolling
from opsloop.settings import LimitSettings
from tests.rate_limit.conftest import MORNING

SLOTS = LimitSettings(id="slots", lever="concurrency", amount=100)
GUARD = LimitSettings(id="guard", lever="rate", amount=10**6)
ROLLS = LimitSettings(id="rolls", lever="quota", amount=100, per="minute", rolling=10, unit="tokens")
ACME = Context(tenant="acme")


def left(limiter, context=ACME):
    """What is left of every limit."""
    never = limiter.peek(context, {"requests": 10**9, "tokens": 10**9})
    return {name: state.remaining for name, state in never.limits.items()}


@pytest.fixture(params=["redis_server", "redis_cluster"])
def place(request, redis_store):
    """A function that opens stores on one server, and on a Cluster where tenants lie in slots of their own."""
    url = request.getfixturevalue(request.param).url
    return lambda clock, **options: redis_store(url=url, server_clock=clock, clock=clock, **options)


def test_many_leases_are_renewed_in_one_call(place):
    """Forty of three tenants are alive after a heartbeat, in as few calls as there are places."""
    clock = ManualClock(MORNING)
    store = place(clock)
    limiter = Limiter(policy_from_settings([SLOTS, GUARD]), store=store, clock=clock, ids=SeededIds(1))
    held = [limiter.admit(Context(tenant=f"t{number % 3}")) for number in range(40)]
    for decision in held:
        limiter.keep_alive(decision)
    call, calls = store._driver._call, []

    def counting(script, until_ns):
        calls.append(script.name)
        return call(script, until_ns)

    store._driver._call = counting
    for _ in range(3):
        clock.advance(seconds=20)
        calls.clear()
        assert limiter.heartbeat.beat() == 40
        assert len(calls) == (6 if store._core.keys.spread else 2)
    other = Limiter(policy_from_settings([SLOTS]), store=store, clock=clock)
    other.release(held[0].reservation)
    clock.advance(seconds=29)
    assert [limiter.heartbeat.beat(), len(limiter.heartbeat)] == [39, 39]
    assert left(limiter, Context(tenant="t0"))["slots"] == 100 - 13
    clock.advance(seconds=30)
    assert [limiter.heartbeat.beat(), len(limiter.heartbeat)] == [0, 0]
    assert left(limiter, Context(tenant="t0"))["slots"] == 100


def test_the_life_of_a_slots_key_is_prolonged_in_time(redis_server, redis_store):
    """Twice the longest hold, set by whoever finds nobody, and by every client that has not done so for half a hold."""
    clock = ManualClock(MORNING)
    two = LimitSettings(id="slots", lever="concurrency", amount=2)
    limiter = Limiter(policy_from_settings([two]), store=redis_store(prefix="life", server_clock=clock), clock=clock)
    first = limiter.admit(ACME)
    (key,) = redis_server.admin.keys("life:*:slots:*")

    def prolonged():
        life = redis_server.admin.pttl(key)
        redis_server.admin.pexpire(key, 3_000_000)
        return life > 7_200_000

    assert prolonged()
    clock.advance(seconds=20)
    second = limiter.admit(ACME)
    assert not prolonged()
    for _ in range(90):
        clock.advance(seconds=20)
        assert limiter.renew(second.reservation).status == "renewed"
    assert prolonged()  # every renewal does
    limiter.release(first.reservation)
    assert limiter.admit(ACME).allowed
    assert prolonged()
    clock.advance(seconds=10)
    assert not limiter.admit(ACME).allowed
    clock.advance(seconds=30)
    assert limiter.admit(ACME).allowed  # nobody was found: all leases have run out
    assert prolonged()


def test_any_process_corrects_a_rolling_quota_in_its_slice(place):
    """With nothing but the reservation's id: what was reserved too much is free at once, and leaves with its slice."""
    clock = ManualClock(MORNING)
    here, there = (
        Limiter(policy_from_settings([ROLLS]), store=place(clock, prefix="rolls"), clock=clock, ids=SeededIds(number))
        for number in (1, 2)
    )
    first = here.admit(ACME, {"tokens": 90})
    clock.advance(seconds=300)
    receipt = there.settle(first.reservation, {"tokens": 10})
    assert (receipt.reason, receipt.levels[0].state().remaining) == ("corrected rolls", 90)
    second = here.admit(ACME, {"tokens": 90})
    assert second.limits["rolls"].remaining == 0
    clock.advance(seconds=309)
    assert (left(there)["rolls"], there.peek(ACME, {"tokens": 10}).retry_after_ns) == (0, 10**9)
    clock.advance(seconds=1)
    assert left(there)["rolls"] == 10
    assert there.settle(second.reservation, {"tokens": 95}).levels[0].state().remaining == 5
    clock.advance(seconds=700)
    third = there.admit(ACME, {"tokens": 1})
    assert third.limits["rolls"].remaining == 99
    assert here.settle(second.reservation, {"tokens": 0}).status == "not_held"


def test_a_cancelled_request_of_a_rolling_quota_has_charged_nothing(place):
    """Its answer came when nobody waited: it is taken out of the slice that it went to."""
    clock = ManualClock(MORNING)
    store = place(clock)
    requests = LimitSettings(id="requests", lever="quota", amount=5, per="minute", rolling=10)
    limiter = Limiter(policy_from_settings([requests]), store=store, clock=clock)

    async def main():
        await limiter.admit_async(ACME)
        driver = store._here()
        exchange = driver._exchange

        async def cancelled(node, connection, groups):
            clock.advance(seconds=10)  # the next slice has begun when it is undone
            task.cancel()
            await exchange(node, connection, groups)
            driver._exchange = exchange

        driver._exchange = cancelled
        task = asyncio.create_task(limiter.admit_async(ACME))
        await asyncio.gather(task, return_exceptions=True)
        await store.aclose()
        return task.cancelled()

    assert asyncio.run(main())
    assert left(limiter) == {"requests": 4}


def test_memory_and_redis_cut_a_window_alike(limiter_of):
    """A day has 60 slices, and a unit counts until its own has left: 60 s after its first moment for 87,780 s more."""
    clock = ManualClock("2026-01-05T00:00:00Z")
    day = LimitSettings(id="day", lever="quota", amount=100, per="day", rolling=1, unit="tokens")
    gate = limiter_of(day, LimitSettings(id="rate", lever="rate", amount=50), clock=clock)
    assert gate.admit(ACME, {"tokens": 100}).limits["day"].remaining == 0
    clock.advance(seconds=60)
    refused = gate.admit(ACME, {"tokens": 1})
    assert refused.reason == (
        "day for tenant acme: 0 of 100 tokens in the last 1 days left, 1 asked, admissible in 87780 s"
    )
    assert gate.admit(ACME, {"tokens": 101}).status == "never_admissible"
    clock.advance(seconds=87_779)
    assert not gate.admit(ACME, {"tokens": 1}).allowed
    clock.advance(seconds=1)
    assert gate.admit(ACME, {"tokens": 1}).allowed
    assert rolling.SLICES == 60  # count.lua knows it too
