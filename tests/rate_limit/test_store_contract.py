"""The contract of a store, and what other limiters got wrong, over memory, Redis and a Redis Cluster."""

from __future__ import annotations

import pytest

from opsloop.clock import ManualClock
from opsloop.rate_limit import Context, policy_from_settings
from opsloop.settings import LimitSettings
from tests.rate_limit.conftest import MORNING

A = Context(organisation="org", tenant="acme", key="a")
B = Context(organisation="org", tenant="acme", key="b")
SECOND = 10**9


def rate(name="rate", **table):
    """A rate."""
    return LimitSettings(id=name, lever="rate", **table)


def quota(name="quota", **table):
    """A quota."""
    return LimitSettings(id=name, lever="quota", **table)


def slots(name="slots", **table):
    """A number of slots."""
    return LimitSettings(id=name, lever="concurrency", **table)


def admitted(gate, calls, context=A, estimate=None):
    """How many of so many calls are admitted."""
    return sum(gate.admit(context, estimate).allowed for _ in range(calls))


def remaining(gate, context=A):
    """What is left of every limit, by looking at what can never be admitted."""
    refused = gate.peek(context, {"requests": 10**9, "tokens": 10**9})
    assert refused.status == "never_admissible"
    return {name: state.remaining for name, state in refused.limits.items()}


EVERYTHING = (rate(amount=10, burst=5), quota(amount=1000, per="day", unit="tokens"), slots(amount=2))


def test_a_refusal_names_every_limit_that_said_no_and_changes_none(limiter_of):
    """All or nothing, with each limit's own wait and the longest of them."""
    gate = limiter_of(*EVERYTHING)
    assert admitted(gate, 2, estimate={"tokens": 400}) == 2
    before = remaining(gate)
    refused = gate.admit(A, {"tokens": 300})
    assert [(violation.limit, violation.retry_after_ns) for violation in refused.violated] == [
        ("quota", 15 * 3600 * SECOND),
        ("slots", 30 * SECOND),
    ]
    assert (refused.status, refused.status_code, refused.retry_after_ns) == ("rejected", 429, 15 * 3600 * SECOND)
    assert remaining(gate) == before == {"rate": 3, "quota": 200, "slots": 0}


def test_what_can_never_be_admitted_is_told_so(limiter_of):
    """A cost above a limit is 413 and no wait, however large the number."""
    gate = limiter_of(*EVERYTHING)
    for tokens in (1001, 2**53 + 1, 2**63, 2**64, 10**30):
        refused = gate.admit(A, {"tokens": tokens})
        assert (refused.status, refused.status_code, refused.retry_after_ns) == ("never_admissible", 413, None)


def test_an_estimate_of_nothing_is_settled_by_what_it_cost(limiter_of):
    """What nobody was charged for yet can still be charged, whether it is the first of its period or not."""
    gate = limiter_of(*EVERYTHING)
    for cost, left in ((300, 700), (100, 600)):
        held = gate.admit(A, {"tokens": 0})
        assert held.allowed
        gate.settle(held.reservation, {"tokens": cost})
        assert remaining(gate)["quota"] == left


def test_an_admission_repeated_under_its_id_gets_the_same_answer(limiter_of):
    """It is charged once, answered alike after time went by, and forgotten after an hour."""
    clock = ManualClock(MORNING)
    gate = limiter_of(*EVERYTHING, clock=clock)
    first = gate.admit(A, {"tokens": 100}, reservation="mine")
    clock.advance(seconds=1)
    again = gate.admit(A, {"tokens": 999}, reservation="mine")
    assert (again.limits, again.request.estimate, again.now_ns) == (first.limits, {"tokens": 100}, first.now_ns)
    assert remaining(gate)["quota"] == 900
    clock.advance(seconds=3600)
    assert gate.admit(A, {"tokens": 999}, reservation="mine").status == "rejected"


