"""Limits in front of a model's own API: estimated from the body, settled from the answer, refused in its dialect."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import SeededIds
from opsloop.errors import StoreError
from opsloop.integrations.model_gateway import ModelGateway
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.rate_limit.answer import AnswerReader
from opsloop.settings import LimitSettings

CHAT = "/v1/chat/completions"
LIMITS = [
    LimitSettings(id="daily", lever="quota", amount=1000, per="day", unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=1),
]
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 300}
"""Five tokens in, at most 300 out."""


@pytest.fixture
def limiter(clock):
    """A thousand tokens a day and one slot."""
    return Limiter(policy_from_settings(LIMITS), clock=clock, ids=SeededIds(1))


def who(_, body):
    """Everybody is acme."""
    return Context(tenant="acme", model=str(body.get("model", "")))


def used(limiter):
    """Return the tokens that are counted today, and whether the slot is free."""
    decision = limiter.peek(Context(tenant="acme", model="m"), {"tokens": 0})
    return 1000 - decision.limits["daily"].remaining, decision.allowed


def answering(parts, *, status=200, kind="application/json", fails=False):
    """Return an application that reads its body and answers in parts."""

    async def app(scope, receive, send):
        app.read = (await receive())["body"]
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        for number, part in enumerate(parts, start=1):
            last = number == len(parts) and not fails
            await send({"type": "http.response.body", "body": part, "more_body": not last})
        if fails:
            raise ConnectionResetError("the client left")

    return app


def call(app, body=ASKED, *, path=CHAT, method="POST"):
    """Send one request in two parts; return status, headers and body."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = [
        {"type": "http.request", "body": text[:7], "more_body": True},
        {"type": "http.request", "body": text[7:], "more_body": False},
    ]
    sent = []

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "http", "method": method, "path": path}, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message["body"] for message in sent[1:])


def events(*pieces):
    """Return server-sent events."""
    return b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces)


def hello(text):
    """Return one piece of a chat stream."""
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


USAGE = {"prompt_tokens": 9, "completion_tokens": 40}
CLAUDE = events(
    {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Be"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}},
)
RESPONSE = events(
    {"type": "response.output_text.delta", "delta": "Be"},
    {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 40}}},
)
SSE = "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "parts", "kind", "cost"),
    [
        (CHAT, [json.dumps({"choices": [], "usage": USAGE}).encode()], "application/json", 49),
        (CHAT, [events(hello("Be"), hello("cause")), events({"choices": [], "usage": USAGE})], SSE, 49),
        (CHAT, [events(hello("Be"), hello("cause"), hello("")), b"data: [DONE]\n\n"], SSE, 5 + 2),
        ("/v1/messages", [CLAUDE[:70], CLAUDE[70:]], SSE, 49),
        ("/v1/responses", [RESPONSE], SSE, 49),
        (CHAT, [b"plain words"], "text/plain", 305),
        (CHAT, [b"no JSON"], "application/json", 305),
    ],
)
def test_a_call_costs_what_its_answer_tells(limiter, path, parts, kind, cost):
    """The usage where it is told, whole or streamed; the pieces where only they are; else the estimate."""
    app = answering(parts, kind=kind)
    status, headers, body = call(ModelGateway(app, limiter, context=who), path=path)
    assert (status, body, json.loads(app.read)) == (200, b"".join(parts), ASKED)
    assert "ratelimit" in headers
    assert used(limiter) == (cost, True)


def test_a_client_that_leaves_pays_for_what_came_through(limiter):
    """A stream that breaks off settles with its pieces and gives the slot back."""
    app = answering([events(hello("Be"), hello("cause"))], kind=SSE, fails=True)
    with pytest.raises(ConnectionResetError):
        call(ModelGateway(app, limiter, context=who))
    assert used(limiter) == (7, True)


