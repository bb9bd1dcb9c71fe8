"""The store in Redis as its users see it: URLs, slots of a Cluster, Sentinels, shared pipelines, permits."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.errors import ConfigError
from opsloop.rate_limit import Context, Limiter, RateLimitMiddleware, RedisStore, policy_from_settings
from opsloop.rate_limit.decision import Demand, Request
from opsloop.rate_limit.redis_keys import Keys
from opsloop.rate_limit.redis_url import Address, address
from opsloop.settings import DEFAULT_LIMITS, LimitSettings
from tests.rate_limit.conftest import MORNING
from tests.rate_limit.redis_server import binary, free_port, wait_for

ACME = Context(organisation="acme-org", tenant="acme", key="k1")
TREE = [
    LimitSettings(id="org", lever="rate", amount=100, unit="tokens", per="hour", scope=("organisation",)),
    LimitSettings(id="tenant", lever="quota", amount=100, unit="tokens", per="day", scope=("organisation", "tenant")),
    LimitSettings(id="key", lever="concurrency", amount=2, scope=("organisation", "tenant", "key")),
]
EVERYTHING = {"requests": 10**9, "tokens": 10**9}


def left(limiter, context=ACME):
    """What is left of every limit."""
    return {name: state.remaining for name, state in limiter.peek(context, EVERYTHING).limits.items()}


def test_a_url_says_where_redis_is():
    """One server, Sentinels and a Cluster, with and without TLS, ports and credentials."""
    assert address("redis://127.0.0.1:7000/3").database == 3
    assert address("rediss+sentinel://me:p%40ss@one,two:1/limits/2") == Address(
        kind="sentinel",
        url="rediss+sentinel://me:p%40ss@one,two:1/limits/2",
        nodes=(("one", 26379), ("two", 1)),
        name="limits",
        database=2,
        tls=True,
        username="me",
        password="p@ss",
    )
    assert address("redis+cluster://[::1]:7000").nodes == (("::1", 7000),)
    assert "p@ss" not in repr(address("redis+cluster://me:p@ss@one"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost", "http is no kind of Redis"),
        ("localhost:6379", "localhost is no kind of Redis"),
        ("redis://", "names no host"),
        ("redis://localhost/zero", "is no number"),
        ("redis+sentinel://localhost", "which master"),
        ("redis+cluster://localhost/1", "no numbered databases"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_write(url, message):
    """It says what is wrong and shows a right one."""
    with pytest.raises(ConfigError, match=message):
        RedisStore.from_url(url)


def test_without_the_redis_package_it_says_what_to_install(monkeypatch):
    """The package is an extra."""
    monkeypatch.setitem(sys.modules, "opsloop.rate_limit.redis_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'opsloop\[redis\]'"):
        RedisStore.from_url("redis://localhost")


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), min_size=2, max_size=2, unique=True))
def test_different_callers_have_different_keys(pairs):
    """Whatever their names are made of."""
    policy = policy_from_settings([LimitSettings(id="rate", lever="rate", amount=1, scope=("tenant", "key"))])
    keys = Keys()
    contexts = [Context(tenant=tenant, key=key) for tenant, key in pairs]
    found = {keys.of(demand.limit, demand.key) for each in contexts for demand in policy.demands(each, {}, 0)}
    assert len(found) == 2
    assert all(key.count(b"{") == 1 == key.count(b"}") for key in found)


def test_a_tree_of_limits_lies_in_one_slot_and_trees_lie_apart(redis_store, redis_cluster):
    """Organisation, tenant and key of one organisation are decided together; organisations spread over the nodes."""
    store = redis_store(url=redis_cluster.url, prefix="tree")
    gate = Limiter(policy_from_settings(TREE), store=store, ids=SeededIds(1))
    for number in range(12):
        who = Context(organisation=f"org-{number}", tenant="acme", key="k1")
        held = [gate.admit(who, {"tokens": 40}) for _ in range(3)]
        assert [each.allowed for each in held] == [True, True, False]
        assert [violation.limit for violation in held[2].violated] == ["org", "tenant", "key"]
        assert gate.settle(held[0].reservation, {"tokens": 10}).status == "settled"
        assert left(gate, who) == {"org": 50, "tenant": 50, "key": 1}
    counts = [sum(1 for _ in node.admin.scan_iter("tree:*")) for node in redis_cluster.nodes]
    assert all(counts)
    assert sum(counts) == 12 * 4


def test_a_quota_lives_an_hour_beyond_its_period_however_often_it_is_charged(redis_store, redis_server):
    """Its first request sets its life, those that follow add to it, and a settlement keeps it too."""
    store = redis_store(prefix="life")
    gate = Limiter(policy_from_settings(TREE), store=store)
    lives = []
    for _ in range(2):
        held = gate.admit(ACME, {"tokens": 10})
        (key,) = redis_server.admin.scan_iter("life:*tenant@*")
        ends = held.now_ns // 10**6 + held.levels[1].resets_in_ns // 10**6
        lives.append(redis_server.admin.pttl(key) + held.now_ns // 10**6 - ends)
        gate.settle(held.reservation, {"tokens": 20})
    assert redis_server.admin.get(key) == b"40"
    assert all(abs(life - 3_600_000) < 5000 for life in lives)


def test_any_process_can_settle_what_another_admitted(redis_store, redis_cluster):
    """With nothing but the reservation's id, which on a Cluster names its slot."""
    for options in ({}, {"url": redis_cluster.url}):
        stores = [redis_store(prefix="elsewhere", **options) for _ in range(2)]
        here, there = (
            Limiter(policy_from_settings(limits), store=store) for store, limits in zip(stores, (TREE, ()), strict=True)
        )
        held = here.admit(ACME, {"tokens": 40}, reservation="mine")
        assert held.reservation == ("mine@organisation=acme-org" if options else "mine")
        assert there.renew(held.reservation).status == "renewed"
        receipt = there.settle(held.reservation, {"tokens": 90})
        assert (receipt.status, receipt.request.estimate) == ("settled", {"tokens": 40})
        assert {level.limit.id: level.state().remaining for level in receipt.levels} == {"org": 10, "tenant": 10}
        assert here.settle("mine", {"tokens": 0}).status == "not_held"
        assert left(here) == {"org": 10, "tenant": 10, "key": 2}


