"""Redis decides exactly as the definition does: no request too many, none too few, on one server and on a Cluster."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from opsloop.clock import ManualClock, SeededIds, seeded
from opsloop.errors import ConfigError
from opsloop.rate_limit import Context, Limiter, MemoryStore, RedisStore, policy_from_settings
from opsloop.rate_limit.ticks import EXACT, ticks
from opsloop.settings import LimitSettings
from tests.rate_limit.oracle import RateOracle
from tests.rate_limit.test_machine import DAY_NS, LIMITS, START, LimiterMachine

ACME = Context(tenant="acme")
SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_MACHINES = itertools.count()


def rate(amount, per="minute", burst=None):
    """A rate in tokens."""
    return LimitSettings(id="rate", lever="rate", amount=amount, per=per, burst=burst, unit="tokens")


@pytest.mark.parametrize(
    ("amount", "per", "burst", "most"),
    [
        (54, "minute", 54, 3),
        (60, "minute", 10, 2),
        (450_000, "minute", 450_000, 8000),
        (7_000_000, "minute", 7_000_000, 120_000),
        (100, "second", 100, 5),
        (1000, "second", 100, 3),
        (999_999_937, "hour", 7_919, 100),
    ],
)
@pytest.mark.parametrize("place", ["redis", "cluster"])
def test_adversarial_arrivals_are_decided_exactly(request, redis_store, place, amount, per, burst, most):
    """Bursts, idle times and arrivals one tick before, at and after the legal moment: 0 over and 0 under."""
    clock = ManualClock(START)
    url = request.getfixturevalue(f"redis_{'server' if place == 'redis' else place}").url
    store = redis_store(url=url, server_clock=clock)
    limiter = Limiter(policy_from_settings([rate(amount, per, burst)]), store=store, clock=clock)
    tick = ticks(limiter.policy.limits[0]).tick_us * 1000
    oracle = RateOracle(amount, SECONDS[per] * 10**9, burst)
    random = seeded(f"{amount}/{burst}/{place}")
    over = under = 0
    for _ in range(150 if place == "redis" else 60):
        cost = random.randint(1, most)
        legal = oracle.legal(cost, clock.monotonic_ns())
        decision = limiter.admit(ACME, {"tokens": cost})
        over += decision.allowed and not legal
        under += legal and not decision.allowed
        if decision.allowed:
            oracle.record(cost, clock.monotonic_ns())
            step = random.choice((0, 0, 0, 1, 1000)) * tick
        else:
            step = max(0, decision.retry_after_ns + random.choice((-1, 0, 0, 1)) * tick)
        clock.advance(ns=step if random.random() < 0.98 else 10**12)
    assert (over, under) == (0, 0)


class RedisMachine(LimiterMachine):
    """The same machine on a server with a clock of its own, which counts in microseconds and never jumps."""

    url = ""
    options = {}  # noqa: RUF012 - set by the test, for every example alike

    def make_limiter(self):
        """A limiter over an empty part of the server."""
        self.server_clock = ManualClock(START)
        store = RedisStore.from_url(
            self.url,
            prefix=f"m{next(_MACHINES)}",
            server_clock=self.server_clock,
            deadline_seconds=5.0,
            **self.options,
        )
        self.store = store
        return Limiter(policy_from_settings(LIMITS), store=store, clock=self.clock, ids=SeededIds(1))

    def day(self):
        """The server says which day it is, whatever the client believes."""
        return self.server_clock.now_ns() // DAY_NS

    @rule(seconds=st.sampled_from([0.000001, 0.5, 1.1111, 8.571429, 29.999999, 30, 60, 4000]))
    def advance(self, seconds):
        """Time goes on, for both."""
        self.clock.advance(seconds=seconds)
        self.server_clock.advance(seconds=seconds)

    def teardown(self):
        """Give the connection back."""
        self.store.close()


MACHINE = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))


def test_any_sequence_of_events_agrees_with_the_model_on_redis(redis_server):
    """Admit, settle, renew, release, crash, repeat, advance and wrong client clocks, against fractions."""
    kind = type("OnRedis", (RedisMachine,), {"url": redis_server.url})
    run_state_machine_as_test(kind, settings=MACHINE)


def test_any_sequence_of_events_agrees_with_the_model_on_a_cluster(redis_cluster):
    """The same, with everything in one slot of three nodes."""
    kind = type("OnCluster", (RedisMachine,), {"url": redis_cluster.url, "options": {"root": ""}})
    run_state_machine_as_test(kind, settings=settings(MACHINE, max_examples=8))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 10**6),
    st.sampled_from(["second", "minute", "hour"]),
    st.integers(1, 10**6),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9), st.integers(0, 10**6)), min_size=1, max_size=8),
)
def test_redis_and_memory_answer_alike(redis_store, amount, per, burst, arrivals):
    """Status, levels, waits and corrections of any rate are equal on the same times, to the last sub-unit."""
    limits = [rate(amount, per, burst), LimitSettings(id="day", lever="quota", amount=10**6, per="day", unit="tokens")]
    policy = policy_from_settings(limits)
    try:
        tick_us = ticks(policy.limits[0]).tick_us
    except ConfigError:
        return
    clock = ManualClock(START)
    stores = [MemoryStore(clock=clock), redis_store(server_clock=clock)]
    limiters = [Limiter(policy, store=store, clock=clock, ids=SeededIds(1)) for store in stores]
    for cost, wait_us, actual in arrivals:
        ours, theirs = (limiter.admit(ACME, {"tokens": cost}) for limiter in limiters)
        assert (theirs.status, theirs.limits) == (ours.status, ours.limits)
        for mine, other in zip(ours.waits, theirs.waits, strict=True):
            assert (mine is None) == (other is None)
            if mine is not None:  # a tick is the finest moment there is to come back at
                assert 0 <= other - mine < tick_us * 1000
        if ours.allowed:
            ours, theirs = (limiter.settle(ours.reservation, {"tokens": actual}) for limiter in limiters)
            assert [level.state() for level in theirs.levels] == [level.state() for level in ours.levels]
        clock.advance(ns=-(-wait_us // tick_us) * tick_us * 1000)
    stores[1].close()


RATES = st.tuples(st.integers(1, 10**6), st.sampled_from(["second", "minute", "hour"]), st.integers(1, 10**6))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(RATES, st.integers(1, 10**6), st.integers(0, 10**7)), min_size=2, max_size=6))
def test_a_rate_that_changes_takes_over_what_is_owed_in_units(redis_store, steps):
    """Whoever changes it, a process or a deployment: against fractions, to a sub-unit for each change, never less."""
    clock = ManualClock(START)
    store = redis_store(server_clock=clock, clock=clock)
    owed, grain, before = Fraction(0), Fraction(0), Fraction(0)
    then = clock.monotonic_ns()
    for (amount, per, burst), cost, wait_ms in steps:
        policy = policy_from_settings([rate(amount, per, burst)])
        try:
            grain += Fraction(1, ticks(policy.limits[0]).weight)
        except ConfigError:
            continue
        owed = max(Fraction(0), owed - before * (clock.monotonic_ns() - then))
        before, then = Fraction(amount, SECONDS[per] * 10**9), clock.monotonic_ns()
        decision = Limiter(policy, store=store, clock=clock).admit(ACME, {"tokens": cost})
        if decision.allowed:
            owed += cost
        left = decision.limits["rate"].remaining
        assert max(0, math.floor(burst - owed - grain)) <= left <= max(0, math.floor(burst - owed))
        clock.advance(ns=wait_ms * 10**6)
    store.close()


def test_what_doubles_cannot_count_is_coarsened_or_refused():
    """A prime number of tokens per hour is counted in milliseconds, one per week not at all; debts keep their room."""
    fine, coarse = (policy_from_settings([rate(amount, "hour")]).limits[0] for amount in (3600, 10_000_019))
    assert (ticks(fine).tick_us, ticks(coarse).tick_us) == (1, 1000)
    assert all(4 * ticks(limit).capacity < EXACT for limit in (fine, coarse))
    huge = policy_from_settings([rate(999_999_937, "week")])
    with pytest.raises(ConfigError, match="cannot count 999999937 tokens per week exactly; use a rounder amount"):
        Limiter(huge, store=RedisStore.from_url("redis://127.0.0.1:1"))
    quota = policy_from_settings([LimitSettings(id="q", lever="quota", amount=2**53, per="day", unit="tokens")])
    with pytest.raises(ConfigError, match="cannot count to 9007199254740992 exactly"):
        Limiter(quota, store=RedisStore.from_url("redis://127.0.0.1:1"))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, EXACT // 4), st.integers(1, EXACT // 4), st.integers(0, 2**40))
def test_divisions_of_doubles_never_cross_an_integer(debt, gain, elapsed):
    """Python's floats are Lua's: comparing with debt / gain and rounding it up is as exact as in the integers."""
    assert (elapsed >= debt / gain) == (elapsed * gain >= debt)
    assert -(-debt // gain) == math.ceil(debt / gain)
