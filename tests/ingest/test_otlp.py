"""OTLP bodies, protobuf and JSON, become events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from opsloop.errors import PayloadError
from opsloop.event import Event, decode_event, encode_event
from opsloop.ingest import read_logs, read_traces
from tests.otlp import any_value, pairs

START = 1_767_600_000_000_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def span_body(attributes, *, trace_id=TRACE, span_id=SPAN, start=START, end=START + 250_000_000, **fields):
    """Return the protobuf body of one span."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(pairs({"service.name": "bot", "service.version": "1.2"}))
    span = group.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(span_id),
        name=fields.pop("name", "chat gpt-4o"),
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        **fields,
    )
    span.attributes.extend(pairs(attributes))
    return request.SerializeToString()


def json_value(item):
    """Return a Python value as OTLP/JSON writes it."""
    match item:
        case bool():
            return {"boolValue": item}
        case int():
            return {"intValue": str(item)}
        case float():
            return {"doubleValue": item}
        case list():
            return {"arrayValue": {"values": [json_value(entry) for entry in item]}}
        case dict():
            return {
                "kvlistValue": {"values": [{"key": key, "value": json_value(entry)} for key, entry in item.items()]}
            }
        case _:
            return {"stringValue": item}


def json_span(attributes, **fields):
    """Return the OTLP/JSON body of one span."""
    span = {
        "traceId": TRACE.upper(),
        "spanId": SPAN,
        "name": "chat gpt-4o",
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": START + 250_000_000,
        "attributes": [{"key": key, "value": json_value(item)} for key, item in attributes.items()],
        **fields,
    }
    resource = {
        "attributes": [
            {"key": "service.name", "value": {"stringValue": "bot"}},
            {"key": "service.version", "value": {"stringValue": "1.2"}},
        ]
    }
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}).encode()


def test_a_model_call_fills_the_promoted_columns():
    """A 1.41 gen_ai span becomes an llm event: whole event compared."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cost": 0.0012345,
        "gen_ai.response.time_to_first_chunk": 0.21,
        "gen_ai.conversation.id": "s-1",
        "user.id": "u-1",
        "request_id": "req-1",
    }
    assert read_traces(span_body(attributes), json=False).events == [
        Event(
            ts_ns=START,
            event="llm",
            event_id=f"{TRACE}:{SPAN}",
            service="bot",
            release="1.2",
            request_id="req-1",
            trace_id=TRACE,
            span_id=SPAN,
            user_id="u-1",
            session_id="s-1",
            duration_us=250_000,
            time_to_first_token_us=210_000,
            model="gpt-4o-2024-08-06",
            provider="openai",
            input_tokens=120,
            output_tokens=30,
            cost_microusd=1234,
            message="chat gpt-4o",
            attributes={"span_name": "chat gpt-4o", **attributes},
        )
    ]


leaf = (
    st.text(max_size=8)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
trees = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@given(attributes=st.dictionaries(st.text(min_size=1, max_size=12), trees, max_size=4))
def test_json_and_protobuf_mean_the_same(attributes):
    """The same span in either encoding gives the same event, and the event survives JSON."""
    by_proto = read_traces(span_body(attributes), json=False)
    assert by_proto == read_traces(json_span(attributes), json=True)
    assert decode_event(encode_event(by_proto.events[0])) == by_proto.events[0]


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"openinference.span.kind": "LLM", "gen_ai.operation.name": "embeddings"}, "llm"),
        ({"gen_ai.operation.name": "embeddings"}, "embed"),
        ({"openinference.span.kind": "RETRIEVER"}, "retrieve"),
        ({"openinference.span.kind": "RERANKER"}, "rerank"),
        ({"gen_ai.operation.name": "execute_tool"}, "tool"),
        ({"gen_ai.operation.name": "invoke_agent"}, "agent"),
        ({"traceloop.span.kind": "workflow"}, "agent"),
        ({"llm.request.type": "chat"}, "llm"),
        ({"langfuse.observation.type": "generation"}, "llm"),
        ({"ai.operationId": "ai.generateText.doGenerate"}, "llm"),
        ({"ai.operationId": "ai.generateText"}, "agent"),
        ({"ai.operationId": "ai.embed.doEmbed"}, "embed"),
        ({"gen_ai.tool.call.id": "c-1"}, "tool"),
        ({"mlflow.spanType": '"CHAT_MODEL"'}, "llm"),
        ({"mlflow.spanType": '"RETRIEVER"'}, "retrieve"),
        ({"gen_ai.operation.name": "something_new"}, "span"),
        ({}, "span"),
    ],
)
def test_the_kind_follows_the_precedence(attributes, kind):
    """Each dialect's mark gives its kind; an unknown operation is kept."""
    assert read_traces(span_body(attributes, parent_span_id=b"p" * 8), json=False).events[0].event == kind


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({}, "request"),
        ({"gen_ai.operation.name": "something_new"}, "request"),
        ({"gen_ai.operation.name": "invoke_agent"}, "request"),
        ({"langfuse.observation.type": "span"}, "request"),
        ({"gen_ai.operation.name": "chat"}, "llm"),
        ({"mlflow.spanType": '"TOOL"'}, "tool"),
    ],
)
def test_a_root_is_the_request_unless_it_is_one_step(attributes, kind):
    """An agent with nothing above it is the request that all signals derive from; a lone model call stays one."""
    assert read_traces(span_body(attributes), json=False).events[0].event == kind


