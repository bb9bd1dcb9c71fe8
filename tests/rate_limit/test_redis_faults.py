"""What happens to limits when Redis is slow, forgetful, gone or back, and when clients die or are cancelled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, policy_from_settings, problem
from opsloop.settings import LimitSettings
from opsloop.stream import MemoryStream
from tests.rate_limit.conftest import MORNING
from tests.rate_limit.oracle import RateOracle
from tests.rate_limit.redis_server import Server, wait_for

ACME = Context(tenant="acme")
EVERYTHING = {"requests": 10**9, "tokens": 10**9}


def rate(name="rate", **table):
    """A rate."""
    return LimitSettings(id=name, lever="rate", **table)


def slots(name="slots", **table):
    """A number of slots."""
    return LimitSettings(id=name, lever="concurrency", **table)


@pytest.fixture
def server(redis_server, tmp_path):
    """A server that a test may ill-treat."""
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def limiter_on(redis_store, server, clock):
    """A function that makes a limiter on the server of this test, with a breaker on a clock that stands still."""

    def make(*limits, **options):
        store = redis_store(url=server.url, clock=clock, **{"deadline_seconds": 0.05, **options})
        return Limiter(policy_from_settings(limits), store=store, ids=SeededIds(1), sink=options.get("sink"))

    return make


def left(limiter):
    """What is left of every limit."""
    return {name: state.remaining for name, state in limiter.peek(ACME, EVERYTHING).limits.items()}


CLIENT = """
import sys, threading, time
from opsloop.rate_limit import Context, Limiter, RedisStore, policy_from_settings
from opsloop.settings import LimitSettings

url, prefix, kind = sys.argv[1:]
store = RedisStore.from_url(url, prefix=prefix, deadline_seconds=5.0)
acme = Context(tenant="acme")
if kind == "rate":
    rate = LimitSettings(id="rate", lever="rate", amount=50, per="second")
    limiter = Limiter(policy_from_settings([rate]), store=store)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        decision = limiter.admit(acme)
        if decision.allowed:
            print(decision.now_ns)
        threading.Event().wait(0.002)
else:
    slots = LimitSettings(id="slots", lever="concurrency", amount=3, lease_seconds=0.6)
    limiter = Limiter(policy_from_settings([slots]), store=store)
    with limiter.slot(acme):
        print("held", flush=True)
        threading.Event().wait(60)