def test_a_failed_answer_costs_no_tokens(limiter):
    """An error of the model's server gives the estimate back."""
    status, _, _ = call(ModelGateway(answering([b'{"error":{}}'], status=500), limiter, context=who))
    assert (status, used(limiter)) == (500, (0, True))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (
            CHAT,
            lambda said: {
                "error": {"message": said, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
            },
        ),
        ("/v1/messages", lambda said: {"type": "error", "error": {"type": "rate_limit_error", "message": said}}),
    ],
)
def test_a_refusal_speaks_the_provider_s_language(limiter, path, told):
    """The status, the body and the headers are those that the provider's SDKs read; the model is not called."""
    limiter.admit(Context(tenant="acme"), {"tokens": 800})
    status, headers, body = call(ModelGateway(answering([]), limiter, context=who), path=path)
    assert status == 429
    assert headers["retry-after"]
    said = (
        "daily for tenant acme: 200 of 1000 tokens per day left, 305 asked, resets in 54000 s; "
        "slots for tenant acme: all 1 slots are held, the next lease ends in 30 s"
    )
    assert json.loads(body) == told(said)
    assert any(name.startswith(("x-ratelimit-", "anthropic-ratelimit-")) for name in headers)


def test_what_can_never_be_admitted_is_too_large(limiter):
    """A call that is over the limit by itself is told so, and that waiting does not help."""
    gateway = ModelGateway(answering([]), limiter, context=who)
    status, headers, body = call(gateway, {**ASKED, "max_tokens": 5000})
    assert (status, json.loads(body)["error"]["type"]) == (413, "request_too_large")
    assert "retry-after" not in headers


def test_a_body_over_the_bound_is_refused(limiter):
    """The bound is on what is kept in memory; nothing is admitted for it."""
    status, _, body = call(ModelGateway(answering([]), limiter, context=who, max_body_bytes=20))
    assert (status, json.loads(body)["error"]["message"]) == (413, "the body is over 20 bytes")
    assert used(limiter) == (0, True)


def test_a_body_that_is_no_json_is_the_application_s_to_refuse(limiter):
    """It is passed on as it came and costs the estimate of a call of which nothing is known."""
    app = answering([b"{}"], status=400)
    status, _, _ = call(ModelGateway(app, limiter, context=who), b"not json at all")
    assert (status, app.read, used(limiter)) == (400, b"not json at all", (0, True))


def test_other_paths_pass_untouched(limiter):
    """A list of models costs nothing and gets no headers."""
    status, headers, _ = call(ModelGateway(answering([b"[]"]), limiter, context=who), path="/v1/models", method="GET")
    assert (status, headers) == (200, {"content-type": "application/json"})


def test_a_store_that_fails_is_said_in_the_dialect(limiter):
    """The limits' store cannot be asked: 503, and when to come back."""

    class Broken:
        def admit(self, request):
            raise StoreError("redis is away")

    broken = Limiter(limiter.policy, store=Broken())
    status, headers, body = call(ModelGateway(answering([]), broken, context=who))
    assert (status, headers["retry-after"], json.loads(body)["error"]["type"]) == (503, "1", "overloaded_error")


@given(cuts=st.lists(st.integers(0, 400), max_size=8), line_end=st.sampled_from([b"\n", b"\r\n"]))
def test_a_stream_is_read_the_same_however_it_is_cut(cuts, line_end):
    """Wherever the network cuts the bytes, the same tokens and the same usage are found."""
    text = events(hello("Be"), hello("größe"), {"usage": USAGE}).replace(b"\n", line_end)
    reader, ends = AnswerReader(stream=True), sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in itertools.pairwise(ends):
        reader.feed(text[start:end])
    reader.end()
    assert (reader.written, reader.usage) == (2, USAGE)


def test_a_line_without_an_end_is_not_kept():
    """A line over the bound is skipped, and what follows it is read."""
    reader = AnswerReader(stream=True)
    for _ in range(5):
        reader.feed(b"data: " + b"x" * (1 << 20))
    reader.feed(b"\n" + events({"usage": USAGE}))
    assert reader.usage == USAGE
