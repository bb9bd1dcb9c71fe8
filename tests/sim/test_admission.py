"""The limits in front of the bot, against definitions that share nothing with them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opsloop.settings import LimitSettings
from opsloop.sim.admission import Desk

SECOND = 10**9
DAY = 86_400 * SECOND


def limits(*, amount=6, burst=3, tokens=100, slots=2):
    """Return small limits that are easily reached."""
    return (
        LimitSettings(id="rate", lever="rate", amount=amount, per="minute", burst=burst),
        LimitSettings(id="quota", lever="quota", amount=tokens, per="day", unit="tokens"),
        LimitSettings(id="slots", lever="concurrency", amount=slots, scope=()),
    )


@given(st.lists(st.integers(0, 30), max_size=40))
def test_the_rate_is_a_token_bucket(gaps):
    """A request is admitted exactly when no stretch of admitted ones would exceed burst plus what was refilled."""
    desk = Desk(limits(tokens=10**9, slots=10**6))
    now, admitted = 0, []
    for gap in gaps:
        now += gap * SECOND
        desk.in_flight(now)
        legal = all(len(admitted[i:]) + 1 <= 3 + (now - admitted[i]) // (10 * SECOND) for i in range(len(admitted)))
        found = desk.admit("acme", 1, now)
        assert found.allowed == legal
        assert found.violated == (() if legal else ("rate",))
        if legal:
            admitted.append(now)
        else:
            after = desk.copy().admit("acme", 1, now + (found.retry_after_seconds or 0) * SECOND)
            assert after.allowed


def test_a_quota_counts_a_day_and_is_settled():
    """Tokens count until midnight UTC; settling gives back what was estimated too high."""
    desk = Desk(limits(amount=600, burst=100))
    assert desk.admit("acme", 60, DAY - 3 * SECOND).allowed
    late = desk.admit("acme", 60, DAY - 2 * SECOND)
    assert (late.allowed, late.violated, late.retry_after_seconds) == (False, ("quota",), 2)
    assert late.limits["quota"] == {"used_ratio": 1.0, "remaining": 0, "reset_seconds": 2.0}
    desk.settle("acme", -30)
    assert desk.admit("acme", 60, DAY - SECOND).limits["quota"]["used_ratio"] == 0.9
    assert desk.admit("globex", 60, DAY - SECOND).allowed
    assert desk.admit("acme", 60, DAY).allowed


def test_slots_are_held_until_the_end():
    """Two running requests fill two slots; when one ends, the next is admitted."""
    desk = Desk(limits(amount=600, burst=100))
    for end in (5, 8):
        assert desk.admit("acme", 1, SECOND).allowed
        desk.begin(end * SECOND, admitted=True)
    assert desk.in_flight(2 * SECOND) == 3
    full = desk.admit("acme", 1, 2 * SECOND)
    assert (full.violated, full.limits["slots"]["used_ratio"]) == (("slots",), 1.0)
    assert desk.in_flight(5 * SECOND) == 2
    assert desk.admit("acme", 1, 5 * SECOND).allowed


def test_a_rejection_takes_nothing():
    """All or nothing: a request that the slots refuse leaves rate and quota as they were."""
    desk = Desk(limits(slots=1))
    desk.admit("acme", 10, 0)
    desk.begin(SECOND, admitted=True)
    before = desk.copy()
    assert desk.admit("acme", 10, 0).violated == ("slots",)
    for each in (desk, before):
        each.in_flight(SECOND)
    assert desk.admit("acme", 10, SECOND) == before.admit("acme", 10, SECOND)
