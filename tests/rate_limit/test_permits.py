"""Permits spare round trips, keep the long-run rate exact, and admit at most a chunk per worker more."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.errors import ConfigError
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import LimitSettings
from tests.rate_limit.conftest import MORNING
from tests.rate_limit.oracle import RateOracle

ACME = Context(tenant="acme", model="large")
HOT = LimitSettings(id="hot", lever="rate", amount=100, per="second", scope=("model",))
TOKENS = LimitSettings(id="hot", lever="rate", amount=1000, per="hour", scope=("model",), unit="tokens")
SLOTS = LimitSettings(id="slots", lever="concurrency", amount=2)


def limiter(store, clock, *limits):
    """A limiter on a clock that stands still, which is the server's too."""
    return Limiter(policy_from_settings(limits), store=store, clock=clock, ids=SeededIds(1))


def counted(store):
    """Count the calls that go to Redis."""
    call, calls = store._driver._call, []

    def counting(script, until_ns):
        calls.append(script.name)
        return call(script, until_ns)

    store._driver._call = counting
    return calls


def test_a_chunk_serves_many_requests(redis_store):
    """Of 100 requests five go to Redis, and together they are admitted exactly as often as the bucket allows."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock, clock=clock, permits={"hot": 20})
    gate, calls = limiter(store, clock, HOT), counted(store)
    assert [gate.admit(ACME).allowed for _ in range(100)] == [True] * 100
    assert len(calls) == 5
    refused = gate.admit(ACME)
    assert (refused.retry_after_ns, [violation.limit for violation in refused.violated]) == (10_000_000, ["hot"])
    assert len(calls) == 7  # no chunk is left, nor a single one


def test_near_the_limit_each_request_is_asked_for_alone(redis_store):
    """What is left after the last whole chunk is not lost."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock, clock=clock, permits={"hot": 30})
    gate = limiter(store, clock, HOT)
    assert sum(gate.admit(ACME).allowed for _ in range(150)) == 100


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 0, 1, 9, 10, 250, 700])), max_size=60))
def test_no_interval_sees_more_than_a_chunk_per_worker_too_many(redis_store, arrivals):
    """Two workers with chunks of 5: the definition holds with a bucket that is ten larger, whatever the arrivals."""
    clock = ManualClock(MORNING)
    prefix = f"permits-{next(PREFIX)}"
    stores = [
        redis_store(prefix=prefix, server_clock=clock, clock=clock, permits={"small": 5}, workers=2) for _ in range(2)
    ]
    small = LimitSettings(id="small", lever="rate", amount=10, per="second", scope=())
    gates = [limiter(store, clock, small) for store in stores]
    assert stores[0].over_admission("small") == 10
    oracle = RateOracle(10, 10**9, 10 + 10)
    for worker, milliseconds in arrivals:
        if gates[worker].admit(ACME).allowed:
            assert oracle.legal(1, clock.monotonic_ns())
            oracle.record(1, clock.monotonic_ns())
        clock.advance(ns=milliseconds * 10**6)
    for store in stores:
        store.close()


PREFIX = iter(range(10**9))


def test_a_chunk_dies_after_half_a_second(redis_store):
    """What was charged and not used is lost, never used later."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock, clock=clock, permits={"hot": 600})
    gate = limiter(store, clock, TOKENS)
    assert gate.admit(ACME, {"tokens": 1}).allowed
    clock.advance(seconds=0.5)
    assert [gate.admit(ACME, {"tokens": 200}).allowed for _ in range(3)] == [True, True, False]


def test_a_refused_request_puts_its_permits_back_and_hears_every_reason(redis_store):
    """The rest of the request is decided upon in Redis; both halves name what they refuse."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock, clock=clock, permits={"hot": 500})
    gate = limiter(store, clock, TOKENS, SLOTS)
    held = [gate.admit(ACME, {"tokens": 100}) for _ in range(2)]
    for _ in range(20):
        refused = gate.admit(ACME, {"tokens": 100})
        assert [violation.limit for violation in refused.violated] == ["slots"]
    gate.release(held[0].reservation)
    assert gate.admit(ACME, {"tokens": 300}).allowed
    both = gate.admit(ACME, {"tokens": 900})
    assert [violation.limit for violation in both.violated] == ["hot", "slots"]
    assert gate.admit(ACME, {"tokens": 1001}).status == "never_admissible"


def test_a_settlement_corrects_the_bucket_behind_the_permits(redis_store):
    """Once, and up or down."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock, clock=clock, permits={"hot": 100})
    gate = limiter(store, clock, TOKENS)
    one, two = (gate.admit(ACME, {"tokens": 50}).reservation for _ in range(2))
    assert gate.settle(one, {"tokens": 350}).status == "settled"
    assert gate.settle(two, {"tokens": 40}).status == "settled"
    assert gate.settle(two, {"tokens": 0}).status == "not_held"
    assert gate.peek(ACME, {"tokens": 10**6}).limits["hot"].remaining == 1000 - 100 - 300 + 10


def test_a_limit_of_another_slot_is_taken_as_permits(redis_store, redis_cluster):
    """On a Cluster a limit for all lies apart from the tenants' and is still kept, together with them."""
    clock = ManualClock(MORNING)
    store = redis_store(url=redis_cluster.url, server_clock=clock, clock=clock, permits={"hot": 20})
    gate = limiter(store, clock, HOT, SLOTS)
    held = [gate.admit(Context(tenant=f"t{number}", model="large")) for number in range(101)]
    assert [decision.allowed for decision in held] == [True] * 100 + [False]
    assert {gate.release(decision.reservation).status for decision in held[:100]} == {"released"}


def test_tasks_that_come_together_fetch_one_chunk(redis_store):
    """While it is under way the others ask for themselves, so that no more than a chunk is ever in stock."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock, clock=clock, permits={"hot": 100})
    gate = limiter(store, clock, TOKENS)

    async def main():
        await asyncio.gather(*(gate.admit_async(ACME, {"tokens": 1}) for _ in range(20)))
        await store.aclose()

    asyncio.run(main())
    assert gate.peek(ACME, {"tokens": 10**6}).limits["hot"].remaining == 1000 - 100 - 19


def test_a_cancelled_task_leaves_its_permits_to_the_next(redis_store):
    """Cancelled while the rest of its request is under way, it has used none."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock, clock=clock, permits={"hot": 1000})
    gate = limiter(store, clock, TOKENS, SLOTS)

    async def main():
        await gate.admit_async(ACME, {"tokens": 400})
        task = asyncio.create_task(gate.admit_async(ACME, {"tokens": 600}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = await gate.admit_async(ACME, {"tokens": 600})
        await store.aclose()
        return again.allowed

    assert asyncio.run(main())


@pytest.mark.parametrize(
    ("permits", "message"),
    [
        ({"slots": 1}, "permits for 'slots': a concurrency cannot be leased"),
        ({"hot": 101}, "a chunk of 101 does not fit its burst of 100"),
        ({"hot": 0}, "a chunk of 0 does not fit"),
    ],
)
def test_permits_that_cannot_be_are_refused(redis_store, permits, message):
    """Only rates are leased, in chunks that fit."""
    with pytest.raises(ConfigError, match=message):
        limiter(redis_store(permits=permits), ManualClock(MORNING), HOT, SLOTS)
