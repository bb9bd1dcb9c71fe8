"""A master dies or steps down: admissions go on by policy, in time, and come back exact but for what was not copied."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.crc import key_slot

from opsloop.clock import ManualClock
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import LimitSettings
from tests.rate_limit.redis_server import Cluster, Sentinel, Server, wait_for

DEADLINE_SECONDS = 0.25
HOURLY = LimitSettings(id="closed", lever="rate", amount=3, per="hour", burst=20)
POLICIES = [
    LimitSettings(id="closed", lever="rate", amount=3, per="hour", burst=20, when={"route": "/closed"}),
    LimitSettings(
        id="open", lever="rate", amount=3, per="hour", burst=20, when={"route": "/open"}, on_store_failure="open"
    ),
    LimitSettings(
        id="local", lever="rate", amount=3, per="hour", burst=4, when={"route": "/local"}, on_store_failure="local"
    ),
]


@pytest.fixture(scope="module")
def cluster(redis_server, tmp_path_factory):
    """Masters with a replica each, which take over a second after their master is gone. One pair for each test."""
    made = Cluster(tmp_path_factory.mktemp("failover"), masters=4, replicas=True, node_timeout_ms=1000)
    made.unused = list(range(4))
    yield made
    made.stop()


@pytest.fixture
def pair(cluster):
    """(master, replica, a tenant whose limits lie there, a tenant whose limits lie elsewhere), once all is quiet."""
    cluster.settle()
    number = cluster.unused.pop()
    names = [f"t{each}" for each in range(99)]
    slots = [key_slot(f"tenant={name}".encode()) for name in names]
    here = [cluster.bounds[number] <= slot < cluster.bounds[number + 1] for slot in slots]
    return cluster.nodes[number], cluster.replicas[number], names[here.index(True)], names[here.index(False)]


@pytest.fixture
def watched(redis_server, tmp_path):
    """A master, its replica, and a Sentinel that watches them."""
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    master = Server(folders[0], "--repl-diskless-sync-delay", "0")
    replica = Server(folders[1], "--replicaof", "127.0.0.1", str(master.port))
    wait_for(lambda: replica.admin.info("replication")["master_link_status"] == "up", what="the replica")
    sentinel = Sentinel(folders[2], master)
    wait_for(lambda: sentinel.admin.sentinel_slaves("limits"), what="the Sentinel")
    yield sentinel, master, replica
    for server in (sentinel, master, replica):
        server.stop()


def timed(call):
    """Return what a call answered, having made sure that it answered in time."""
    began = time.monotonic()
    answer = call()
    assert time.monotonic() - began < 2 * DEADLINE_SECONDS
    return answer


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_masters_death_in_a_cluster_is_survived_by_policy(cluster, pair, redis_store, asynchronous):
    """Each limit's policy answers in its place, other slots notice nothing, and the replica goes on counting."""
    clock = ManualClock()
    store = redis_store(url=cluster.url, clock=clock, workers=2, deadline_seconds=DEADLINE_SECONDS)
    loop = asyncio.new_event_loop()
    master, _, lost, kept = pair
    gate = Limiter(policy_from_settings(POLICIES), store=store)

    def admit(route, tenant):
        context = Context(tenant=tenant, route=route)
        if asynchronous:
            return timed(lambda: loop.run_until_complete(gate.admit_async(context)))
        return timed(lambda: gate.admit(context))

    for _ in range(12):
        assert not admit("/closed", lost).degraded
        assert not admit("/closed", kept).degraded
    copied(master)
    master.stop()
    assert [admit("/closed", lost).status_code, admit("/closed", kept).status_code] == [503, 200]
    assert [admit("/open", lost).status_code for _ in range(3)] == [200] * 3
    clock.advance(seconds=1)
    assert [admit("/local", lost).status_code for _ in range(3)] == [200, 200, 429]  # half of a burst of four

    def is_back():
        clock.advance(seconds=1)
        return not admit("/open", lost).degraded

    wait_for(is_back, what="the replica")
    answers = [admit("/closed", lost) for _ in range(10)]
    assert [answer.status_code for answer in answers] == [200] * 8 + [429] * 2
    assert not any(answer.degraded for answer in answers)
    if asynchronous:
        loop.run_until_complete(store.aclose())
    loop.close()


