"""A rolling quota never lets more than its amount through in any window, and is at most one slice late."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, limit_headers, policy_from_settings, rolling
from opsloop.settings import LimitSettings

ACME = Context(tenant="acme")
DAY = LimitSettings(id="day", lever="quota", amount=100, per="day", rolling=1, unit="tokens")
arrivals = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), min_size=1, max_size=60)


def limiter(clock, *limits):
    """A limiter over the given limits."""
    return Limiter(policy_from_settings(limits), clock=clock, ids=SeededIds(1))


@settings(max_examples=60, deadline=None)
@given(arrivals, st.integers(60, 1000))
def test_no_window_holds_more_than_the_amount_and_none_is_refused_a_slice_late(steps, window_ns):
    """Against the log of all admissions: never over in (t - W, t]; refused only if W + w + 60 ns hold too much."""
    window = rolling.window(1, window_ns)
    slices, log, now_ns = {}, [], 0
    for step, cost in steps:
        now_ns += step
        exact = sum(units for then, units in log if then > now_ns - window_ns)
        late = sum(units for then, units in log if then > now_ns - window_ns - window.slice_ns - rolling.SLICES)
        before, wait = rolling.take(window, slices, 100, cost, now_ns)
        if wait == 0:
            assert exact + cost <= 100
            log.append((now_ns, cost))
            number = rolling.slice_at(window, now_ns)
            slices[number] = slices.get(number, 0) + cost
        else:
            assert late + cost > 100
            assert rolling.take(window, slices, 100, cost, now_ns + wait)[1] == 0
            assert rolling.take(window, slices, 100, cost, now_ns + wait - 1)[1] == 1
            assert before == rolling.used(window, slices, now_ns)


def test_midnight_does_not_double_a_rolling_day():
    """A calendar quota lets 200 through around midnight; a rolling one waits for a day, to the minute told."""
    clock = ManualClock("2026-01-05T23:59:00Z")
    rolls = limiter(clock, DAY)
    calendar = limiter(clock, LimitSettings(id="day", lever="quota", amount=100, per="day", unit="tokens"))
    assert rolls.admit(ACME, {"tokens": 100}).allowed
    assert calendar.admit(ACME, {"tokens": 100}).allowed
    clock.advance(seconds=60)
    assert calendar.admit(ACME, {"tokens": 100}).allowed
    refused = rolls.admit(ACME, {"tokens": 1})
    assert refused.reason == (
        "day for tenant acme: 0 of 100 tokens in the last 1 days left, 1 asked, admissible in 87780 s"
    )
    clock.advance(seconds=87_779)
    assert not rolls.admit(ACME, {"tokens": 1}).allowed
    clock.advance(seconds=1)
    assert rolls.admit(ACME, {"tokens": 1}).allowed


def test_a_settlement_goes_to_the_slice_of_its_admission(clock):
    """What was reserved too much is free at once; a correction of what has left the window changes nothing."""
    rolls = limiter(clock, DAY)
    first = rolls.admit(ACME, {"tokens": 90})
    clock.advance(seconds=3000)
    assert not rolls.peek(ACME, {"tokens": 20}).allowed
    receipt = rolls.settle(first.reservation, {"tokens": 10})
    assert (receipt.reason, receipt.levels[0].state().remaining) == ("corrected day", 90)
    assert rolls.admit(ACME, {"tokens": 90}).allowed
    short = limiter(clock, LimitSettings(id="s", lever="quota", amount=5, per="second", rolling=10, unit="tokens"))
    old = short.admit(ACME, {"tokens": 5})
    clock.advance(seconds=60)
    assert short.admit(Context(tenant="other"), {"tokens": 1}).allowed
    assert short.admit(ACME, {"tokens": 1}).allowed
    assert short.settle(old.reservation, {"tokens": 50}).reason == "the estimate was right"
    assert short.peek(ACME, {"tokens": 4}).allowed


def test_a_refusal_writes_nothing_and_what_has_left_is_forgotten(clock):
    """The store holds at most 61 numbers for a caller, and none after its window."""
    rolls = limiter(clock, LimitSettings(id="s", lever="quota", amount=1000, per="second", rolling=60))
    for _ in range(200):
        assert rolls.admit(ACME).allowed
        clock.advance(seconds=1)
    held = len(rolls._store)
    assert held <= rolling.SLICES + 1
    full = limiter(clock, LimitSettings(id="s", lever="quota", amount=1, per="minute", rolling=1))
    full.admit(ACME)
    before = len(full._store)
    assert not full.admit(ACME).allowed
    assert len(full._store) == before
    clock.advance(seconds=300)
    for _ in range(3):
        full.admit(Context(tenant="other"))
        clock.advance(seconds=300)
    assert len(full._store) <= 2


def test_its_headers_tell_the_window(clock):
    """The policy header names the whole window in seconds."""
    decision = limiter(clock, LimitSettings(id="w", lever="quota", amount=9, per="day", rolling=7)).admit(ACME)
    assert dict(limit_headers(decision))["ratelimit-policy"] == '"w";q=9;w=604800;qu="requests"'


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"lever": "rate", "rolling": 2}, 'a rate does not roll; leave rolling out, or use lever = "quota"'),
        (
            {"lever": "quota", "per": "month", "rolling": 1},
            'a month has no fixed length to roll over; use rolling = 30 and per = "day"',
        ),
        (
            {"lever": "quota", "per": "day", "rolling": 1, "time_zone": "Europe/Berlin"},
            'a rolling quota knows no time zone; leave time_zone out, or use lever = "quota"',
        ),
        (
            {"lever": "quota", "per": "hour", "reset_at": "06:00"},
            "only a quota per day, week or month has a time to begin at; leave reset_at out",
        ),
        (
            {"lever": "quota", "per": "day", "week_start": "sunday"},
            'only a quota per week has a day to begin on; leave week_start out, or use per = "week"',
        ),
    ],
)
def test_a_window_that_contradicts_itself_is_refused(table, said):
    """Each with its part and its remedy."""
    with pytest.raises(Exception, match="limit 'x'") as caught:
        policy_from_settings([LimitSettings(id="x", amount=5, **table)])
    assert str(caught.value) == f"limit 'x': {said}"