def test_a_settlement_counts_once_and_after_its_lease_too(limiter_of):
    """Up and down, in buckets and quotas, with the slot given back; the second time nothing is held."""
    clock = ManualClock(MORNING)
    tokens = rate("tpm", amount=600, unit="tokens")
    gate = limiter_of(*EVERYTHING, tokens, clock=clock)
    held = gate.admit(A, {"tokens": 100})
    clock.advance(seconds=31)
    receipt = gate.settle(held.reservation, {"tokens": 700})
    assert (receipt.status, {level.limit.id for level in receipt.levels}) == ("settled", {"quota", "tpm"})
    assert gate.settle(held.reservation, {"tokens": 0}).status == "not_held"
    assert remaining(gate) == {"rate": 5, "quota": 300, "slots": 2, "tpm": 0}
    assert gate.admit(A, {"tokens": 1}).retry_after_ns == SECOND // 10


def test_a_credit_never_overfills(limiter_of):
    """Giving back more than is owed leaves a full bucket and a quota of nothing used."""
    clock = ManualClock(MORNING)
    gate = limiter_of(rate(amount=60, unit="tokens"), quota(amount=100, per="day", unit="tokens"), clock=clock)
    held = gate.admit(A, {"tokens": 50})
    clock.advance(seconds=40)
    assert gate.settle(held.reservation, {"tokens": 0}).status == "settled"
    assert remaining(gate) == {"rate": 60, "quota": 100}
    assert (admitted(gate, 1, estimate={"tokens": 60}), admitted(gate, 1, estimate={"tokens": 1})) == (1, 0)


def test_a_settlement_after_midnight_belongs_to_yesterday(limiter_of):
    """A reservation carries its period."""
    clock = ManualClock("2026-01-05T23:59:59Z")
    gate = limiter_of(quota(amount=100, per="day", unit="tokens"), clock=clock)
    held = gate.admit(A, {"tokens": 60})
    clock.advance(seconds=2)
    gate.admit(A, {"tokens": 10})
    assert gate.settle(held.reservation, {"tokens": 0}).status == "settled"
    assert remaining(gate) == {"quota": 90}


def test_leases_are_renewed_released_and_run_out(limiter_of):
    """A renewed slot is kept, a lost one is not revived, nothing is held for more than an hour."""
    clock = ManualClock(MORNING)
    gate = limiter_of(slots(amount=2, lease_seconds=10.0), rate(amount=100), clock=clock)
    one, two = (gate.admit(A).reservation for _ in range(2))
    clock.advance(seconds=9)
    assert gate.renew(one).status == "renewed"
    clock.advance(seconds=1)
    assert remaining(gate)["slots"] == 1
    assert (gate.renew(two).status, gate.renew(two).reason) == ("not_held", "the lease on slots ran out")
    assert gate.release(one).status == "released"
    assert (gate.renew(one).status, remaining(gate)["slots"]) == ("not_held", 2)
    three = gate.admit(A).reservation
    for _ in range(400):
        clock.advance(seconds=9)
        last = gate.renew(three)
        if last.status == "not_held":
            break
    assert last.reason == "slots was held for the longest time"


def test_a_released_reservation_can_be_settled_for_a_minute(limiter_of):
    """Release lets the estimate stand; a settlement may follow, not for ever."""
    clock = ManualClock(MORNING)
    gate = limiter_of(*EVERYTHING, clock=clock)
    one, two = (gate.admit(A, {"tokens": 100}).reservation for _ in range(2))
    assert [gate.release(name).status for name in (one, two)] == ["released", "released"]
    clock.advance(seconds=59)
    assert gate.settle(one, {"tokens": 10}).status == "settled"
    clock.advance(seconds=2)
    assert gate.settle(two, {"tokens": 10}).status == "not_held"
    assert remaining(gate)["quota"] == 890


def test_names_cannot_reach_into_each_others_buckets(limiter_of):
    """Colons, braces, percent signs and nothing at all are values like others."""
    gate = limiter_of(rate(amount=1, per="hour", scope=("tenant", "key")))
    odd = [("a:b", "c"), ("a", "b:c"), ("a%3Ab", "c"), ("{a}", "b"), ("a", "{b}"), ("", ""), ("", "a"), ("a", "")]
    for tenant, key in odd:
        assert admitted(gate, 2, Context(tenant=tenant, key=key)) == 1


