"""What the SDKs of the field send beside the conventions, each trait as an attribute set taken from a real one."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from opsloop.ingest import read_logs, read_traces
from tests.ingest.test_otlp import SPAN, START, TRACE, log_body, span_body
from tests.otlp import pairs

PARENT = "00f067aa0ba902b7"
MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How long?"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "search_kb", "arguments": '{"query": "refund"}'}}
ANSWER = {"choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Five days."}}]}


def event_of(attributes, *, marks=(), scope="", **fields):
    """Return the only event of a span below another; ``marks`` are span events as (name, ns after the start)."""
    body = ExportTraceServiceRequest.FromString(span_body(attributes, parent_span_id=bytes.fromhex(PARENT), **fields))
    spans = body.resource_spans[0].scope_spans[0]
    spans.scope.name = scope
    for name, after_ns in marks:
        spans.spans[0].events.add(name=name, time_unix_nano=START + after_ns)
    (event,) = read_traces(body.SerializeToString(), json=False).events
    return event


@pytest.mark.parametrize(
    ("attributes", "columns"),
    [
        (
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.model.name": "gpt-4o",
                "langfuse.observation.usage_details": '{"prompt_tokens": 31, "completion_tokens": 7}',
                "langfuse.observation.cost_details": '{"input": 0.001, "total": 0.0015}',
            },
            {"model": "gpt-4o", "input_tokens": 31, "output_tokens": 7, "cost_microusd": 1500},
        ),
        (
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.usage_details": '{"input": 9, "output": 2}',
            },
            {"input_tokens": 9, "output_tokens": 2},
        ),
        (
            {
                "mlflow.spanType": '"CHAT_MODEL"',
                "mlflow.llm.model": '"gpt-4o"',
                "mlflow.llm.provider": '"openai"',
                "mlflow.chat.tokenUsage": '{"input_tokens": 31, "output_tokens": 7, "total_tokens": 38}',
                "mlflow.llm.cost": '{"input_cost": 0.001, "output_cost": 0.001, "total_cost": 0.002}',
            },
            {"model": "gpt-4o", "provider": "openai", "input_tokens": 31, "output_tokens": 7, "cost_microusd": 2000},
        ),
        (
            {"mlflow.spanType": '"EMBEDDING"', "mlflow.spanOutputs": '{"usage": {"prompt_tokens": 9}}'},
            {"input_tokens": 9, "output_tokens": None},
        ),
        (
            {"openinference.span.kind": "LLM", "llm.invocation_parameters": '{"model": "limited"}'},
            {"model": "limited", "input_tokens": None},
        ),
        ({"openinference.span.kind": "LLM", "llm.invocation_parameters": '{"model": "cut'}, {"model": ""}),
        ({"openinference.span.kind": "LLM", "metadata": '{"tenant": "acme"}'}, {"tenant": "acme"}),
        ({"langfuse.trace.metadata.tenant": '"acme"', "langfuse.release": "1.4"}, {"tenant": "acme", "release": "1.2"}),
        ({"langfuse.environment": "staging"}, {"environment": "staging"}),
        ({"mlflow.traceTag.request_id": "req-1"}, {"request_id": "req-1"}),
    ],
)
def test_columns_come_out_of_json(attributes, columns):
    """Usage, cost, model and tenant are found where an attribute holds JSON; what is cut leaves its column empty."""
    event = event_of(attributes)
    assert {name: getattr(event, name) for name in columns} == columns
    assert attributes.items() <= event.attributes.items()


@pytest.mark.parametrize(
    ("attributes", "content"),
    [
        (
            {
                "langfuse.observation.input": json.dumps(MESSAGES),
                "langfuse.observation.output": '{"role": "assistant", "content": "Five days."}',
                "langfuse.observation.metadata.finish_reason": '"stop"',
            },
            {"input": "How long?", "output": "Five days.", "finish_reason": "stop"},
        ),
        (
            {
                "langfuse.observation.input": json.dumps({"tools": [], "messages": MESSAGES}),
                "langfuse.observation.output": json.dumps({"role": "assistant", "content": None, "tool_calls": [CALL]}),
            },
            {"input": "How long?", "output": 'search_kb({"query": "refund"})'},
        ),
        (
            {
                "mlflow.spanInputs": json.dumps({"model": "gpt-4o", "messages": MESSAGES}),
                "mlflow.spanOutputs": json.dumps(ANSWER),
            },
            {"input": "How long?", "output": "Five days.", "finish_reason": "stop"},
        ),
        ({"mlflow.spanInputs": "{}", "mlflow.spanOutputs": "null"}, {}),
        (
            {"mlflow.spanInputs": '{"query": "refund"}', "mlflow.spanOutputs": '"five days"'},
            {"input": '{"query": "refund"}', "output": "five days"},
        ),
        ({"input.value": '{"model": "ada", "input": "refund policy"}'}, {"input": "refund policy"}),
        ({"input.value": '{"input": "kept whole"}'}, {"input": '{"input": "kept whole"}'}),
        ({"output.value": '{"choices": "kept whole"}'}, {"output": '{"choices": "kept whole"}'}),
        ({"inputs": '["refund policy"]'}, {"input": "refund policy"}),
        ({"inputs": '["refund policy", "terms"]'}, {"input": '["refund policy", "terms"]'}),
        (
            {"gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [
                {"type": "tool_call", "id": "call_1", "name": "search_kb", "arguments": {"query": "refund"}}]}])},
            {"output": 'search_kb({"query":"refund"})'},
        ),
        ({"gen_ai.input.messages": "[" * 100_000}, {}),
        ({"gen_ai.response.finish_reasons": '["stop"]'}, {"finish_reason": "stop"}),
        (
            {"pydantic_ai.all_messages": json.dumps([
                {"role": "user", "parts": [{"type": "text", "content": "How long?"}]},
                {"role": "assistant", "parts": [{"type": "text", "content": "Five days."}]}])},
            {"input": "How long?", "output": "Five days."},
        ),
        ({"pydantic_ai.all_messages": json.dumps(MESSAGES)}, {"input": "How long?"}),
        (
            {"langfuse.observation.type": "retriever", "langfuse.observation.input": "refund",
             "langfuse.observation.output": '[{"id": "d1", "content": "five days"}]'},
            {"input": "refund", "documents": [{"id": "d1", "content": "five days"}],
             "output": '[{"id": "d1", "content": "five days"}]'},
        ),
        (
            {"mlflow.spanType": '"RETRIEVER"',
             "mlflow.spanOutputs": '[{"page_content": "five days", "metadata": {}, "id": "d1"}]'},
            {"documents": [{"id": "d1", "content": "five days"}],
             "output": '[{"page_content": "five days", "metadata": {}, "id": "d1"}]'},
        ),
        (
            {"mlflow.spanType": '"EMBEDDING"', "mlflow.spanOutputs": '{"data": [{"embedding": [0.25]}]}'},
            {},
        ),
    ],
)  # fmt: skip
def test_texts_come_out_of_a_providers_json(attributes, content):
    """The user's last text and the answer are found in a provider's JSON; other JSON stays as it came."""
    kept = event_of(attributes).attributes
    assert {name: kept[name] for name in ("input", "output", "documents", "finish_reason") if name in kept} == content


@pytest.mark.parametrize("mark", ["First Token Stream Event", "gen_ai.content.completion.chunk", "mlflow.chunk.item.0"])
def test_chunks_of_a_stream_are_one_time_and_no_log_lines(mark):
    """Span events that mark chunks give the time to first token; the log has none of them."""
    event = event_of({"openinference.span.kind": "LLM"}, marks=[(mark, 50_000_000), (mark, 90_000_000)])
    assert event.time_to_first_token_us == 50_000


@pytest.mark.parametrize(
    ("moment", "microseconds"),
    [
        ('"2026-01-05T08:00:00.050000Z"', 50_000),
        ("2026-01-05T08:00:00.050000Z", 50_000),
        ('"2026-01-05T07:59:59Z"', None),
        ("soon", None),
    ],
)
def test_the_first_token_may_come_as_a_moment(moment, microseconds):
    """Langfuse names the moment, quoted or not; one before the start, or no time at all, leaves the column empty."""
    start = 1_767_600_000_000_000_000
    assert start == START
    event = event_of({"langfuse.observation.completion_start_time": moment})
    assert event.time_to_first_token_us == microseconds


@pytest.mark.parametrize("mark", [{"langfuse.observation.type": "tool"}, {"mlflow.spanType": '"TOOL"'}])
def test_a_tool_without_a_name_has_its_spans(mark):
    """Where a dialect names a tool by its span only, that is the tool's name."""
    assert event_of(mark, name="search_kb").tool == "search_kb"


