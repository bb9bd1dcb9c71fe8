"""Unmodified SDKs send with their own settings, and every call is found again, whole, where it belongs."""

from __future__ import annotations

import re

import pytest

from tests.senders.conftest import APPS, PAGE, SENDERS
from tests.senders.fields import CONTENT, column_table, field_table
from tests.senders.model import ANSWER, FIRST_CHUNK_SECONDS, SERVED

pytestmark = pytest.mark.timeout(240)  # the first test waits for the processes of all

VARYING = {"ts_ns", "event_id", "request_id", "trace_id", "span_id", "parent_span_id", "service", "attributes"}
TIMES = {"duration_us": "took", "time_to_first_token_us": "streamed"}
QUESTION = "How long do refunds take?"
OWNER = {"tenant": "acme", "user_id": "u-1", "session_id": "s-1"}
DOCUMENTS = [{"id": "d1", "content": "five days"}]


def described(events):
    """Return events as plain values without what differs from run to run; a parent is named by its kind."""
    kinds = {event.span_id: event.event for event in events if event.span_id}
    assert len({event.event_id for event in events}) == len(events)
    lines = []
    for event in events:
        assert event.request_id == event.trace_id
        line = {name: getattr(event, name) for name in event.__struct_fields__ if name not in VARYING}
        line |= {name: event.attributes[name] for name in CONTENT if name in event.attributes}
        line |= {word: line.pop(name) is not None for name, word in TIMES.items()}
        line["under"] = kinds[event.parent_span_id] if event.parent_span_id else ""
        lines.append({name: _steady(value) for name, value in line.items() if value not in (None, "", False)})
        first = event.time_to_first_token_us
        assert first is None or FIRST_CHUNK_SECONDS * 1e6 <= first <= event.duration_us
    return lines


def _steady(value):
    """Return a text without the ids and durations that a sender writes into it."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"took [0-9.]+s", "took <n>s", value)
    return re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", value)


def line(event, message, **columns):
    """Return the description of an event; a column that is None is one that the sender does not tell."""
    common = {"event": event, "severity": "INFO", "environment": "staging", "release": "1.4.0", "took": event != "log"}
    told = {**common, "message": message, **columns}
    return {name: value for name, value in told.items() if value not in (None, "", False)}


def call(message, *, event="llm", **columns):
    """Return the description of a model call."""
    usual = {"model": SERVED, "provider": "openai", "input_tokens": 31, "output_tokens": 7}
    texts = {"input": QUESTION, "output": ANSWER, "finish_reason": "stop"}
    return line(event, message, **{"under": "request", **usual, **texts, **columns})


def embedding(message, **columns):
    """Return the description of an embedding."""
    usual = {"model": "text-embedding-3-small", "input_tokens": 9, "output_tokens": None, "output": None}
    return call(message, event="embed", **{**usual, "input": "refund policy", "finish_reason": None, **columns})


def refused(model, message, error_type, **columns):
    """Return the description of a call that the model service refused."""
    failed = {"model": model, "severity": "ERROR", "error": True, "error_type": error_type}
    empty = {"input_tokens": None, "output_tokens": None, "output": None, "finish_reason": None}
    return call(message, **{**failed, **empty, **columns})


def exception(message, error_type, **columns):
    """Return the description of the log line that a failed span's exception is."""
    return line("log", message, severity="ERROR", error=True, error_type=error_type, **{"under": "llm", **columns})


LIMITED, BROKEN = "Error code: 429 - Rate limit reached", "Error code: 500 - The server had an error"
SPACED, CLOSE = 'search_kb({"query": "refund"})', 'search_kb({"query":"refund"})'
REQUEST = line("request", "POST /chat", route="/chat", status_code=200, **OWNER)


def opentelemetry_openai():
    """Return what the conventions' own instrumentation leaves: embedded texts and cost are not among it."""
    return [
        REQUEST,
        call("chat gpt-4o"),
        call("chat gpt-4o", streamed=True),
        call("chat gpt-4o", output=CLOSE, finish_reason="tool_calls"),
        embedding("embeddings text-embedding-3-small", input=None),
        refused("limited", LIMITED, "openai.RateLimitError"),
        refused("broken", BROKEN, "openai.InternalServerError"),
    ]


