"""A shadow limit says what it would do and does nothing; a reload keeps what was counted, by its rule."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.errors import StoreError
from opsloop.rate_limit import Context, Limiter, MemoryStore, policy_from_settings, simulate, usage
from opsloop.settings import LimitSettings, OverrideSettings

ACME = Context(tenant="acme", request_id="req-1")
REAL = LimitSettings(id="real", lever="rate", amount=10)
SLOTS = LimitSettings(id="slots", lever="concurrency", amount=2, shadow=True)
TOKENS = LimitSettings(id="tokens", lever="quota", amount=100, per="day", unit="tokens", shadow=True)


def limiter(clock, *limits, **others):
    """A limiter over the given limits."""
    return Limiter(policy_from_settings(limits), clock=clock, ids=SeededIds(1), **others)


def test_a_shadow_limit_never_rejects_and_tells_what_it_would_have_done(clock, memory):
    """Three slots under a shadow limit of two: all admitted, the third recorded as one that it would have rejected."""
    subject = limiter(clock, REAL, SLOTS, sink=memory)
    assert [subject.admit(ACME).allowed for _ in range(3)] == [True, True, True]
    told = [event.attributes["shadow"] for event in memory.query()]
    assert [(shadow["allowed"], shadow["violated"]) for shadow in told] == [(True, []), (True, []), (False, ["slots"])]
    assert told[2]["reason"] == "slots for tenant acme: all 2 slots are held, the next lease ends in 30 s"
    assert told[1]["limits"] == {"slots": {"remaining": 0, "used_ratio": 1.0, "reset_seconds": 30.0}}
    assert {event.attributes["allowed"] for event in memory.query()} == {True}
    window = {"start_ns": clock.now_ns() - 1, "end_ns": clock.now_ns()}
    found = {row.limit: (row.decisions, row.rejected) for row in usage(memory.query(), **window).limits}
    assert found == {"real": (3, 0), "slots": (3, 1)}
    assert usage(memory.query(), **window).rejected == 0


def test_what_a_real_limit_rejects_costs_no_shadow_limit_anything(clock, memory):
    """Shadow limits see what they would see if they were real: nothing of a rejected request."""
    subject = limiter(clock, msgspec.structs.replace(REAL, amount=1), TOKENS, sink=memory)
    assert subject.admit(ACME, {"tokens": 40}).allowed
    assert not subject.admit(ACME, {"tokens": 40}).allowed
    first, second = memory.query()
    assert first.attributes["shadow"]["limits"]["tokens"]["remaining"] == 60
    assert "shadow" not in second.attributes


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.integers(0, 60), st.integers(0, 90)), max_size=20))
def test_shadow_limits_decide_as_they_would_if_they_were_real(steps):
    """Over any traffic, the shadow verdicts are those of a limiter that enforces the same limits."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    shadowed = limiter(clock, SLOTS, TOKENS)
    enforced = limiter(clock, *(msgspec.structs.replace(limit, shadow=False) for limit in (SLOTS, TOKENS)))
    open_ = []
    for tokens, settling, actual, seconds in steps:
        clock.advance(seconds=seconds)
        decision, shadow = shadowed.attempt(ACME, {"tokens": tokens})
        real = enforced.admit(ACME, {"tokens": tokens})
        assert decision.allowed
        assert shadow is not None
        assert (shadow.status, shadow.reason, shadow.limits) == (real.status, real.reason, real.limits)
        open_.append((decision.reservation, real.reservation))
        if settling:
            mine, theirs = open_.pop(0)
            shadowed.settle(mine, {"tokens": actual})
            enforced.settle(theirs, {"tokens": actual})


def test_a_slot_keeps_the_leases_of_shadow_limits_alive(clock):
    """A long request holds its shadow slot as long as it runs, and gives it back."""
    subject = limiter(clock, SLOTS)
    with subject.slot(ACME):
        assert len(subject.heartbeat) == 1
        clock.advance(seconds=25)
        subject.heartbeat.beat()
        clock.advance(seconds=25)
        assert subject.attempt(ACME)[1].limits["slots"].remaining == 0
    assert len(subject.heartbeat) == 0
    assert subject.attempt(ACME)[1].limits["slots"].remaining == 0


