"""The queue is fair within one request of each tenant, and first come, first served within one."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.rate_limit.fairness import FairQueue

tenants = st.sampled_from(["acme", "bolt", "cora", "dune"])
moves = st.lists(
    st.one_of(
        st.tuples(st.just("join"), tenants, st.integers(1, 50)),
        st.tuples(st.just("serve"), st.just(""), st.just(0)),
        st.tuples(st.just("give up"), st.just(""), st.integers(0, 9)),
    ),
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(moves)
def test_two_tenants_that_both_wait_never_get_more_than_one_request_of_each_apart(steps):
    """Since both began to wait, what they got differs by at most the largest request of the one and of the other."""
    queue, number = FairQueue(), 0
    line, cost_of, tenant_of = defaultdict(list), {}, {}
    served_in = {}  # pair of waiting tenants: what each got since both wait
    largest = Counter()
    for move, tenant, size in steps:
        if move == "join":
            number += 1
            queue.join(number, tenant=tenant, cost=size)
            line[tenant].append(number)
            cost_of[number], tenant_of[number] = size, tenant
            largest[tenant] = max(largest[tenant], size)
        elif len(queue):
            order = list(queue)
            item = order[0] if move == "serve" else order[size % len(order)]
            owner = tenant_of[item]
            if move == "serve":
                assert item == line[owner][0]
                for (one, other), got in served_in.items():
                    if owner in {one, other}:
                        got[owner] += cost_of[item]
                        assert abs(got[one] - got[other]) <= largest[one] + largest[other]
            queue.leave(item, served=move == "serve")
            line[owner].remove(item)
        waiting = sorted(tenant for tenant in line if line[tenant])
        pairs = {(one, other) for one in waiting for other in waiting if one < other}
        served_in = {pair: served_in.get(pair, Counter()) for pair in pairs}
    assert len(queue) == sum(map(len, line.values()))


def test_a_heavy_tenant_does_not_dominate_and_a_light_one_is_next():
    """A hundred requests of one tenant before it: the other's first is second in line."""
    queue = FairQueue()
    for number in range(100):
        queue.join(("heavy", number), tenant="heavy", cost=10)
    queue.join("light", tenant="light", cost=10)
    assert list(queue)[:3] == [("heavy", 0), "light", ("heavy", 1)]


def test_idleness_earns_no_credit_and_coming_and_going_gains_nothing():
    """Who comes after an hour is lifted to the others; who leaves and comes back keeps what it had."""
    queue = FairQueue()
    for number in range(10):
        queue.join(("busy", number), tenant="busy", cost=100)
    for number in range(5):
        queue.leave(("busy", number), served=True)
    for number in range(5):
        queue.join(("new", number), tenant="new", cost=100)
    assert [tenant for tenant, _ in list(queue)[:4]] == ["busy", "new", "busy", "new"]
    queue.leave(("new", 0), served=True)
    for number in range(1, 5):
        queue.leave(("new", number), served=False)
    queue.join(("new", 9), tenant="new", cost=100)
    assert [tenant for tenant, _ in list(queue)[:3]] == ["busy", "busy", "new"]


def test_nothing_is_remembered_of_tenants_that_are_gone():
    """A thousand tenants that came and went leave a handful of numbers, and none once nobody waits."""
    queue = FairQueue()
    queue.join("stays", tenant="stays", cost=1)
    for number in range(1000):
        queue.join(number, tenant=str(number), cost=1)
        queue.leave(number, served=False)
    assert len(queue._counters) <= 4
    queue.leave("stays", served=True)
    queue.leave("stays", served=True)
    assert (queue._counters, len(queue)) == ({}, 0)


def test_an_item_waits_once():
    """Joining twice is a mistake."""
    queue = FairQueue()
    queue.join("a", tenant="t", cost=1)
    with pytest.raises(ValueError, match="waits already"):
        queue.join("a", tenant="t", cost=1)