def openinference_openai():
    """Return what OpenInference leaves: whose request it is stands on every span."""
    limited, broken = "openai.RateLimitError", "openai.InternalServerError"
    return [
        line("request", "support", input=QUESTION, output=ANSWER, **OWNER),
        call("ChatCompletion", **OWNER),
        call("ChatCompletion", streamed=True, **OWNER),
        call("ChatCompletion", output=SPACED, finish_reason="tool_calls", **OWNER),
        embedding("CreateEmbeddings", **OWNER),
        refused("limited", f"RateLimitError: {LIMITED}", limited, **OWNER),
        exception(LIMITED, limited, **OWNER),
        refused("broken", f"InternalServerError: {BROKEN}", broken, **OWNER),
        exception(BROKEN, broken, **OWNER),
        line("tool", "search_kb", tool="search_kb", under="request", input='{"query": "refund"}',
             output="refund: five days", **OWNER),
        line("retrieve", "kb", tool="retrieve", under="request", input=QUESTION, documents=DOCUMENTS, **OWNER),
    ]  # fmt: skip


def traceloop_openai():
    """Return what Traceloop leaves: no log line for each chunk of the stream."""
    return [
        REQUEST,
        call("openai.chat"),
        call("openai.chat", streamed=True),
        call("openai.chat", output=CLOSE, finish_reason="tool_call"),
        embedding("openai.embeddings"),
        refused("limited", LIMITED, "RateLimitError"),
        exception(LIMITED, "openai.RateLimitError"),
        refused("broken", BROKEN, "InternalServerError"),
        exception(BROKEN, "openai.InternalServerError"),
    ]


def logfire_openai():
    """Return what Logfire leaves: the stream's opening is a span, its end the call; cost is known, rounded to µUSD."""
    chat, cost = "Chat Completion with 'gpt-4o'", {"cost_microusd": 132}
    limited, broken = "openai.RateLimitError", "openai.InternalServerError"
    return [
        line("request", "answer refunds", **OWNER),
        call(chat, **cost),
        line("span", chat, under="request", model="gpt-4o", provider="openai", input=QUESTION),
        call("streaming response from 'gpt-4o' took <n>s", **cost),
        call(chat, output=CLOSE, finish_reason="tool_calls", **cost),
        embedding("Embedding Creation with 'text-embedding-3-small'", input=None, cost_microusd=0),
        refused("limited", f"RateLimitError: {LIMITED}", limited),
        exception(LIMITED, limited),
        refused("broken", f"InternalServerError: {BROKEN}", broken),
        exception(BROKEN, broken),
        line("log", "index kb-7 is stale", severity="WARN", under="request"),
    ]


def pydantic_agent():
    """Return what pydantic-ai leaves: an agent's run is a request, and its usage is counted on its calls alone."""
    first, second, cost = {"session_id": "s-1"}, {"session_id": "s-2"}, {"cost_microusd": 132}
    story = [
        line("request", "support run", input=QUESTION, output=ANSWER, **first),
        call("chat gpt-4o", output=SPACED, finish_reason="tool_call", **first, **cost),
        line("tool", "running tool: search_kb", tool="search_kb", under="request", input='{"query":"refund"}',
             output="refund: five days", **first),
        call("chat gpt-4o", **first, **cost),
        line("request", "support run", input=QUESTION, output=ANSWER, **second),
        call("chat gpt-4o", streamed=True, **second, **cost),
        embedding("embeddings text-embedding-3-small", under="", cost_microusd=0),
    ]  # fmt: skip
    limit = {"message": "Rate limit reached", "type": "requests", "param": None, "code": "rate_limit"}
    fault = {"message": "The server had an error", "type": "server_error", "param": None, "code": None}
    for model, status, name, body in (
        ("limited", 429, "ModelRateLimitError", limit),
        ("broken", 500, "ModelServerError", fault),
    ):
        said, kind = f"status_code: {status}, model_name: {model}, body: {body}", f"pydantic_ai.exceptions.{name}"
        failed = {"severity": "ERROR", "error": True, "error_type": kind, "session_id": "<uuid>"}
        story += [
            line("request", f"{name}: {said}", input=QUESTION, **failed),
            refused(model, f"{name}: {said}", kind, input=None, session_id="<uuid>"),
            exception(said, kind, session_id="<uuid>"),
            exception(said, kind, session_id="<uuid>", under="request"),
        ]
    return story


