"""The LiteLLM callback over a local model of the proxy's objects: what it hands to each hook, in its order."""

from __future__ import annotations

import asyncio
import sys
import types
from types import SimpleNamespace

import pytest
from starlette.exceptions import HTTPException

from opsloop.clock import SeededIds
from opsloop.integrations.litellm import METADATA_KEY, LiteLLMHooks, key_context, litellm_callback
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import LimitSettings

LIMITS = [
    LimitSettings(id="daily", lever="quota", amount=1000, per="day", unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=2),
]
KEY = SimpleNamespace(api_key="sk-secret", token=None, key_alias=None, team_id="acme", user_id="ann", org_id="org")


@pytest.fixture
def limiter(clock):
    """A thousand tokens a day and two slots."""
    return Limiter(policy_from_settings(LIMITS), clock=clock, ids=SeededIds(1))


@pytest.fixture
def hooks(limiter):
    """The callback."""
    return litellm_callback(limiter)


def body(**more):
    """A chat request of 6 input and at most 200 output tokens."""
    return {"model": "gpt", "messages": [{"role": "user", "content": "Whatever"}], "max_tokens": 200, **more}


def call(hooks, data):
    """What the proxy does before a call."""
    return asyncio.run(hooks.async_pre_call_hook(KEY, None, data, "completion"))


def succeed(hooks, data, usage):
    """What the proxy does after one."""
    kwargs = {"litellm_params": {"metadata": data["metadata"]}}
    asyncio.run(hooks.async_log_success_event(kwargs, SimpleNamespace(usage=usage), None, None))


def left(limiter):
    """Tokens and slots left."""
    limits = limiter.peek(Context(tenant="acme"), {"tokens": 0, "requests": 1}).limits
    return limits["daily"].remaining, limits["slots"].remaining + 1


def test_a_call_is_admitted_and_settled_with_the_providers_count(hooks, limiter):
    """It reserves what the body allows, holds a slot, and settles once."""
    data = call(hooks, body())
    assert left(limiter) == (794, 1)
    usage = SimpleNamespace(prompt_tokens=8, completion_tokens=20)
    succeed(hooks, data, usage)
    succeed(hooks, data, usage)
    assert (left(limiter), len(limiter.heartbeat), hooks._open) == ((972, 2), 0, {})


def test_a_refusal_is_the_exception_that_the_proxy_answers_with(hooks, limiter):
    """With status, reason, Retry-After; and the client's own idea of a reservation is worth nothing."""
    first = call(hooks, body(metadata={METADATA_KEY: "stolen", "trace": 1}))
    assert first["metadata"][METADATA_KEY] not in {"", "stolen"}
    assert first["metadata"]["trace"] == 1
    call(hooks, body(metadata=None))
    with pytest.raises(HTTPException) as caught:
        call(hooks, body())
    assert (caught.value.status_code, caught.value.headers["retry-after"]) == (429, "30")
    assert caught.value.detail.startswith("slots for tenant acme: all 2 slots are held")


def test_the_clients_own_metadata_is_left_alone_where_the_proxy_has_its_own(hooks, limiter):
    """What goes on to the provider holds nothing of ours."""
    data = call(hooks, body(metadata={"user_id": "u"}, litellm_metadata={"team": 1}))
    assert data["metadata"] == {"user_id": "u"}
    asyncio.run(hooks.async_post_call_failure_hook(data, ValueError("x"), KEY))
    assert left(limiter)[1] == 2


def chunks(*texts, usage=None):
    """A stream of the proxy's chunks."""

    async def stream():
        for text in texts:
            yield SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=text))])
        if usage:
            yield {"choices": [], "usage": usage}

    return stream()


def test_a_stream_that_the_client_leaves_settles_with_what_came_through(hooks, limiter):
    """Three chunks and the input, not the two hundred that were reserved; the slot is free."""
    data = call(hooks, body())

    async def client():
        stream = hooks.async_post_call_streaming_iterator_hook(KEY, chunks("a", "b", "c", "d"), data)
        for _ in range(3):
            await anext(stream)
        await stream.aclose()

    asyncio.run(client())
    assert left(limiter) == (1000 - 6 - 3, 2)