def test_a_wrappers_usage_is_not_counted_twice():
    """Tokens and cost stand on the model call; the agent above it keeps them as attributes only."""
    usage = {"gen_ai.usage.input_tokens": 120, "gen_ai.usage.cost": 0.5}
    agent = read_traces(span_body({"gen_ai.operation.name": "invoke_agent", **usage}), json=False).events[0]
    assert (agent.input_tokens, agent.cost_microusd) == (None, None)
    assert agent.attributes["gen_ai.usage.input_tokens"] == 120


def test_a_pending_span_is_not_a_second_event():
    """Logfire announces a span before it ends; only the span itself counts."""
    assert read_traces(span_body({"logfire.span_type": "pending_span"}), json=False).events == []


@pytest.mark.parametrize("text", ["²", "9" * 5000, "٣", ""])
def test_a_digit_that_is_no_number_costs_nobody_the_batch(text):
    """A superscript or five thousand digits where a count belongs: the span is there, and so are the others."""
    event = {"name": "token", "timeUnixNano": text}
    body = json_span({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": text}, events=[event])
    batch = read_traces(body, json=True)
    assert (batch.events[0].event, batch.rejected) == ("llm", 0)


def test_numbers_that_do_not_parse_stay_text():
    """A count that is no number leaves its column empty, and its attribute as it came."""
    event = read_traces(span_body({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": "many"}), json=False)
    assert event.events[0].input_tokens is None
    assert event.events[0].attributes["gen_ai.usage.input_tokens"] == "many"


def test_documents_and_messages_are_found():
    """Retrieved documents and the last answer come under our own names, indices compared and never allocated."""
    attributes = {
        "openinference.span.kind": "RETRIEVER",
        "retrieval.documents.1.document.content": "two",
        "retrieval.documents.0.document.id": "kb-1",
        "retrieval.documents.0.document.score": 0.5,
        "gen_ai.prompt.999999999.content": "a bomb",
        "gen_ai.prompt.3.content": "What?",
        "llm.output_messages.0.message.content": "That.",
    }
    kept = read_traces(span_body(attributes), json=False).events[0].attributes
    assert kept["documents"] == [{"id": "kb-1", "score": 0.5}, {"content": "two"}]
    assert (kept["input"], kept["output"]) == ("What?", "That.")


def test_an_exception_names_the_error():
    """A failed span takes its error type from its exception, which is also an event of its own."""
    body = ExportTraceServiceRequest.FromString(span_body({}, status={"code": 2}))
    event = body.resource_spans[0].scope_spans[0].spans[0].events.add(name="exception", time_unix_nano=START + 5)
    event.attributes.extend(pairs({"exception.type": "TimeoutError", "exception.message": "too slow"}))
    span, exception = read_traces(body.SerializeToString(), json=False).events
    assert (span.error, span.error_type, span.message, span.severity) == (True, "TimeoutError", "too slow", "ERROR")
    assert (exception.event, exception.message, exception.severity) == ("log", "too slow", "ERROR")
    assert (exception.request_id, exception.event_id) == (TRACE, f"{TRACE}:{SPAN}:0")


def test_one_bad_span_does_not_sink_its_batch():
    """A span with a short id is rejected by name, its neighbour is kept."""
    body = ExportTraceServiceRequest.FromString(span_body({}))
    body.resource_spans[0].scope_spans[0].spans.add(trace_id=b"short", span_id=b"x", name="bad", start_time_unix_nano=1)
    batch = read_traces(body.SerializeToString(), json=False)
    assert (len(batch.events), batch.rejected) == (1, 1)
    assert batch.reason() == "span 'bad': trace_id needs 16 bytes that are not all zero, got '73686f7274'"


def test_logs_sent_to_the_traces_path_are_named():
    """Log records decode as spans without ids; the rejection says what probably happened."""
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=START)
    batch = read_traces(logs.SerializeToString(), json=False)
    assert (batch.events, batch.rejected) == ([], 1)


def log_body(attributes, **fields):
    """Return the protobuf body of one log record."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(
        time_unix_nano=START, trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN), **fields
    ).attributes.extend(pairs(attributes))
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("number", "severity", "kept"),
    [
        (1, "TRACE", None),
        (5, "DEBUG", None),
        (9, "INFO", None),
        (10, "INFO", 10),
        (13, "WARN", None),
        (17, "ERROR", None),
        (21, "FATAL", None),
        (24, "FATAL", 24),
        (0, "INFO", None),
    ],
)
def test_severity_numbers_fold_to_six_names(number, severity, kept):
    """Each band of four has one name; a number inside the band is kept as an attribute."""
    event = read_logs(log_body({}, severity_number=number, body=any_value("hello")), json=False).events[0]
    assert (event.severity, event.message, event.attributes.get("severity_number")) == (severity, "hello", kept)


def test_an_evaluation_result_becomes_a_score():
    """gen_ai.evaluation.result is a score event; one without a value is unscored, never 0."""
    result = {
        "gen_ai.evaluation.name": "tone",
        "gen_ai.evaluation.score.value": 0.25,
        "gen_ai.evaluation.score.label": "bad",
    }
    scored = read_logs(log_body(result, event_name="gen_ai.evaluation.result"), json=False).events[0]
    assert (scored.event, scored.attributes["status"], scored.attributes["score"]) == ("score", "scored", 0.25)
    assert scored.request_id == TRACE
    failed = {"gen_ai.evaluation.name": "tone", "error.type": "Timeout"}
    unscored = read_logs(log_body(failed, event_name="gen_ai.evaluation.result"), json=False).events[0]
    assert unscored.attributes["status"] == "unscored"
    assert "score" not in unscored.attributes


@pytest.mark.parametrize(
    ("body", "json_body", "message"),
    [
        (b"\xff\xff", False, "the body is not OTLP protobuf"),
        (span_body({})[:-3], False, "the body is not OTLP protobuf"),
        (b"{", True, "the body is not JSON"),
        (b"[]", True, "the body is not a JSON object"),
        pytest.param(b"[" * 100_000, True, "the body is not JSON: maximum recursion depth exceeded", id="nested"),
        (b'{"resourceSpans": {}}', True, "resourceSpans is not a list of objects"),
        (
            json_span({}).replace(b'"attributes": []', b'"attributes": {"a": 1}'),
            True,
            "attributes of spans is an object, OTLP wants a list of key and value",
        ),
    ],
)
def test_a_body_that_is_not_otlp_is_refused(body, json_body, message):
    """Garbage, a torn tail and hand-made JSON each get their own sentence."""
    with pytest.raises(PayloadError) as caught:
        read_traces(body, json=json_body)
    assert str(caught.value).startswith(message)


@given(body=st.binary(max_size=200))
def test_no_body_raises_anything_else(body):
    """Any bytes either decode or raise PayloadError, in both encodings and on both paths."""
    for read in (read_traces, read_logs):
        for as_json in (False, True):
            try:
                read(body, json=as_json)
            except PayloadError:
                continue


def test_deep_nesting_is_bounded():
    """An attribute that nests forty levels is refused, not followed."""
    tree = "x"
    for _ in range(40):
        tree = [tree]
    for body, as_json in ((span_body({"a": tree}), False), (json_span({"a": tree}), True)):
        with pytest.raises(PayloadError, match="deeper than 32 levels"):
            read_traces(body, json=as_json)


def test_a_negative_duration_is_flagged():
    """A span that ends before it starts has no duration, and says by how much."""
    event = read_traces(span_body({}, end=START - 5), json=False).events[0]
    assert (event.duration_us, event.attributes["negative_duration_ns"]) == (None, -5)


def test_a_log_record_that_names_itself_is_known_again():
    """OTLP gives log records no identity; an attribute event_id does, so a retry is stored once."""
    event = read_logs(log_body({"event_id": "app:1"}, body=any_value("hello")), json=False).events[0]
    assert event.event_id == "app:1"
    assert read_logs(log_body({}, body=any_value("hello")), json=False).events[0].event_id == ""