def langfuse_openai():
    """Return what Langfuse leaves: neither provider nor class of error, and a cost of zero for what failed."""
    every = {**OWNER, "provider": None}
    return [
        line("request", "support", input=QUESTION, output=ANSWER, **OWNER),
        call("OpenAI-generation", **every, finish_reason=None),
        call("OpenAI-generation", **every, streamed=True),
        call("OpenAI-generation", **every, output=SPACED, finish_reason=None),
        embedding("OpenAI-embedding", **every),
        refused("limited", LIMITED, "", **every, cost_microusd=0),
        refused("broken", BROKEN, "", **every, cost_microusd=0),
        line("tool", "search_kb", tool="search_kb", under="request", input='{"query": "refund"}',
             output="refund: five days", **OWNER),
        line("retrieve", "kb", tool="retrieve", under="request", input=QUESTION, documents=DOCUMENTS,
             output='[{"id": "d1", "content": "five days"}]', **OWNER),
    ]  # fmt: skip


def mlflow_openai():
    """Return what MLflow leaves: no provider, and no log line for each chunk of the stream."""
    every = {"provider": None}
    asked = '{"question": "How long do refunds take?"}'
    return [
        line("request", "support", input=asked, output=ANSWER, **OWNER),
        call("Completions", **every),
        call("Completions", **every, streamed=True),
        call("Completions", **every, output=SPACED, finish_reason="tool_calls"),
        embedding("Embeddings", **every),
        refused("limited", LIMITED, "RateLimitError", **every),
        exception(LIMITED, "RateLimitError"),
        refused("broken", BROKEN, "InternalServerError", **every),
        exception(BROKEN, "InternalServerError"),
        line("tool", "search_kb", tool="search_kb", under="request", input='{"query": "refund"}',
             output="refund: five days"),
        line("retrieve", "kb", tool="retrieve", under="request", input=asked, documents=DOCUMENTS,
             output='[{"page_content": "five days", "metadata": {}, "id": "d1"}]'),
    ]  # fmt: skip


EXPECTED = (
    opentelemetry_openai,
    openinference_openai,
    traceloop_openai,
    logfire_openai,
    pydantic_agent,
    langfuse_openai,
    mlflow_openai,
)


def test_every_sender_is_expected_and_on_the_page():
    """Each application stands for one sender, which the page describes in a section of its own."""
    assert [told.__name__ for told in EXPECTED] == list(SENDERS)
    assert sorted(path.stem for path in APPS.glob("*_*.py")) == sorted(SENDERS)
    page = PAGE.read_text(encoding="utf-8")
    assert [title for title in re.findall(r"^## (.*)$", page, re.MULTILINE) if title != "Limits"] == [
        sender.title for sender in SENDERS.values()
    ]


@pytest.mark.parametrize("sender", SENDERS)
def test_every_call_is_found_again(sender, senders):
    """What the server made of a sender's telemetry: all its events, all their columns, in order of time."""
    expected = EXPECTED[list(SENDERS).index(sender)]()
    assert described(senders.events(sender)) == expected


@pytest.mark.parametrize("sender", SENDERS)
def test_the_page_tells_where_each_field_goes(sender, senders):
    """The page's table of a sender is what its real fields become."""
    events = senders.events(sender)
    page = PAGE.read_text(encoding="utf-8")
    section = page.partition(f"\n## {SENDERS[sender].title}\n")[2].partition("\n## ")[0]
    assert section[section.index("| field |") :].strip() == field_table(events)


def test_the_page_tells_which_column_is_filled(senders):
    """The page's table of all senders is what their runs filled."""
    page = PAGE.read_text(encoding="utf-8")
    written = page[page.index("| | OpenTelemetry |") :].partition("\n\n")[0]
    assert written == column_table(senders.stories())


@pytest.mark.parametrize("sender", SENDERS)
def test_the_page_shows_the_application(sender):
    """The lines of code that the page shows are lines of the application that is run here."""
    page = PAGE.read_text(encoding="utf-8")
    section = page.partition(f"\n## {SENDERS[sender].title}\n")[2].partition("\n## ")[0]
    shown = re.search(r"^```py\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    application = (APPS / f"{sender}.py").read_text(encoding="utf-8")
    assert shown is not None
    for text in filter(None, shown[1].splitlines()):
        assert f"\n{text}\n" in application