"""


def client(url, prefix, kind):
    """Start another process that shares the limits."""
    return subprocess.Popen([sys.executable, "-c", CLIENT, url, prefix, kind], stdout=subprocess.PIPE, text=True)


def test_four_processes_never_exceed_what_one_may(redis_server):
    """At 50 per second and a burst of 50, three seconds of four processes hold to the definition at every moment."""
    processes = [client(redis_server.url, "four", "rate") for _ in range(4)]
    times = sorted(int(line) for process in processes for line in process.communicate()[0].split())
    oracle = RateOracle(50, 10**9, 50)
    for moment in times:
        assert oracle.legal(1, moment)
        oracle.record(1, moment)
    seconds = (times[-1] - times[0]) / 10**9
    assert 0.9 * (50 + 50 * seconds) <= len(times) <= 50 + 50 * seconds


def test_a_killed_holder_frees_its_slot_one_lease_later(redis_server, redis_store):
    """Alive it keeps the slot beyond its lease by its heartbeat; after kill -9 the slot is free within a lease."""
    policy = policy_from_settings([slots(amount=3, lease_seconds=0.6), rate(amount=1000)])
    limiter = Limiter(policy, store=redis_store(prefix="killed"))
    holders = [client(redis_server.url, "killed", "slots") for _ in range(3)]
    for holder in holders:
        assert holder.stdout.readline() == "held\n"
    began = time.monotonic()
    while time.monotonic() - began < 0.9:
        assert left(limiter)["slots"] == 0
    for holder in holders:
        holder.kill()
        holder.communicate()
    killed = time.monotonic()
    wait_for(lambda: left(limiter)["slots"] == 3, what="the slots")
    assert time.monotonic() - killed < 1.5


def in_turn(gates, calls, *, asynchronous):
    """Let the limiters admit one after the other, so many times each; return the decisions."""

    async def main():
        found = [await gate.admit_async(ACME) for _ in range(calls) for gate in gates]
        for gate in gates:
            await gate._store.aclose()
        return found

    return asyncio.run(main()) if asynchronous else [gate.admit(ACME) for _ in range(calls) for gate in gates]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_skewed_client_clocks_change_nothing(redis_store, asynchronous):
    """One client a day behind and one a day ahead share the bucket, the slots, the day and the hour of the server."""
    limits = [
        rate(amount=10, per="hour"),
        LimitSettings(id="day", lever="quota", amount=6, per="day"),
        LimitSettings(id="hour", lever="quota", amount=6, per="hour", rolling=1),
        slots(amount=6),
    ]
    behind, ahead = (ManualClock(time.time_ns() + days * 86_400 * 10**9) for days in (-1, 1))
    gates = [
        Limiter(policy_from_settings(limits), store=redis_store(prefix=f"skewed{asynchronous}"), clock=clock)
        for clock in (behind, ahead)
    ]
    decisions = in_turn(gates, 4, asynchronous=asynchronous)
    assert [decision.allowed for decision in decisions] == [True] * 6 + [False] * 2
    assert [violation.limit for violation in decisions[-1].violated] == ["day", "hour", "slots"]
    assert all(0 < decision.retry_after_seconds <= 86_400 for decision in decisions[-2:])


def test_a_server_clock_that_goes_back_repays_nothing_twice(redis_store):
    """It stands still until it has caught up, and the wait says so."""
    clock = ManualClock(MORNING)
    gate = Limiter(policy_from_settings([rate(amount=1, per="second", burst=2)]), store=redis_store(server_clock=clock))
    assert gate.admit(ACME).allowed
    clock.set_time("2026-01-05T08:59:50Z")
    assert gate.admit(ACME).allowed  # what was left is left
    assert gate.admit(ACME).retry_after_seconds == 11.0
    clock.set_time("2026-01-05T09:00:01Z")
    assert (gate.admit(ACME).allowed, gate.admit(ACME).allowed) == (True, False)


def test_nothing_is_kept_for_ever_and_nothing_is_dropped_too_soon(redis_store, redis_server):
    """Every key lives as long as it means something: a bucket until it is full, never 0 ms, never without end."""
    limits = [
        rate(amount=2, per="second", burst=3),
        rate("slow", amount=1, per="hour"),
        LimitSettings(id="day", lever="quota", amount=6, per="day", unit="tokens"),
        slots(amount=3),
    ]
    gate = Limiter(policy_from_settings(limits), store=redis_store(prefix="kept", server_clock=None))
    gate.admit(ACME, {"requests": 1, "tokens": 3})
    names = {key.split(b":")[2]: key for key in redis_server.admin.scan_iter("kept:*")}
    lives = {name.decode(): redis_server.admin.pttl(key) for name, key in names.items()}
    assert 1 < lives["rate@rate"] <= 501  # half a second to repay, and a millisecond to be sure
    assert 3_590_000 < lives["slow@rate"] <= 3_600_001
    assert 3_590_000 < lives["day@tokens@day/UTC"] <= 25 * 3_600_000
    assert 7_190_000 < lives["slots"] <= 7_200_000
    assert 3_590_000 < lives["reservation"] <= 3_600_000
    assert redis_server.admin.memory_usage(names[b"slow@rate"]) <= 160


def test_a_burst_below_half_a_second_of_rate_is_a_limit_in_real_time_too(redis_store):
    """A lifetime of 0 deleted throttled-py's bucket at once; here what gets through is legal at every moment."""
    limit = rate(amount=1000, per="second", burst=20)
    gate = Limiter(policy_from_settings([limit]), store=redis_store())
    oracle = RateOracle(1000, 10**9, 20)
    decisions = [gate.admit(ACME) for _ in range(300)]
    for moment in [decision.now_ns for decision in decisions if decision.allowed]:
        assert oracle.legal(1, moment)
        oracle.record(1, moment)


