"""Estimates are read from bodies, learned from answers, and corrected however an answer ends."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import SeededIds
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.rate_limit.estimate import Estimator, actual_of, estimate_of
from opsloop.rate_limit.metered import Metered
from opsloop.settings import LimitSettings

DAILY = LimitSettings(id="daily", lever="quota", amount=10_000, per="day", unit="tokens")
CHAT = Context(tenant="acme", model="gpt", route="/chat")


@pytest.fixture
def limiter(clock, memory):
    """Ten thousand tokens a day."""
    return Limiter(policy_from_settings([DAILY]), clock=clock, ids=SeededIds(1), sink=memory)


def left(limiter):
    """Tokens left today."""
    return limiter.peek(CHAT, {"tokens": 0}).limits["daily"].remaining


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "abcdefgh", "max_tokens": 1, "max_completion_tokens": 10_000}, (2, 10_000)),
        ({"input": "abcde", "max_output_tokens": 50}, (2, 50)),
        ({"messages": [{"role": "user", "content": "abcd"}], "max_tokens": 100, "n": 3}, (5, 300)),
        ({"prompt": "a", "max_tokens": 10, "n": 2, "best_of": 4}, (1, 40)),
        ({"system": "abcd", "messages": [{"role": "user", "content": [{"type": "text", "text": "efgh"}]}]}, (6, None)),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}]},
            (4, None),
        ),
        ({"messages": "none", "max_tokens": None, "max_completion_tokens": "7", "max_output_tokens": True}, (1, None)),
        ({"prompt": "größe"}, (2, None)),
        ({}, (0, None)),
    ],
)
def test_a_body_is_read_whatever_is_in_it(body, expected):
    """The largest max-token field times the choices bounds the output; text is counted, images and nonsense are not."""
    found = estimate_of(body)
    assert (found["input_tokens"], found.get("output_tokens")) == expected


def test_a_counter_of_ones_own_is_used():
    """It is asked for each text."""
    assert estimate_of({"prompt": ["a b", "c"]}, count_tokens=lambda text: len(text.split())) == {"input_tokens": 3}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5)))
def test_any_usage_is_read_without_an_error(usage):
    """What is no count is left out."""
    assert all(amount >= 0 for amount in actual_of(usage).values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=20, max_size=260), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_what_is_learned_is_the_nearest_rank_quantile_of_the_last_200(tokens, quantile):
    """At least that share of them is not longer, and of any smaller number that would not be true."""
    learned = Estimator(quantile=quantile)
    for amount in tokens:
        learned.observe(amount, model="gpt", route="/chat")
    expected, last = learned.expected(model="gpt", route="/chat"), tokens[-200:]
    share = Fraction(str(quantile))
    assert expected in last
    assert sum(amount <= expected for amount in last) >= share * len(last)
    assert sum(amount < expected for amount in last) < share * len(last)


def test_a_route_is_estimated_by_its_own_answers_then_by_its_models_then_by_the_body():
    """Twenty answers are enough to know a route; until then what all routes of the model showed counts."""
    learned = Estimator()
    bound = {"input_tokens": 5, "output_tokens": 4000}
    assert learned.estimate(bound, model="gpt", route="/chat") == bound
    for _ in range(20):
        learned.observe(100, model="gpt", route="/chat")
    assert learned.estimate(bound, model="gpt", route="/chat") == {"input_tokens": 5, "output_tokens": 100}
    assert learned.estimate(bound, model="gpt", route="/new") == {"input_tokens": 5, "output_tokens": 100}
    assert learned.estimate(bound, model="other", route="/chat") == bound
    assert learned.estimate({"output_tokens": 7}, model="gpt", route="/chat") == {"output_tokens": 7}
    assert learned.estimate({"input_tokens": 5}, model="gpt", route="/chat") == {
        "input_tokens": 5,
        "output_tokens": 100,
    }


def test_memory_is_bounded_however_many_routes_there_are():
    """The least recently fed series are forgotten."""
    learned = Estimator(enough=1)
    for number in range(3000):
        learned.observe(1, model="gpt", route=f"/{number}")
    assert len(learned._series) == 1000
    assert learned.expected(model="gpt", route="/0") == 1


def test_estimates_are_learned_from_receipts_and_from_recorded_events(limiter, memory):
    """After a restart the stream teaches what the settlements taught before."""
    live, restarted = Estimator(), Estimator()
    for tokens in range(1, 41):
        decision = limiter.admit(CHAT, {"input_tokens": 1, "output_tokens": 50})
        live.learn(limiter.settle(decision.reservation, {"input_tokens": 1, "output_tokens": tokens}))
        assert live.learn(limiter.settle(decision.reservation, {"output_tokens": 1})) == 0
    assert restarted.learn(memory.query()) == 40
    asked = {"model": "gpt", "route": "/chat"}
    assert live.expected(**asked) == restarted.expected(**asked) == 36


def test_a_stream_that_is_cancelled_settles_with_what_was_counted(limiter):
    """Not with nothing, and not with all that was reserved; its input was read in any case."""
    estimator = Estimator(enough=1)

    async def answer():
        decision = limiter.admit(CHAT, {"input_tokens": 100, "output_tokens": 5000})
        async with Metered(limiter, decision, estimator=estimator) as counted:
            for _ in range(1000):
                counted.add(1)
                await asyncio.sleep(0)

    async def client():
        task = asyncio.create_task(answer())
        for _ in range(11):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(client())
    assert left(limiter) == 10_000 - 100 - 11
    assert estimator.expected(model="gpt", route="/chat") is None


def test_a_generator_that_is_closed_settles_too(limiter):
    """A reader who stops reading ends the block."""

    def answer():
        decision = limiter.admit(CHAT, {"input_tokens": 10, "output_tokens": 500})
        with Metered(limiter, decision) as counted:
            while True:
                counted.add(2)
                yield "token"

    stream = answer()
    for _ in range(3):
        next(stream)
    stream.close()
    assert left(limiter) == 10_000 - 10 - 6


def test_the_providers_count_wins_and_a_lump_estimate_stays_where_the_input_is_unknown(limiter):
    """A usage that comes at the end replaces ours; a total without its parts is not taken for the output."""
    estimator = Estimator(enough=1)
    with Metered(limiter, limiter.admit(CHAT, {"tokens": 900}), estimator=estimator) as counted:
        counted.add(3)
        counted.tell({"prompt_tokens": 40, "completion_tokens": 5})
    assert left(limiter) == 10_000 - 45
    assert estimator.expected(model="gpt") == 5
    with Metered(limiter, limiter.admit(CHAT, {"tokens": 900})) as counted:
        counted.add(3)
    assert left(limiter) == 10_000 - 45 - 900


def test_without_anything_to_settle_nothing_is(clock):
    """A policy of request rates knows no tokens."""
    limiter = Limiter(policy_from_settings([LimitSettings(id="r", lever="rate", amount=5)]), clock=clock)
    with Metered(limiter, limiter.admit(CHAT)) as counted:
        counted.add(3)
    assert counted.receipt is None


@pytest.mark.parametrize("quantile", [0, -1, 1.1])
def test_a_quantile_that_is_none_is_refused(quantile):
    """Between 0 and 1."""
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        Estimator(quantile=quantile)