def test_limits_that_lie_in_different_slots_are_refused_at_load(redis_store, redis_cluster):
    """On a Cluster only; a common root, one slot for all, or permits for the odd one are the ways out."""
    policy = policy_from_settings(DEFAULT_LIMITS)
    Limiter(policy, store=redis_store())
    with pytest.raises(ConfigError, match="'tenant-requests' by tenant, 'service-slots' by nothing"):
        Limiter(policy, store=redis_store(url=redis_cluster.url))
    with pytest.raises(ConfigError, match="limit 'service-slots' is not counted by tenant"):
        Limiter(policy, store=redis_store(url=redis_cluster.url, root="tenant"))
    with pytest.raises(ConfigError, match="root 'team' is no part of a request"):
        redis_store(root="team")
    assert Limiter(policy, store=redis_store(url=redis_cluster.url, root="")).admit(ACME).allowed


def test_the_same_key_twice_in_a_request_is_summed(redis_store):
    """Two demands on one bucket are one of both costs: neither overlooked nor lost."""
    policy = policy_from_settings([LimitSettings(id="rate", lever="rate", amount=10, per="hour")])
    store = redis_store(server_clock=ManualClock(MORNING))
    (demand,) = policy.demands(ACME, {"requests": 3}, 0)

    def admit(cost):
        return store.admit(Request(ACME, {}, (demand, Demand(demand.limit, demand.key, cost)), 0))

    assert (admit(8).status, admit(5).allowed, admit(0).allowed) == ("never_admissible", True, False)
    assert [state.remaining for state in admit(0).limits.values()] == [2]


def test_lowered_slots_wait_for_as_many_ends_as_it_takes(redis_store):
    """Three are held and one is allowed now: the wait is to the end of the last of them."""
    clock = ManualClock(MORNING)
    store = redis_store(server_clock=clock)
    before, after = (
        Limiter(policy_from_settings([LimitSettings(id="slots", lever="concurrency", amount=amount)]), store=store)
        for amount in (3, 1)
    )
    for _ in range(3):
        assert before.admit(ACME).allowed
        clock.advance(seconds=1)
    assert after.admit(ACME).retry_after_seconds == 29.0


def test_a_period_that_is_over_on_the_server_is_named_anew(redis_store):
    """The client's midnight comes late or early; the server's counts, and the reservation carries it."""
    server = ManualClock("2026-01-06T00:00:01Z")
    limit = LimitSettings(id="day", lever="quota", amount=5, per="day", unit="tokens")
    for client in ("2026-01-05T23:59:59Z", "2026-01-07T00:00:01Z"):
        gate = Limiter(policy_from_settings([limit]), store=redis_store(server_clock=server), clock=ManualClock(client))
        held = gate.admit(ACME, {"tokens": 5})
        assert held.limits["day"].reset_seconds == 86_399
        assert gate.admit(ACME, {"tokens": 1}).retry_after_seconds == 86_399
        assert gate.settle(held.reservation, {"tokens": 4}).status == "settled"
        assert left(gate) == {"day": 1}