def test_a_script_that_the_server_forgot_is_told_again(redis_store, redis_server):
    """After SCRIPT FLUSH calls go on, alone and in shared pipelines."""
    gate = Limiter(policy_from_settings([rate(amount=100, unit="tokens")]), store=redis_store())
    redis_server.admin.script_flush()
    assert gate.admit(ACME, {"tokens": 1}).allowed

    async def main():
        redis_server.admin.script_flush()
        decisions = await asyncio.gather(*(gate.admit_async(ACME, {"tokens": 1}) for _ in range(20)))
        redis_server.admin.script_flush()
        receipts = await asyncio.gather(*(gate.settle_async(each.reservation, {"tokens": 0}) for each in decisions))
        await gate._store.aclose()
        return {each.status for each in receipts}

    assert asyncio.run(main()) == {"settled"}
    assert left(gate) == {"rate": 99}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_lost_everything_begins_anew(limiter_on, server, asynchronous):
    """After FLUSHALL limits are untouched, and what was held is not held any more."""
    rolls = LimitSettings(id="rolls", lever="quota", amount=2, per="hour", rolling=1)
    gate = limiter_on(rate(amount=2, unit="tokens"), rolls, slots(amount=2), deadline_seconds=5.0)
    held = in_turn([gate], 3, asynchronous=asynchronous)
    assert [each.allowed for each in held] == [True, True, False]
    server.admin.flushall()
    assert [gate.settle(each.reservation, {"tokens": 0}).status for each in held[:2]] == ["not_held"] * 2
    assert left(gate) == {"rate": 2, "rolls": 2, "slots": 2}
    assert [each.allowed for each in in_turn([gate], 3, asynchronous=asynchronous)] == [True, True, False]


def test_each_limit_says_what_happens_when_redis_does_not_answer(limiter_on, server, clock):
    """Closed refuses with 503, open admits, local counts a share; each decision says why, within the deadline."""
    limits = [
        rate("closed", amount=10, when={"route": "/closed"}),
        rate("open", amount=1, when={"route": "/open"}, on_store_failure="open"),
        rate("local", amount=6, per="hour", when={"route": "/local"}, on_store_failure="local"),
    ]
    sink = MemoryStream()
    gate = limiter_on(*limits, workers=3)
    gate._sink = sink
    server.admin.client_pause(20_000, all=False)
    began = time.monotonic()
    closed = gate.admit(Context(tenant="acme", route="/closed"))
    assert time.monotonic() - began < 2
    opened = [gate.admit(Context(tenant="acme", route="/open")) for _ in range(3)]
    local = [gate.admit(Context(tenant="acme", route="/local")) for _ in range(3)]
    assert (closed.allowed, closed.status_code, closed.retry_after_seconds) == (False, 503, 1.0)
    assert closed.degraded == f"<server 127.0.0.1:{server.port}> did not answer within 50 ms"
    assert closed.reason == f"closed for tenant acme: cannot be counted, {closed.degraded}"
    assert problem(closed)["title"] == "Limits cannot be checked"
    assert [each.allowed for each in opened] == [True] * 3
    assert [(each.allowed, each.status_code) for each in local] == [(True, 200), (True, 200), (False, 429)]
    told = [event.attributes["degraded"] for event in sink.query()]
    assert told[:3] == [closed.degraded] * 3
    assert set(told[3:]) == {f"<server 127.0.0.1:{server.port}> failed again and again and is not asked for a moment"}
    assert [event.severity for event in sink.query()] == ["WARN"] * 7
    server.admin.client_unpause()
    clock.advance(seconds=1)
    assert gate.admit(Context(tenant="acme", route="/closed")).degraded == ""
    assert gate.admit(Context(tenant="acme", route="/open")).status == "allowed"


def test_a_breaker_that_is_open_asks_nobody(limiter_on, server, clock):
    """After three failures decisions cost no wait at all; one call a second finds out whether Redis is back."""
    gate = limiter_on(rate(amount=100, on_store_failure="open"))
    server.stop()
    assert [bool(gate.admit(ACME).degraded) for _ in range(50)] == [True] * 50
    server.start()
    assert gate.admit(ACME).degraded.endswith("is not asked for a moment")
    clock.advance(seconds=1)
    assert gate.admit(ACME).degraded == ""