def test_a_store_that_fails_for_shadow_limits_fails_no_request(clock):
    """The request was admitted; what the shadow would say is unknown."""

    class Fragile(MemoryStore):
        def admit(self, request):
            if request.reservation.endswith("~shadow"):
                raise StoreError("gone")
            return super().admit(request)

        def settle(self, reservation, actual):
            if reservation.endswith("~shadow"):
                raise StoreError("gone")
            return super().settle(reservation, actual)

    subject = limiter(clock, REAL, SLOTS, store=Fragile(clock=clock))
    decision, shadow = subject.attempt(ACME)
    assert (decision.allowed, shadow) == (True, None)
    assert subject.settle(decision.reservation, {"tokens": 1}).status == "settled"


def test_a_replay_counts_shadow_limits_apart(clock, memory):
    """They are listed with what they would have rejected, and nobody is rejected by them."""
    subject = limiter(clock, REAL, sink=memory)
    for _ in range(4):
        subject.admit(ACME, {"tokens": 60})
        clock.advance(seconds=1)
    report = simulate(policy_from_settings([REAL, TOKENS]), memory.query())
    assert (report.rejected, report.newly_rejected) == (0, 0)
    assert [(row.limit, row.decisions, row.rejected) for row in report.limits] == [("real", 4, 0), ("tokens", 4, 3)]


def test_a_reload_decides_by_the_new_policy_and_keeps_quotas_and_slots(clock):
    """Enforcing what was in shadow goes on with what the shadow counted; a lower amount counts what was used."""
    subject = limiter(clock, TOKENS, SLOTS)
    held = subject.admit(ACME, {"tokens": 90})
    strict = [msgspec.structs.replace(limit, shadow=False) for limit in (TOKENS, SLOTS)]
    subject.reload(policy_from_settings(strict))
    assert subject.peek(ACME, {"tokens": 11}).reason.startswith("tokens for tenant acme: 10 of 100 tokens per day left")
    subject.settle(held.reservation, {"tokens": 5})
    subject.reload(policy_from_settings([msgspec.structs.replace(strict[0], amount=20)]))
    assert subject.peek(ACME, {"tokens": 11}).limits["tokens"].remaining == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 200), st.integers(0, 20), st.integers(0, 20))
def test_a_changed_rate_takes_over_what_is_owed_in_units(old, new, taken, before_seconds, after_seconds):
    """Units missing under the old rate are missing under the new one, and are repaid at the new rate: exactly."""
    clock = ManualClock()
    table = LimitSettings(id="x", lever="rate", amount=old, unit="tokens", burst=200)
    subject = limiter(clock, table)
    assert subject.admit(ACME, {"tokens": taken}).allowed
    clock.advance(seconds=before_seconds)
    subject.reload(policy_from_settings([msgspec.structs.replace(table, amount=new)]))
    owed = max(Fraction(0), taken - Fraction(old * before_seconds, 60))
    assert subject.peek(ACME, {"tokens": 0}).limits["x"].remaining == (200 - owed) // 1
    clock.advance(seconds=after_seconds)
    owed = max(Fraction(0), owed - Fraction(new * after_seconds, 60))
    assert subject.peek(ACME, {"tokens": 0}).limits["x"].remaining == (200 - owed) // 1


def test_a_debt_is_taken_over_once_and_by_overrides_too(clock):
    """When the new bucket is full again the old debt does not come back; a second reload loses nothing."""
    slow = LimitSettings(id="x", lever="rate", amount=1, per="day", burst=10)
    subject = limiter(clock, slow)
    for _ in range(10):
        assert subject.admit(ACME).allowed
    override = (OverrideSettings(when={"tenant": "acme"}, amount=60, burst=10),)
    fast = msgspec.structs.replace(slow, override=override, per="minute")
    subject.reload(policy_from_settings([fast]))
    subject.reload(policy_from_settings([fast, SLOTS]))
    assert not subject.admit(ACME).allowed
    clock.advance(seconds=1)
    assert subject.admit(ACME).allowed
    clock.advance(seconds=3600)
    for _ in range(20):
        subject.admit(Context(tenant="other"))
    assert subject.peek(ACME).limits["x"].remaining == 9


@pytest.mark.parametrize("change", [{"unit": "tokens"}, {"scope": ("key",)}, {"scope": ()}])
def test_a_limit_that_counts_something_else_begins_anew(clock, change):
    """Another unit or another scope is another bucket, whatever its id."""
    subject = limiter(clock, msgspec.structs.replace(REAL, amount=1))
    subject.admit(Context(tenant="acme", key="acme"))
    subject.reload(policy_from_settings([msgspec.structs.replace(REAL, amount=1, **change)]))
    assert subject.peek(Context(tenant="acme", key="acme")).allowed