def test_concurrent_calls_share_script_calls(redis_store):
    """Sixty-four tasks need two script calls together, and every one gets its own answer."""
    limits = [LimitSettings(id="rate", lever="rate", amount=1000, unit="tokens")]
    store = redis_store(server_clock=ManualClock(MORNING))
    gate = Limiter(policy_from_settings(limits), store=store)
    gate.peek(ACME)  # so that the server knows the script

    async def main():
        driver = store._here()
        exchange, trips = driver._exchange, []

        async def counted(node, connection, groups):
            trips.append([len(group) for group in groups])
            await exchange(node, connection, groups)

        driver._exchange = counted
        decisions = await asyncio.gather(
            *(gate.admit_async(Context(tenant=f"t{number % 8}"), {"tokens": number}) for number in range(64))
        )
        await store.aclose()
        return decisions, trips

    decisions, trips = asyncio.run(main())
    assert trips == [[32], [32]]
    assert [each.request.estimate["tokens"] for each in decisions] == list(range(64))
    assert {each.context.tenant for each in (decision.request for decision in decisions[8:16])} == {
        f"t{number}" for number in range(8)
    }
    assert left(gate, Context(tenant="t0")) == {"rate": 1000 - sum(range(0, 64, 8))}


def test_one_store_serves_threads_and_several_loops(redis_store):
    """Connections belong to their loop; the limits are the same."""
    store = redis_store(server_clock=ManualClock(MORNING))
    gate = Limiter(policy_from_settings(TREE), store=store)

    async def main():
        held = await gate.admit_async(ACME, {"tokens": 10})
        assert (await gate.renew_async(held.reservation)).status == "renewed"
        assert (await gate.peek_async(ACME, {"tokens": 91})).allowed is False
        await gate.release_async(held.reservation)
        await store.aclose()

    for _ in range(2):
        asyncio.run(main())
    assert left(gate) == {"org": 80, "tenant": 80, "key": 2}


def test_the_middleware_waits_for_redis_without_blocking_the_loop(redis_store):
    """Its slot is taken and given back through the asynchronous store."""
    store = redis_store(server_clock=ManualClock(MORNING))
    gate = Limiter(policy_from_settings([LimitSettings(id="slots", lever="concurrency", amount=1)]), store=store)
    sent = []

    async def app(scope, receive, send):
        assert not scope["opsloop.decision"].request.demands[0].limit.shared
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/outer":
            await guarded({"type": "http", "path": "/inner"}, receive, send)

    async def send(message):
        sent.append(message.get("status"))

    async def main():
        for path in ("/outer", "/again"):
            await guarded({"type": "http", "path": path}, None, send)
        await store.aclose()

    guarded = RateLimitMiddleware(app, gate, context=lambda _: ACME)
    asyncio.run(main())
    assert [status for status in sent if status] == [200, 429, 200]


def test_sentinels_say_where_the_master_is(redis_server, tmp_path):
    """A store on their URL works on the master that they watch, from threads and from a loop."""
    if binary() is None:
        pytest.skip("no redis-server")
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor limits 127.0.0.1 {redis_server.port} 1\n")
    process = subprocess.Popen([binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL, cwd=tmp_path)
    url = f"redis+sentinel://127.0.0.1:{port}/limits"
    store = RedisStore.from_url(url, prefix="sentinel", deadline_seconds=5.0, clock=ManualClock())
    gate = Limiter(policy_from_settings(TREE), store=store)

    async def main():
        decision = await gate.admit_async(ACME, {"tokens": 10})
        await store.aclose()
        return decision.degraded

    try:
        wait_for(lambda: _answers(url), what="the Sentinel")
        assert gate.admit(ACME, {"tokens": 10}).degraded == ""
        assert asyncio.run(main()) == ""
        assert left(gate) == {"org": 80, "tenant": 80, "key": 0}
    finally:
        store.close()
        process.kill()
        process.wait()


def _answers(url):
    policy = policy_from_settings([LimitSettings(id="ready", lever="rate", amount=10)])
    store = RedisStore.from_url(url, prefix="ready")
    try:
        return not Limiter(policy, store=store).peek(ACME).degraded
    finally:
        store.close()