def test_a_planned_failover_of_a_cluster_loses_nothing(cluster, pair, redis_store):
    """CLUSTER FAILOVER under traffic: not one more than the bucket holds, and nobody is refused without an answer."""
    clock = ManualClock()
    gate = Limiter(policy_from_settings([HOURLY]), store=redis_store(url=cluster.url, clock=clock))
    master, replica, tenant, _ = pair
    acme = Context(tenant=tenant)
    admit_ten(gate, acme, clock)
    answers = []

    def has_taken_over():
        if len(answers) % 100 == 0:  # it gives up after a while when the machine is busy
            replica.admin.execute_command("CLUSTER", "FAILOVER")
        answers.append(gate.admit(acme))
        return replica.admin.info("replication")["role"] == "master"

    wait_for(has_taken_over, what="the failover")
    while len(answers) < 40:
        answers.append(gate.admit(acme))
    assert sum(answer.allowed for answer in answers) == 10
    assert not any(answer.degraded for answer in answers)
    assert master.admin.info("replication")["role"] == "slave"


def test_a_failover_forgets_no_more_than_was_not_copied(cluster, pair, redis_store):
    """With a replica that lags by seven admissions at most seven more get through than the bucket holds."""
    clock = ManualClock()
    gate = Limiter(policy_from_settings([HOURLY]), store=redis_store(url=cluster.url, clock=clock))
    master, replica, tenant, _ = pair
    acme = Context(tenant=tenant)
    admit_ten(gate, acme, clock)
    copied(master)
    replica.freeze()
    assert sum(gate.admit(acme).allowed for _ in range(7)) == 7
    master.stop()
    replica.thaw()
    wait_for(lambda: replica.admin.info("replication")["role"] == "master", what="the failover")
    after = sum(gate.admit(acme).allowed for _ in range(30))
    assert 3 <= after <= 3 + 7


def admit_ten(gate, context, clock):
    """Take ten of twenty; a busy machine's nodes miss each other for a moment, and what they refuse is asked again."""
    answered = []

    def all_are():
        answered.append(gate.admit(context))
        if answered[-1].degraded:
            clock.advance(seconds=1)  # the breaker's patience
            answered.pop()
        return len(answered) == 10

    wait_for(all_are, what="ten answers")
    assert all(answer.allowed for answer in answered)


def copied(master):
    """Wait until the replicas have all that was written until now; WAIT would answer for its own connection only."""
    written = master.admin.info("replication")["master_repl_offset"]

    def behind():
        told = master.admin.info("replication")
        return [told[f"slave{number}"]["offset"] < written for number in range(told["connected_slaves"])]

    wait_for(lambda: behind() and not any(behind()), what="the replica")


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_failover_under_sentinels_is_followed(watched, redis_store, by_hand):
    """Turned by hand, or because the master died: the new one is asked within the deadline and goes on counting."""
    sentinel, master, replica = watched
    clock = ManualClock()
    store = redis_store(url=sentinel.url, clock=clock, deadline_seconds=DEADLINE_SECONDS)
    gate = Limiter(policy_from_settings([HOURLY]), store=store)
    acme = Context(tenant="acme")

    async def main():
        answers = [await gate.admit_async(acme) for _ in range(5)]
        fail_over()
        clock.advance(seconds=1)
        answers += [await gate.admit_async(acme) for _ in range(5)]
        await store.aclose()
        return answers

    def fail_over():
        copied(master)
        if by_hand:  # the old master is alive, and refuses to write
            replica.admin.replicaof("NO", "ONE")
            master.admin.replicaof("127.0.0.1", replica.port)
            sentinel.admin.sentinel_remove("limits")
            sentinel.admin.sentinel_monitor("limits", "127.0.0.1", replica.port, 1)
        else:
            master.stop()
            assert timed(lambda: gate.admit(acme)).status_code == 503
        wait_for(lambda: replica.admin.info("replication")["role"] == "master", what="the failover")
        wait_for(lambda: sentinel.admin.sentinel_master("limits")["port"] == replica.port, what="the Sentinel")

    assert sum(gate.admit(acme).allowed for _ in range(5)) == 5
    answers = [*asyncio.run(main()), *(timed(lambda: gate.admit(acme)) for _ in range(10))]
    assert [answer.status_code for answer in answers] == [200] * 15 + [429] * 5
    assert not any(answer.degraded for answer in answers)
