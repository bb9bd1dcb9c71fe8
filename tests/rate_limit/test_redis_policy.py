"""Shadow limits, other amounts per caller and waiting work over Redis."""

from __future__ import annotations

import asyncio

from opsloop.rate_limit import Context, Limiter, Waiting, policy_from_settings
from opsloop.settings import CeilingSettings, LimitSettings, OverrideSettings

ACME = Context(tenant="acme")
SLOT = LimitSettings(id="slot", lever="concurrency", amount=1)


def test_shadow_limits_are_counted_and_never_reject(redis_store):
    """The second would have been rejected; after the settlement of the first it would not."""
    shadow = LimitSettings(id="quiet", lever="concurrency", amount=1, shadow=True)
    limiter = Limiter(policy_from_settings([shadow]), store=redis_store(prefix="shadow"))
    first, said = limiter.attempt(ACME)
    assert (first.allowed, said.allowed) == (True, True)
    second, said = limiter.attempt(ACME)
    assert (second.allowed, [violation.limit for violation in said.violated]) == (True, ["quiet"])
    limiter.release(first.reservation)
    assert limiter.attempt(ACME)[1].allowed


def test_overrides_and_ceilings_hold(redis_store):
    """A listed tenant has two, everybody else three, of which batch work may fill one."""
    limit = LimitSettings(
        id="slots",
        lever="concurrency",
        amount=3,
        override=(OverrideSettings(when={"tenant": "acme"}, amount=2),),
        ceiling=(CeilingSettings(when={"priority": "batch"}, share=0.5),),
    )
    limiter = Limiter(policy_from_settings([limit]), store=redis_store(prefix="cases"))
    batch = Context(tenant="bolt", priority="batch")
    assert [limiter.admit(ACME).allowed for _ in range(3)] == [True, True, False]
    assert [limiter.admit(batch).allowed for _ in range(2)] == [True, False]
    assert [limiter.admit(Context(tenant="bolt")).allowed for _ in range(3)] == [True, True, False]


def test_tasks_wait_for_a_slot_that_another_process_gives_back(redis_store):
    """Two limiters over one Redis: what one releases, the other's waiter finds by trying again."""
    stores = [redis_store(prefix="wait"), redis_store(prefix="wait")]
    here, there = (Limiter(policy_from_settings([SLOT]), store=store) for store in stores)
    waiting = Waiting(here, poll_seconds=0.01)

    async def run():
        held = await there.admit_async(ACME)
        task = asyncio.create_task(waiting.admit_async(ACME, wait_seconds=10))
        await asyncio.sleep(0)
        await there.release_async(held.reservation)
        decision = await task
        assert decision.allowed
        await here.release_async(decision.reservation)
        for store in stores:
            await store.aclose()

    asyncio.run(run())