def test_a_burst_below_half_a_second_of_rate_is_still_a_limit(limiter_of):
    """Throttled-py deletes the bucket at once when the burst is small: 2000 of 2000 got through."""
    assert admitted(limiter_of(rate(amount=1000, per="second", burst=100)), 300) == 100


@pytest.mark.parametrize("amount", [54, 119])
def test_a_rate_that_does_not_divide_the_minute_is_sustained(limiter_of, amount):
    """Whole-second clocks lost half of it: here, whoever comes back when told gets all of it."""
    clock = ManualClock(MORNING)
    gate = limiter_of(rate(amount=amount, burst=1), clock=clock)
    got = 0
    while clock.monotonic_ns() < 120 * SECOND:
        decision = gate.admit(A)
        got += decision.allowed
        clock.advance(ns=decision.retry_after_ns or 1000)
    assert got == amount * 2


def test_a_rejected_cost_consumes_nothing(limiter_of):
    """The package limits charges a rejected hit; here what did not fit costs nobody anything."""
    gate = limiter_of(quota(amount=100, per="hour", unit="tokens"))
    assert not gate.admit(A, {"tokens": 500}).allowed
    assert admitted(gate, 101, estimate={"tokens": 1}) == 100


def test_a_window_edge_does_not_double_a_rate(limiter_of):
    """Fixed windows admit twice the limit around their edge; a bucket has no edge."""
    clock = ManualClock("2026-01-05T09:00:59.999Z")
    gate = limiter_of(rate(amount=100), clock=clock)
    first = admitted(gate, 150)
    clock.advance(seconds=0.002)
    assert first + admitted(gate, 150) == 100


def test_a_keys_rejections_do_not_exhaust_its_tenant(limiter_of):
    """Checking limits one after the other burned the tenant's ten with key A's refusals."""
    gate = limiter_of(
        rate("tenant", amount=10, per="hour"),
        rate("key", amount=2, per="hour", scope=("tenant", "key")),
    )
    assert (admitted(gate, 10, A), admitted(gate, 10, B), remaining(gate, B)) == (2, 2, {"tenant": 6, "key": 0})


@pytest.mark.parametrize("amount", [7_000_000, 70_000_000, 100_000_000])
def test_millions_per_minute_are_not_rounded_away(limiter_of, amount):
    """An emission interval in whole microseconds lost 5 to 40 percent; here a minute repays all of it."""
    clock = ManualClock(MORNING)
    gate = limiter_of(rate(amount=amount, unit="tokens"), clock=clock)
    gate.admit(A, {"tokens": amount})
    clock.advance(seconds=60)
    assert gate.peek(A, {"tokens": amount}).allowed


def test_a_concurrency_rejection_does_not_spend_the_rate(limiter_of):
    """LiteLLM counts the request before it looks at the slots: two rejections exhausted three per minute."""
    gate = limiter_of(rate(amount=3), slots(amount=1))
    held = gate.admit(A)
    assert admitted(gate, 5) == 0
    gate.release(held.reservation)
    assert admitted(gate, 1) == 1


def test_no_counter_moves_unless_all_agree(limiter_of):
    """Incrementing all before comparing counted five of two; a broad counter counts what was admitted."""
    gate = limiter_of(quota("org", amount=100, per="day", scope=("organisation",)), rate(amount=2, per="hour"))
    assert (admitted(gate, 5), remaining(gate)["org"]) == (2, 98)


def test_a_window_that_is_hit_on_and_on_still_ends(limiter_of):
    """A lifetime that every hit re-arms never ends; an hour's quota is over at the hour."""
    clock = ManualClock("2026-01-05T09:59:50Z")
    gate = limiter_of(quota(amount=5, per="hour"), clock=clock)
    for _ in range(9):
        clock.advance(seconds=1)
        gate.admit(A)
    assert not gate.admit(A).allowed
    clock.advance(seconds=1)
    assert gate.admit(A).allowed