LOGFIRE_CALL = {"logfire.span_type": "span", "gen_ai.operation.name": "chat", "gen_ai.response.model": "gpt-4o"}


def test_a_log_of_logfire_is_a_log_line():
    """Logfire sends a log as a span: it becomes a log event with its filled-in message, under the span it stood in."""
    event = event_of(
        {"logfire.span_type": "log", "logfire.level_num": 13, "logfire.msg": "answered refunds"},
        name="answered {what}",
        end=START,
    )
    assert (event.event, event.severity, event.message) == ("log", "WARN", "answered refunds")
    assert (event.event_id, event.parent_span_id) == (f"{TRACE}:{SPAN}", PARENT)
    assert event.duration_us is None


def test_an_exception_in_a_log_of_logfire_is_kept():
    """The exception that such a log carries is an event under it, as that of any span."""
    body = ExportTraceServiceRequest.FromString(span_body({"logfire.span_type": "log", "logfire.level_num": 17}))
    exception = body.resource_spans[0].scope_spans[0].spans[0].events.add(name="exception", time_unix_nano=START)
    exception.attributes.extend(pairs({"exception.type": "ValueError", "exception.message": "no such index"}))
    line, raised = read_traces(body.SerializeToString(), json=False).events
    assert (line.event, line.severity, line.error) == ("log", "ERROR", True)
    assert (raised.event, raised.error_type, raised.message) == ("log", "ValueError", "no such index")
    assert raised.parent_span_id == line.span_id