def test_a_stream_that_ends_is_settled_by_its_success_event(hooks, limiter):
    """Nothing is settled before, and the provider's count wins over the chunks."""
    data = call(hooks, body())

    async def client():
        return [chunk async for chunk in hooks.async_post_call_streaming_iterator_hook(KEY, chunks("a", None), data)]

    assert len(asyncio.run(client())) == 2
    assert left(limiter)[1] == 1
    succeed(hooks, data, {"prompt_tokens": 6, "completion_tokens": 50})
    assert left(limiter) == (1000 - 56, 2)


def test_a_stream_that_tells_its_usage_and_breaks_settles_with_that(hooks, limiter):
    """The last count that came through is the one."""
    data = call(hooks, body())

    async def broken():
        async for chunk in chunks("a", usage={"prompt_tokens": 7, "completion_tokens": 40}):
            yield chunk
        raise ConnectionError("gone")

    async def client():
        async for _ in hooks.async_post_call_streaming_iterator_hook(KEY, broken(), data):
            pass

    with pytest.raises(ConnectionError):
        asyncio.run(client())
    assert left(limiter) == (1000 - 47, 2)


def test_a_call_that_fails_costs_its_input_and_a_retry_inside_the_proxy_is_no_end(hooks, limiter):
    """Only the final failure gives the slot back."""
    data = call(hooks, body())
    assert not hasattr(LiteLLMHooks, "async_log_failure_event")
    asyncio.run(hooks.async_post_call_failure_hook(data, ValueError("x"), KEY))
    asyncio.run(hooks.async_post_call_failure_hook(data, ValueError("x"), KEY, "trace"))
    assert left(limiter) == (1000 - 6, 2)


def test_an_answer_that_nobody_counted_keeps_its_estimate(hooks, limiter):
    """Unknown is not zero; what was never admitted here is nobody's."""
    data = call(hooks, body())
    succeed(hooks, data, None)
    assert left(limiter) == (794, 2)
    succeed(hooks, {"metadata": {METADATA_KEY: "other"}}, {"prompt_tokens": 1})
    assert left(limiter) == (794, 2)


def test_estimates_are_learned(hooks, limiter):
    """After twenty short answers the reservation is short too."""
    for _ in range(20):
        succeed(hooks, call(hooks, body()), {"prompt_tokens": 6, "completion_tokens": 4})
    before = left(limiter)[0]
    call(hooks, body())
    assert before - left(limiter)[0] == 10


def test_a_secret_is_never_the_key():
    """An alias or a hash is written into events; a raw key is hashed first."""
    assert key_context(KEY, {"model": "gpt", "litellm_call_id": "c-1"}) == Context(
        organisation="org", tenant="acme", key=key_context(KEY, {}).key, model="gpt", request_id="c-1"
    )
    assert "secret" not in key_context(KEY, {}).key
    assert len(key_context(KEY, {}).key) == 16
    named = SimpleNamespace(key_alias="ci", api_key="sk-secret", user_id="ann")
    assert (key_context(named, {}).key, key_context(named, {}).tenant) == ("ci", "ann")


def test_where_litellm_is_installed_the_callback_is_one_of_its_loggers(monkeypatch, limiter):
    """The proxy looks for its own class."""

    class CustomLogger:
        def __init__(self, *, message_logging=True):
            self.message_logging = message_logging

    fake = types.ModuleType("litellm.integrations.custom_logger")
    fake.CustomLogger = CustomLogger
    for name in ("litellm", "litellm.integrations"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    found = litellm_callback(limiter, wait_seconds=0)
    assert isinstance(found, CustomLogger)
    assert found.message_logging is True
    assert left(limiter) == (1000, 2)
    call(found, body())
    assert left(limiter) == (794, 1)
