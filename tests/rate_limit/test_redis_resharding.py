"""A slot of a Cluster moves to another node, between admissions and under them: none is lost, none is counted twice."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from redis.crc import key_slot

from opsloop.clock import ManualClock
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import LimitSettings
from tests.rate_limit.redis_server import wait_for

ACME = Context(tenant="acme")
_PREFIXES = itertools.count()


class Slot:
    """The slot of one tenant, and the node that holds it."""

    def __init__(self, cluster, prefix, tenant):
        tag = f"{{tenant={tenant}}}"
        self.number = key_slot(tag.encode())
        self.prefix = prefix
        self.nodes = {node.admin.execute_command("CLUSTER", "MYID").decode(): node for node in cluster.nodes}
        bounds = zip(cluster.nodes, cluster.bounds[1:], strict=True)
        self.home = self.holder = next(node for node, end in bounds if self.number < end)

    def begin(self, target):
        """Say at both ends that the slot is about to move."""
        names = {id(node): name for name, node in self.nodes.items()}
        self._set(target, "IMPORTING", names[id(self.holder)])
        self._set(self.holder, "MIGRATING", names[id(target)])

    def hand_over(self, target, *, but=b"nothing"):
        """Move what lies in it, of other tests too, until nothing is left.

        A node does not give a slot away while it holds a key of it; or drops the key, when it hears of the new holder
        first.
        """
        moved = []
        while keys := [key for key in self._keys() if but not in key]:
            for key in keys:
                self.holder.admin.migrate("127.0.0.1", target.port, [key], 0, 5000)
            moved += keys
        assert any(key.startswith(f"{self.prefix}:".encode()) for key in moved)

    def end(self, target):
        """Say everywhere who holds it now."""
        name = next(name for name, node in self.nodes.items() if node is target)
        for node in (target, *self.nodes.values()):
            self._set(node, "NODE", name)
        self.holder = target
        # Only who knows the latest count does not believe an older claim that is still under way.
        wait_for(lambda: len({self._seen(node) for node in self.nodes.values()}) == 1, what="the nodes to agree")

    def _keys(self):
        """Some of what its holder has in it."""
        return self.holder.admin.execute_command("CLUSTER", "GETKEYSINSLOT", self.number, 1000)

    def _seen(self, node):
        """Who a node says holds it, and by which count of changes it knows that one."""
        known = node.admin.execute_command("CLUSTER NODES").values()
        epochs = {each["node_id"]: each["epoch"] for each in known}
        rows = node.admin.execute_command("CLUSTER SLOTS")
        return next((row[2][2], epochs[row[2][2].decode()]) for row in rows if row[0] <= self.number <= row[1])

    def move(self, target):
        """Do all of it."""
        self.begin(target)
        self.hand_over(target)
        self.end(target)

    def others(self):
        """The nodes that do not hold it."""
        return [node for node in self.nodes.values() if node is not self.holder]

    def _set(self, node, *what):
        node.admin.execute_command("CLUSTER", "SETSLOT", self.number, *what)


@pytest.fixture
def slot(redis_cluster):
    """The slot of a tenant, which goes home in the end."""
    moved = Slot(redis_cluster, f"moving{next(_PREFIXES)}", "acme")
    yield moved
    for node in moved.nodes.values():
        node.admin.execute_command("CLUSTER", "SETSLOT", moved.number, "STABLE")
    if moved.holder is not moved.home:
        moved.move(moved.home)


def gate_of(slot, redis_store, redis_cluster, amount, *more, **options):
    """A limiter of one rate for each tenant, that refills too slowly to matter, and of more limits if wanted."""
    limits = [LimitSettings(id="rate", lever="rate", amount=amount, per="week"), *more]
    store = redis_store(url=redis_cluster.url, prefix=slot.prefix, **options)
    return Limiter(policy_from_settings(limits), store=store)


@pytest.fixture(params=[False, True], ids=["thread", "loop"])
def calling(request):
    """A function that lets a limiter do something, from a thread or from a loop, and returns what came of it."""
    if not request.param:
        yield lambda gate, verb, *arguments: getattr(gate, verb)(*arguments)
        return
    gates = {}
    with asyncio.Runner() as runner:

        def call(gate, verb, *arguments):
            gates[id(gate)] = gate
            return runner.run(getattr(gate, f"{verb}_async")(*arguments))

        yield call
        for gate in gates.values():
            runner.run(gate._store.aclose())


def refusals(slot):
    """How often a node has said that several keys cannot be looked at together now."""
    told = [node.admin.info("errorstats").get("errorstat_TRYAGAIN", {"count": 0}) for node in slot.nodes.values()]
    return sum(each["count"] for each in told)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["thread", "loop"])
def test_each_step_of_a_move_is_followed(slot, redis_store, redis_cluster, asynchronous):
    """Before it, announced, with the bucket still here or there already, and when it is done: one count."""
    gate = gate_of(slot, redis_store, redis_cluster, 50)
    target = slot.others()[0]
    steps = [lambda: None, lambda: slot.begin(target), lambda: slot.hand_over(target), lambda: slot.end(target)]

    async def main():
        found = []
        for step in steps:
            step()
            found += [await gate.admit_async(ACME) for _ in range(10)]
        await gate._store.aclose()
        return found

    decisions = asyncio.run(main()) if asynchronous else []
    for step in () if asynchronous else steps:
        step()
        decisions += [gate.admit(ACME) for _ in range(10)]
    assert [decision.degraded for decision in decisions if decision.degraded or not decision.allowed] == []
    assert [decision.limits["rate"].remaining for decision in decisions] == list(range(49, 9, -1))


SLOTS = LimitSettings(id="slots", lever="concurrency", amount=500)


def test_what_several_keys_decide_waits_for_the_end_of_a_move(slot, redis_store, redis_cluster, calling):
    """A rate and slots: asked again and again while the slot moves, the admission comes true once it has moved."""
    gate = gate_of(slot, redis_store, redis_cluster, 50, SLOTS)
    assert calling(gate, "admit", ACME).allowed
    target = slot.others()[0]
    slot.begin(target)
    before = refusals(slot)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(calling, gate, "admit", ACME)
        wait_for(lambda: refusals(slot) >= before + 3, what="three tries")
        slot.hand_over(target)
        slot.end(target)
        decision = waiting.result()
    assert (decision.status, decision.degraded) == ("allowed", "")
    assert {name: limit.remaining for name, limit in decision.limits.items()} == {"rate": 48, "slots": 498}


def test_a_move_that_takes_too_long_fails_only_what_asked_for_its_slot(slot, redis_store, redis_cluster, calling):
    """Each admission there runs out of time by itself; nobody else waits, and it goes on as soon as it has moved."""
    gate = gate_of(slot, redis_store, redis_cluster, 50, SLOTS, clock=ManualClock(), deadline_seconds=0.3)
    other = Context(tenant="other")
    held = calling(gate, "admit", ACME)
    assert held.allowed
    target = slot.others()[0]
    slot.begin(target)
    for number in range(5):
        refused = calling(gate, "admit", ACME)
        assert (refused.status_code, refused.degraded) == (503, f"{gate._store._address!r} is moving a slot")
        assert calling(gate, "admit", other).limits["rate"].remaining == 49 - number
    slot.hand_over(target)
    slot.end(target)
    admitted = calling(gate, "admit", ACME)
    assert {name: limit.remaining for name, limit in admitted.limits.items()} == {"rate": 48, "slots": 498}


def test_an_end_that_is_cancelled_while_its_slot_moves_is_told_in_the_end(slot, redis_store, redis_cluster):
    """A settlement that waits for half of its keys: its task is cancelled, and nothing stays charged for that."""
    gate = gate_of(slot, redis_store, redis_cluster, 50, SLOTS)
    target = slot.others()[0]

    async def main():
        held = await gate.admit_async(ACME)
        slot.begin(target)
        slot.hand_over(target, but=b"slots")
        before = refusals(slot)
        settling = asyncio.create_task(gate.settle_async(held.reservation, {"requests": 0}))
        await asyncio.to_thread(wait_for, lambda: refusals(slot) > before, what="a try")
        settling.cancel()
        await asyncio.wait([settling])
        slot.hand_over(target)
        slot.end(target)
        await gate._store.aclose()
        return settling.cancelled()

    assert asyncio.run(main())
    assert {name: limit.remaining for name, limit in gate.admit(ACME).limits.items()} == {"rate": 49, "slots": 499}


@pytest.fixture
def traffic():
    """A function that has a limiter asked forty times, by two threads and by twenty tasks; returns what will come."""

    def asked(gate):
        async def together():
            return await asyncio.gather(*(gate.admit_async(ACME) for _ in range(20)))

        def in_turn():
            return [gate.admit(ACME) for _ in range(10)]

        gates.append(gate)
        return [pool.submit(in_turn), pool.submit(in_turn), asyncio.run_coroutine_threadsafe(together(), loop)]

    gates = []
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor() as pool:
        pool.submit(loop.run_forever)
        yield asked
        asyncio.run_coroutine_threadsafe(gates[0]._store.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
    loop.close()


@pytest.mark.parametrize("more", [(), (SLOTS,)], ids=["one key", "several keys"])
def test_a_move_under_traffic_counts_exactly(slot, redis_store, redis_cluster, traffic, more):
    """Threads and tasks ask before, during and after each step: all are answered, and as many admitted as fit."""
    gate = gate_of(slot, redis_store, redis_cluster, 170, *more)
    target = slot.others()[0]
    coming = traffic(gate)
    wait(coming)
    for step in (slot.begin, slot.hand_over, slot.end):
        coming += traffic(gate)
        step(target)
    coming += traffic(gate)
    decisions = [decision for each in coming for decision in each.result()]
    assert {decision.degraded for decision in decisions} == {""}
    assert sorted(decision.status for decision in decisions) == ["allowed"] * 170 + ["rejected"] * 30


def test_settlements_in_one_call_count_once_when_a_key_ends_with_the_first(slot, redis_store, redis_cluster):
    """Where a slot moves, a key that is gone is another node's: the second fails, and is counted when it is told."""
    tokens = LimitSettings(id="tokens", lever="rate", amount=1000, per="week", unit="tokens")
    gate = gate_of(slot, redis_store, redis_cluster, 50, tokens, SLOTS, deadline_seconds=0.5)
    target = slot.others()[0]

    async def main():
        last, released = [await gate.admit_async(ACME, {"tokens": 100}) for _ in range(2)]
        await gate.release_async(released.reservation)
        slot.begin(target)
        settling = [gate.settle_async(each.reservation, {"tokens": 40}) for each in (last, released)]
        statuses = [receipt.status for receipt in await asyncio.gather(*settling)]
        slot.hand_over(target)
        slot.end(target)
        await gate._store.aclose()
        return statuses

    assert asyncio.run(main()) == ["deferred"] * 2
    left = {name: limit.remaining for name, limit in gate.admit(ACME, {"tokens": 0}).limits.items()}
    assert left == {"rate": 47, "tokens": 920, "slots": 499}


def test_a_heartbeat_renews_the_rest_while_one_slot_moves(slot, redis_store, redis_cluster):
    """Half of the keys of one have moved: its slots are renewed with the next beat, those of others now."""
    gate = gate_of(slot, redis_store, redis_cluster, 50, SLOTS, deadline_seconds=0.3)
    held = [gate.admit(context).reservation for context in (ACME, Context(tenant="other"))]
    target = slot.others()[0]
    slot.begin(target)
    slot.hand_over(target, but=b"slots")
    assert [receipt.status for receipt in gate._store.renew_all(held)] == ["deferred", "renewed"]
    assert gate.renew(held[0]).status == "deferred"
    slot.hand_over(target)
    slot.end(target)
    assert [receipt.status for receipt in gate._store.renew_all(held)] == ["renewed", "renewed"]