def test_a_stream_of_logfire_is_one_call():
    """The span that ends when the stream opens is a span; the log at its end is the call, with tokens and duration."""
    head = event_of(LOGFIRE_CALL, scope="logfire.openai")
    assert head.event == "span"
    end = event_of(
        {**LOGFIRE_CALL, "logfire.span_type": "log", "duration": 0.5, "gen_ai.usage.output_tokens": 7},
        scope="logfire.openai",
        end=START,
    )
    assert (end.event, end.output_tokens, end.duration_us) == ("llm", 7, 500_000)
    assert end.ts_ns == START - 500_000_000


@pytest.mark.parametrize(
    ("attributes", "status", "scope"),
    [
        ({"gen_ai.response.id": "r-1"}, 0, "logfire.openai"),
        ({"gen_ai.usage.output_tokens": 7}, 0, "logfire.openai"),
        ({}, 2, "logfire.openai"),
        ({}, 0, "pydantic-ai"),
    ],
)
def test_only_an_opened_stream_is_less_than_a_call(attributes, status, scope):
    """An answer, a count, a failure or another sender makes the span a model call."""
    assert event_of({**LOGFIRE_CALL, **attributes}, status={"code": status}, scope=scope).event == "llm"


def test_content_that_comes_apart_from_its_span_is_found():
    """The conventions' event with a call's messages has them under our names too."""
    messages = [{"role": "user", "parts": [{"type": "text", "content": "How long?"}]}]
    body = log_body({"gen_ai.input.messages": messages}, event_name="gen_ai.client.inference.operation.details")
    (event,) = read_logs(body, json=False).events
    assert (event.event, event.attributes["input"]) == ("log", "How long?")