def test_ends_of_requests_survive_an_outage(limiter_on, server, clock):
    """Settle and release are kept while Redis hangs, and told when it answers: once."""
    gate = limiter_on(rate(amount=100, unit="tokens", per="hour"), slots(amount=2))
    one, two = (gate.admit(ACME, {"tokens": 40}).reservation for _ in range(2))
    server.admin.client_pause(20_000, all=False)
    assert gate.settle(one, {"tokens": 10}).status == "deferred"
    assert gate.settle(one, {"tokens": 10}).status == "deferred"
    assert gate.release(two).status == "deferred"
    server.admin.client_unpause()
    clock.advance(seconds=1)
    assert left(gate) == {"rate": 50, "slots": 2}


def test_a_refusal_for_want_of_an_answer_is_taken_back(limiter_on, server, clock):
    """A call that was cut off may have been carried out: what it charged is given back when Redis answers."""
    gate = limiter_on(rate(amount=100, unit="tokens", per="hour"), slots(amount=2))
    gate.admit(ACME, {"tokens": 1})
    server.admin.client_pause(20_000, all=False)
    assert gate.admit(ACME, {"tokens": 40}).status_code == 503
    server.admin.client_unpause()
    clock.advance(seconds=1)
    assert left(gate) == {"rate": 99, "slots": 1}


def test_a_restart_in_the_middle_of_traffic_is_survived(limiter_on, server, clock):
    """Before, during and after, on threads and on a loop: nothing is raised, and it recovers by itself."""
    gate = limiter_on(rate(amount=1000, unit="tokens"), slots(amount=100), deadline_seconds=1.0)

    async def traffic():
        decisions = await asyncio.gather(*(gate.admit_async(ACME, {"tokens": 1}) for _ in range(8)))
        for decision in decisions:
            await gate.release_async(decision.reservation)
        return {decision.status_code for decision in decisions}, gate.admit(ACME).status_code

    async def main():
        seen = [await traffic()]
        await asyncio.to_thread(server.stop)
        seen.append(await traffic())
        await asyncio.to_thread(server.start)
        clock.advance(seconds=1)
        await gate.admit_async(ACME)
        seen.append(await traffic())
        await gate._store.aclose()
        return seen

    assert asyncio.run(main()) == [({200}, 200), ({503}, 503), ({200}, 200)]


@pytest.mark.parametrize(("place", "pause"), [("redis_server", 0), ("redis_server", 2e-5), ("redis_cluster", 1e-4)])
def test_a_cancellation_at_any_await_leaks_nothing(request, redis_store, place, pause):
    """Cancelled k steps in, for every k until the work is done: slots, tokens and requests are all given back."""
    clock = ManualClock(MORNING)
    limits = [rate(amount=1000), rate("tokens", amount=1000, unit="tokens"), slots(amount=20)]
    store = redis_store(url=request.getfixturevalue(place).url, root="", server_clock=clock)
    gate = Limiter(policy_from_settings(limits), store=store)
    entered = settled = 0

    async def work():
        nonlocal entered, settled
        async with gate.slot(ACME, {"tokens": 30}) as decision:
            entered += 1
            await asyncio.sleep(0)
            await gate.settle_async(decision.reservation, {"tokens": 0})
            settled += 1

    async def cancelled(steps):
        task = asyncio.create_task(work())
        for _ in range(steps):
            await asyncio.sleep(pause)
            if task.done():
                break
        finished = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return finished

    async def main():
        await gate.admit_async(Context(tenant="other"))
        tries = 0
        while not await cancelled(tries):
            tries += 1
        await store.aclose()
        return tries

    tries = asyncio.run(main())
    assert 1 <= settled <= entered <= tries
    after = left(gate)
    assert (after["slots"], after["rate"]) == (20, 1000 - entered)
    assert after["tokens"] in {1000 - 30 * each for each in range(entered - settled + 1)}