def test_a_long_idle_time_cannot_overflow(limiter_of):
    """A bucket that was left alone for thirty years is full, not negative."""
    clock = ManualClock(MORNING)
    gate = limiter_of(rate(amount=100_000_000, unit="tokens"), clock=clock)
    gate.admit(A, {"tokens": 5})
    clock.advance(seconds=10**9)
    assert gate.peek(A, {"tokens": 100_000_000}).allowed


def test_a_wait_counts_the_partial_token(limiter_of):
    """Half a token that is there already shortens the wait for the next."""
    clock = ManualClock(MORNING)
    gate = limiter_of(rate(amount=1, per="second"), clock=clock)
    gate.admit(A)
    clock.advance(seconds=0.5)
    assert gate.admit(A).retry_after_seconds == 0.5


def test_a_crashed_holder_does_not_block_for_an_hour(limiter_of):
    """Slots without a lease blocked for 3600 s; these are free after 30."""
    clock = ManualClock(MORNING)
    gate = limiter_of(slots(amount=10), clock=clock)
    admitted(gate, 10)
    clock.advance(seconds=30)
    assert admitted(gate, 11) == 10


def test_a_changed_rate_takes_over_what_is_owed(limiter_of):
    """Units missing before are missing after, and are repaid at the new rate from the first request that meets it."""
    clock = ManualClock(MORNING)
    gate = limiter_of(rate("tpm", amount=600, unit="tokens"), clock=clock)
    assert gate.admit(A, {"tokens": 450}).allowed
    gate.reload(policy_from_settings([rate("tpm", amount=1200, unit="tokens")]))
    assert gate.admit(A, {"tokens": 10}).limits["tpm"].remaining == 740
    clock.advance(seconds=1)
    assert remaining(gate) == {"tpm": 760}
    gate.reload(policy_from_settings([rate("tpm", amount=60, burst=100, unit="tokens")]))
    assert remaining(gate) == {"tpm": 0}
    assert gate.admit(A, {"tokens": 1}).retry_after_ns == (440 + 1 - 100) * SECOND
    clock.advance(seconds=200)
    assert gate.admit(A, {"tokens": 1}).retry_after_ns == (440 + 1 - 100 - 200) * SECOND
    gate.reload(
        policy_from_settings([rate("tpm", amount=999_983, per="hour", unit="tokens")])
    )  # counted in another tick
    assert remaining(gate) == {"tpm": 999_983 - 240}
    gate.reload(policy_from_settings([rate("tpm", amount=600, unit="tokens", scope=("organisation",))]))
    assert remaining(gate) == {"tpm": 600}


def test_what_began_before_a_changed_rate_is_settled_under_it(limiter_of):
    """An estimate that was too large is given back where it is owed now, one that was too small is charged there."""
    gate = limiter_of(rate("tpm", amount=600, unit="tokens"), clock=ManualClock(MORNING))
    large, small = gate.admit(A, {"tokens": 400}), gate.admit(A, {"tokens": 50})
    gate.reload(policy_from_settings([rate("tpm", amount=1200, unit="tokens")]))
    assert gate.admit(A, {"tokens": 10}).limits["tpm"].remaining == 1200 - 460
    gate.settle(large.reservation, {"tokens": 100})
    assert remaining(gate) == {"tpm": 1200 - 160}
    gate.settle(small.reservation, {"tokens": 90})
    assert remaining(gate) == {"tpm": 1200 - 200}


def test_a_changed_amount_keeps_quotas_and_slots(limiter_of):
    """What is used stays used, of a calendar's day and of the last hour; who holds a slot holds it."""

    def limits(day, hour, held):
        rolls = quota("hour", amount=hour, per="hour", rolling=1, unit="tokens")
        return [quota("day", amount=day, per="day", unit="tokens"), rolls, slots(amount=held)]

    gate = limiter_of(*limits(100, 100, 1), rate(amount=10), clock=ManualClock(MORNING))
    assert gate.admit(A, {"tokens": 60}).allowed
    gate.reload(policy_from_settings([*limits(500, 50, 3), rate(amount=10)]))
    assert remaining(gate) == {"day": 440, "hour": 0, "slots": 2, "rate": 9}
