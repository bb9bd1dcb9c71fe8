"""An adaptive cap finds what an upstream can take, by the time per token and not by the length of answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import SeededIds, seeded
from opsloop.errors import InputError
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.rate_limit.adaptive import MEASURING, UNKNOWN, Aimd, Cap, Controller, Sample, observe
from opsloop.settings import CeilingSettings, LimitSettings

SLOTS = LimitSettings(id="slots", lever="concurrency", amount=4, scope=())
samples = st.builds(
    Sample,
    us_per_token=st.none() | st.floats(1, 1e6, allow_nan=False),
    in_flight=st.integers(1, 60),
    turned_away=st.booleans(),
)


def steps(rule, start, found):
    """Yield the cap before and after each sample."""
    cap = start
    for sample in found:
        after = observe(cap, sample, rule)
        yield cap, after
        cap = after


@settings(max_examples=60, deadline=None)
@given(st.lists(samples, max_size=80), st.integers(1, 5), st.integers(1, 20))
def test_it_stays_in_its_range_and_moves_by_the_rule_once_per_window(found, window, amount):
    """Up by one, or down by a tenth and at least one, or not at all; and only when a window is full."""
    rule = Aimd(least=1, most=20, window=window)
    for before, after in steps(rule, Cap(amount=amount), found):
        assert 1 <= after.amount <= 20
        down = max(1, min(before.amount - 1, int(before.amount * 0.9)))
        moved = {before.amount, before.amount + 1, down} if before.resume is None else {down, before.resume}
        assert after.amount in (moved if after.resume is None else {max(1, amount // 2) for amount in moved})
        if len(before.samples) + 1 < window:
            assert after.amount == before.amount
        assert len(after.medians) <= rule.memory


def test_it_settles_around_what_the_upstream_can_take():
    """An upstream that slows down beyond 12 at once, and is 1.5 times slower at 14.7: there it stays, without creep."""
    rng, cap, rule = seeded(7), Cap(amount=2), Aimd(window=10)
    amounts = []
    for _ in range(6000):
        load = cap.amount
        us_per_token = 20_000 * max(1.0, (load / 12) ** 2) * rng.uniform(0.95, 1.05)
        cap = observe(cap, Sample(us_per_token=us_per_token, in_flight=load), rule)
        amounts.append((cap.amount, cap.reason))
    assert {amount for amount, reason in amounts[1000:] if reason != MEASURING} <= {12, 13, 14, 15, 16}
    assert sum(reason == MEASURING for _, reason in amounts[1000:]) < 0.03 * len(amounts[1000:])


def test_longer_answers_are_not_slower_ones(clock):
    """Tenfold durations leave the cap growing where the tokens are tenfold too, and shrink it where they are not."""
    for tokens, expected in ((1000, 7), (100, 5)):
        limiter = Limiter(policy_from_settings([SLOTS]), clock=clock)
        controller = Controller(limiter, "slots", rule=Aimd(window=1))
        controller.answered(duration_us=2_000_000, output_tokens=100, in_flight=4)
        controller.answered(duration_us=2_000_000, output_tokens=100, in_flight=5)
        assert controller.answered(duration_us=20_000_000, output_tokens=tokens, in_flight=6).amount == expected


@pytest.mark.parametrize(
    ("found", "amount", "reason"),
    [
        ([Sample(us_per_token=None, in_flight=9, turned_away=True)] * 2, 9, "2 turned away"),
        ([Sample(us_per_token=None, in_flight=9)] * 2, 10, UNKNOWN),
        ([Sample(us_per_token=50, in_flight=4)] * 2, 10, "at most 4 of 10 in use"),
        ([Sample(us_per_token=50, in_flight=5)] * 2, 11, "50 us per token, 5 of 10 in use"),
    ],
)
def test_every_step_says_why(found, amount, reason):
    """Turned away, not measured, not in use, and fine."""
    (*_, (_, cap)) = steps(Aimd(window=2), Cap(amount=10), found)
    assert (cap.amount, cap.reason) == (amount, reason)


def test_a_baseline_is_forgotten_when_the_model_became_slower_for_good():
    """After the windows of its memory the new speed is the normal one, and the cap grows again."""
    rule, cap, amounts = Aimd(window=1, memory=5), Cap(amount=10), []
    for us in (100, *[300] * 8):
        cap = observe(cap, Sample(us_per_token=us, in_flight=10), rule)
        amounts.append(cap.amount)
    assert amounts == [11, 9, 8, 7, 3, 6, 7, 8, 9]


def test_a_controller_moves_the_limit_and_running_requests_keep_their_slots(clock):
    """When the upstream turns requests away the limit falls at once, and whoever is inside stays inside."""
    limiter = Limiter(policy_from_settings([SLOTS]), clock=clock, ids=SeededIds(1))
    controller = Controller(limiter, "slots", rule=Aimd(window=1, backoff=0.5))
    held = [limiter.admit(Context()) for _ in range(4)]
    controller.answered(duration_us=1, output_tokens=None, in_flight=4, outcome="turned_away")
    assert controller.cap.amount == 2
    assert not limiter.peek(Context()).allowed
    for decision in held[:2]:
        limiter.release(decision.reservation)
    assert not limiter.peek(Context()).allowed
    limiter.release(held[2].reservation)
    assert limiter.peek(Context()).allowed


@pytest.mark.parametrize(
    "limit",
    [
        LimitSettings(id="other", lever="concurrency", amount=4),
        LimitSettings(id="slots", lever="rate", amount=4),
        LimitSettings(
            id="slots", lever="concurrency", amount=4, ceiling=(CeilingSettings(when={"route": "/b"}, share=0.5),)
        ),
    ],
)
def test_only_a_plain_concurrency_limit_can_be_moved(limit):
    """No other one is touched."""
    with pytest.raises(InputError, match="'slots' is no concurrency limit"):
        Controller(Limiter(policy_from_settings([limit])), "slots")


@pytest.mark.parametrize(
    "table", [{"least": 0}, {"least": 5, "most": 4}, {"backoff": 1}, {"tolerance": 1}, {"window": 0}]
)
def test_numbers_that_cannot_work_are_refused(table):
    """Before anything is moved."""
    with pytest.raises(InputError):
        Aimd(**table)
