"""A slot is given back whatever happens, and kept as long as its holder lives."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, RateLimitedError, policy_from_settings
from opsloop.rate_limit.heartbeat import Heartbeat
from opsloop.settings import LimitSettings

ACME = Context(tenant="acme")
TWO = LimitSettings(id="slots", lever="concurrency", amount=2)


@pytest.fixture
def limiter(clock):
    """Two slots."""
    return Limiter(policy_from_settings([TWO]), clock=clock, ids=SeededIds(1))


def free(limiter):
    """How many slots are free."""
    impossible = policy_from_settings([TWO, LimitSettings(id="never", lever="rate", amount=1, unit="tokens")])
    probe = Limiter(impossible, store=limiter._store, clock=limiter._clock)
    return probe.peek(ACME, {"tokens": 2}).limits["slots"].remaining


def test_a_slot_is_released_when_the_block_ends_or_fails(limiter):
    """Inside it is held, outside it is free, and the block's own error comes through."""
    with limiter.slot(ACME) as decision:
        assert (decision.allowed, free(limiter), len(limiter.heartbeat)) == (True, 1, 1)
    with pytest.raises(ZeroDivisionError), limiter.slot(ACME):
        raise ZeroDivisionError
    assert (free(limiter), len(limiter.heartbeat)) == (2, 0)


def test_a_refused_slot_raises_with_its_decision(limiter):
    """The error carries every reason and what to do."""
    with limiter.slot(ACME), limiter.slot(ACME), pytest.raises(RateLimitedError) as caught, limiter.slot(ACME):
        pass
    assert caught.value.decision.status_code == 429
    assert str(caught.value) == (
        "slots for tenant acme: all 2 slots are held, the next lease ends in 30 s; retry in 30.000 s"
    )
    assert free(limiter) == 2


@pytest.mark.parametrize("steps", range(5))
def test_a_cancellation_at_any_await_leaks_nothing(limiter, steps):
    """Cancelled before it starts, at its first await, at a later one, or twice: the slot is free again."""

    async def work():
        async with limiter.slot(ACME):
            for _ in range(3):
                await asyncio.sleep(0)

    async def main():
        task = asyncio.create_task(work())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert (free(limiter), len(limiter.heartbeat)) == (2, 0)


def test_the_asynchronous_calls_are_the_same_calls(limiter):
    """Admit, renew, settle and release may be awaited."""

    async def main():
        decision = await limiter.admit_async(ACME)
        return [
            (await limiter.renew_async(decision.reservation)).status,
            (await limiter.release_async(decision.reservation)).status,
            (await limiter.settle_async((await limiter.admit_async(ACME)).reservation, {})).status,
        ]

    assert asyncio.run(main()) == ["renewed", "released", "settled"]
    assert free(limiter) == 2


def test_a_decorated_function_takes_a_slot_per_call(limiter):
    """Plain and asynchronous functions, with a context that follows from their arguments."""
    seen = []

    @limiter.limited(lambda tenant: Context(tenant=tenant))
    def plain(tenant):
        seen.append(free(limiter))
        return tenant.upper()

    @limiter.limited(ACME)
    async def later():
        await asyncio.sleep(0)
        seen.append(free(limiter))
        return "done"

    assert (plain("acme"), asyncio.run(later()), seen) == ("ACME", "done", [1, 1])
    assert plain.__name__ == "plain"
    with limiter.slot(ACME), limiter.slot(ACME), pytest.raises(RateLimitedError):
        plain("acme")


def test_a_heartbeat_keeps_a_long_request_its_slot(limiter, clock):
    """A request longer than its lease keeps its slot as long as it is renewed, and loses it when it is not."""
    with limiter.slot(ACME):
        for _ in range(10):
            clock.advance(seconds=20)
            assert limiter.heartbeat.beat() == 1
        assert free(limiter) == 1
        clock.advance(seconds=30)
        assert free(limiter) == 2
        assert (limiter.heartbeat.beat(), len(limiter.heartbeat)) == (0, 0)


def test_the_heartbeat_beats_by_itself_and_ends_when_there_is_nothing_to_keep():
    """Its thread renews again and again, drops what is refused, and ends when nothing is left."""
    before = set(threading.enumerate())
    beaten = threading.Event()
    renewals = []

    def renew(reservations):
        renewals.extend(reservations)
        if len(renewals) == 10:
            beaten.set()
        return [len(renewals) < 10]

    heartbeat = Heartbeat(renew)
    heartbeat.start("r1", every_seconds=0.002)
    assert beaten.wait(30)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
    assert (renewals, len(heartbeat)) == (["r1"] * 10, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_ends_one_thread_of_the_heartbeat_and_not_the_heartbeat():
    """What a renewal raises unforeseen is seen; whatever is started next is renewed by a new thread."""
    before = set(threading.enumerate())
    ended, beaten = threading.Event(), threading.Event()

    def renew(reservations):
        if not ended.is_set():
            ended.set()
            raise ZeroDivisionError("a fault")
        beaten.set()
        return [False] * len(reservations)

    heartbeat = Heartbeat(renew)
    heartbeat.start("r1", every_seconds=0.002)
    assert ended.wait(30)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    heartbeat.start("r2", every_seconds=0.002)
    assert beaten.wait(30)


def test_sixteen_threads_never_exceed_a_limit():
    """On a clock that stands still, of 1600 racing calls exactly as many are admitted as every limit allows."""
    limits = [
        LimitSettings(id="rate", lever="rate", amount=700, per="hour", scope=()),
        LimitSettings(id="daily", lever="quota", amount=600, per="day"),
        LimitSettings(id="slots", lever="concurrency", amount=550),
    ]
    limiter = Limiter(policy_from_settings(limits), clock=ManualClock("2026-01-05T09:00:00Z"), ids=SeededIds(1))
    admitted = [0] * 16
    start = threading.Barrier(16)

    def run(number):
        start.wait()
        for _ in range(100):
            admitted[number] += limiter.admit(ACME).allowed

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(admitted) == 550
    after = limiter.peek(ACME, {"requests": 10**9}).limits
    assert {name: state.remaining for name, state in after.items()} == {"rate": 150, "daily": 50, "slots": 0}
