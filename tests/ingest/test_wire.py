"""Whatever the bytes, reading many spans at once ends as the protobuf decoder and the definition do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.json import encode
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from opsloop.errors import PayloadError
from opsloop.ingest import flat, read_traces, wire
from opsloop.ingest.wire import Body
from opsloop.server import bulk
from opsloop.server.bulk import read_many_traces
from opsloop.store.columns import events_of
from tests.otlp import pairs

START = 1_767_600_000_000_000_000


@pytest.fixture(autouse=True)
def _every_size(monkeypatch):
    """Let bodies of any size and shapes of any number go the way by columns."""
    monkeypatch.setattr(bulk, "LEAST_SPANS", 1)
    monkeypatch.setattr(flat, "LEAST_OF_A_SHAPE", 1)


def sized(tag, content):
    """Return a field of bytes with a tag of one byte."""
    return bytes([tag]) + varint(len(content)) + content


def varint(number, *, wasted=0):
    """Return a number, seven bits a byte, with so many bytes more than it needs."""
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    for _ in range(wasted):
        digits[-1] |= 0x80
        digits.append(0)
    return bytes(digits)


def span(**changes):
    """Return the bytes of a plain span."""
    fields = {"trace_id": b"t" * 16, "span_id": b"s" * 8, "name": "a span", "kind": 3}
    fields |= {"start_time_unix_nano": START, "end_time_unix_nano": START + 5_000_000, **changes}
    return Span(**fields).SerializeToString()


def body(*spans):
    """Return a request of one scope with spans that are bytes."""
    scope = b"".join([sized(0x0A, sized(0x0A, b"a scope")), *(sized(0x12, each) for each in spans)])
    return sized(0x0A, sized(0x12, scope))


def outcome(read, data):
    """Return what becomes of a body: its events, or why it is refused."""
    try:
        batch = read(data)
    except PayloadError as error:
        return str(error)
    events = [*batch.events, *(events_of(batch.rows) if batch.rows is not None else [])]
    events.sort(key=lambda event: (event.event_id, event.ts_ns, encode(event, order="sorted")))
    return events, batch.rejected, batch.reasons


def assert_same(data):
    """Assert that both ways of a body end in the same."""
    assert outcome(read_many_traces, data) == outcome(lambda each: read_traces(each, json=False), data)


def attribute(value, *, key=b"user.id"):
    """Return a span field that is an attribute whose value is bytes."""
    return sized(0x4A, sized(0x0A, key) + sized(0x12, value))


ODD_FIELDS = {
    "two names": sized(0x2A, b"another"),
    "a name that is no UTF-8": sized(0x2A, b"\xff"),
    "a state": sized(0x1A, b"vendor=1"),
    "a state that is no UTF-8": sized(0x1A, b"\xc3"),
    "flags": b"\x85\x01\x01\x01\x00\x00",
    "an unknown tag of two bytes": b"\x85\x02\x01\x01\x00\x00",
    "flags cut off": b"\x85\x01\x01",
    "an unknown field": sized(0x3A, b"what"),
    "a field of another type": b"\x08\x07",
    "a group": b"\x0b\x0c",
    "a group without an end": b"\x0b",
    "field number 0": b"\x02\x00",
    "a number of many bytes": b"\x50" + varint(2**40),
    "a number that never ends": b"\x50" + b"\xff" * 11,
    "a kind of several bytes": b"\x30" + varint(3, wasted=4),
    "another kind": b"\x30" + varint(200),
    "an event": sized(0x5A, b""),
    "an event that is none": sized(0x5A, b"\xff"),
    "a link": sized(0x6A, b""),
    "a status": sized(0x7A, b"\x18\x02"),
    "a message": sized(0x7A, sized(0x12, b"why") + b"\x18\x02"),
    "a message alone": sized(0x7A, sized(0x12, b"why")),
    "a message behind the code": sized(0x7A, b"\x18\x02" + sized(0x12, b"why")),
    "a message that is no UTF-8": sized(0x7A, sized(0x12, b"\xff") + b"\x18\x02"),
    "a message too long": sized(0x7A, b"\x12\x7fwhy"),
    "a message of 2 MB that ends before": sized(0x7A, b"\x12" + varint(2**21 + 3) + b"why\x18\x02"),
    "a status of several bytes": sized(0x7A, b"\x18" + varint(2, wasted=1)),
    "two statuses": sized(0x7A, b"\x18\x02") + sized(0x7A, sized(0x12, b"why")),
    "an empty status": sized(0x7A, b""),
    "a short trace": sized(0x0A, b"short"),
    "a parent": sized(0x22, b"p" * 8),
    "an empty parent": sized(0x22, b""),
    "a parent of zeros": sized(0x22, bytes(8)),
    "a length of many bytes": b"\x2a" + varint(1, wasted=3) + b"a",
    "a length beyond the end": b"\x2a\x7f",
    "an attribute without a key": sized(0x4A, sized(0x12, sized(0x0A, b"x"))),
    "an attribute without a value": sized(0x4A, sized(0x0A, b"user.id")),
    "an empty attribute": sized(0x4A, b""),
    "a value before its key": sized(0x4A, sized(0x12, sized(0x0A, b"x")) + sized(0x0A, b"user.id")),
    "two values": sized(0x4A, sized(0x0A, b"user.id") + sized(0x12, sized(0x0A, b"x")) + sized(0x12, b"\x10\x01")),
    "a long key": attribute(sized(0x0A, b"x"), key=b"k" * 300),
    "a key of another name": attribute(sized(0x0A, b"x"), key=b"tenant.id"),
    "a key that is no UTF-8": attribute(sized(0x0A, b"x"), key=b"\xff"),
    "a key too long": sized(0x4A, b"\x0a\x7fuser.id"),
    "an empty value": attribute(b""),
    "a text": attribute(sized(0x0A, b"x")),
    "an empty text": attribute(sized(0x0A, b"")),
    "a long text": attribute(sized(0x0A, b"x" * 20_000)),
    "a very long text": attribute(sized(0x0A, b"x" * 3_000_000)),
    "a text that is no UTF-8": attribute(sized(0x0A, b"\xe2\x82")),
    "a text that goes on in the next": attribute(sized(0x0A, b"\xe2\x82")) + attribute(sized(0x0A, b"\xac"), key=b"b"),
    "a text with a surrogate": attribute(sized(0x0A, b"\xed\xa0\x80")),
    "a text too long": attribute(b"\x0a\x7fx"),
    "a text without a length": attribute(b"\x0a"),
    "texts around a length of two bytes": b"".join(
        attribute(sized(0x0A, b"x" * size), key=b"key %d" % size) for size in [*range(118, 134), *range(16_376, 16_388)]
    ),
    "a value that is its tag": sized(0x4A, sized(0x0A, b"user.id") + b"\x12"),
    **{
        f"a {what} whose length takes {wasted} bytes more": sized(0x4A, sized(0x0A, b"user.id") + value)
        for wasted in (1, 2, 3, 4)
        for what, value in {
            "value": b"\x12" + varint(3, wasted=wasted) + b"\x0a\x01x",
            "text": sized(0x12, b"\x0a" + varint(1, wasted=wasted) + b"x"),
        }.items()
    },
    **{
        f"{what}, with {size} bytes": sized(0x4A, sized(0x0A, b"user.id") + value)
        for size in (1, 200)
        for text in [sized(0x0A, b"x" * size)]
        for what, value in {
            "a value of 2 MB that ends before": b"\x12" + varint(2**21 + len(text)) + text,
            "a text of 2 MB that ends before": sized(0x12, b"\x0a" + varint(2**21 + size) + b"x" * size),
            "a value that ends before": b"\x12" + varint(len(text) + 1) + text,
            "a value that ends behind": b"\x12" + varint(len(text) - 1) + text,
            "a text and another": sized(0x12, text + sized(0x0A, b"y")),
            "another field than a value": sized(0x1A, text),
        }.items()
    },
    "a length of two bytes that begins like a value": sized(
        0x4A, sized(0x0A, b"user.id") + b"\x12\x80\x0a\x7e" + b"x" * 126
    ),
    "a flag": attribute(b"\x10\x01"),
    "a flag that says no": attribute(b"\x10\x00"),
    "a flag of 2": attribute(b"\x10\x02"),
    "a flag of many bytes": attribute(b"\x10" + varint(1, wasted=9)),
    "a whole": attribute(b"\x18\x07"),
    "a negative whole": attribute(b"\x18" + varint(2**64 - 1)),
    "a wasteful whole": attribute(b"\x18" + varint(7, wasted=3)),
    "a whole of ten bytes": attribute(b"\x18" + varint(2**63 + 5)),
    "a whole of eleven bytes": attribute(b"\x18" + varint(7, wasted=10)),
    "a whole beyond 64 bits": attribute(b"\x18" + b"\xff" * 9 + b"\x7f"),
    "a whole cut off": attribute(b"\x18\x80"),
    "a whole and more": attribute(b"\x18\x07\x18\x08"),
    "a real": attribute(b"\x21" + bytes(6) + b"\xf0\x3f"),
    "a real cut off": attribute(b"\x21" + bytes(7)),
    "a list": attribute(
        AnyValue(array_value={"values": [{"string_value": "x"}, {"int_value": 7}]}).SerializeToString()
    ),
    "a list that is none": attribute(sized(0x2A, b"\xff")),
    "a list with a text that is no UTF-8": attribute(sized(0x2A, sized(0x0A, sized(0x0A, b"\xff")))),
    "a tree": attribute(sized(0x32, b"")),
    "bytes": attribute(sized(0x3A, b"x")),
    "a type of the future": attribute(b"\x40\x07"),
    "more than anybody has": b"".join(attribute(sized(0x0A, b"x"), key=b"key %d" % place) for place in range(600)),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD_FIELDS)
def test_every_way_to_write_a_field_is_read_or_left_to_the_decoder(what):
    """A span with an unusual field among plain ones ends as it does alone before the decoder, and so do the others."""
    plain = [span(span_id=bytes([place]) * 8) for place in range(1, 4)]
    odd = span(span_id=b"o" * 8)
    assert_same(body(plain[0], odd + ODD_FIELDS[what], *plain[1:]))
    assert_same(body(*plain, ODD_FIELDS[what] + odd))
    assert_same(body(*(each + ODD_FIELDS[what] for each in [*plain, odd])))


ODD_BODIES = {
    "nothing": b"",
    "an empty resource": sized(0x0A, b""),
    "a scope without spans": body(),
    "a scope whose name is no UTF-8": sized(0x0A, sized(0x12, sized(0x0A, sized(0x0A, b"\xff")))) + body(span()),
    "a resource behind its scopes": sized(0x0A, sized(0x12, sized(0x12, span())) + sized(0x0A, sized(0x0A, KeyValue(
        key="service.name", value={"string_value": "bot"}).SerializeToString()))),
    "a scope behind its spans": sized(0x0A, sized(0x12, sized(0x12, span()) + sized(0x0A, sized(0x0A, b"late")))),
    "an unknown field": body(span()) + sized(0x12, b"what"),
    "an unknown number": body(span()) + b"\x10\x07",
    "an unknown field of a scope": sized(0x0A, sized(0x12, sized(0x12, span()) + b"\x20\x07")),
    "a resource cut off": body(span())[:-1],
    "a length without its end": body(span()) + b"\x0a\xff\xff",
    "a length of many bytes": b"\x0a" + varint(len(body(span())[2:]), wasted=6) + body(span())[2:],
    "a text that goes on in a long span": body(span() + attribute(b"\x0a\x02"), span(name="x" * 130)),
    "text": b"this is no protobuf",
    "a span of no bytes": body(b"", span()),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD_BODIES)
def test_every_layout_is_read_or_left_to_the_decoder(what):
    """A body that is not made of resources, scopes and spans as usual ends as the decoder says."""
    assert_same(ODD_BODIES[what])


def test_spans_of_the_sdk_are_read_at_once():
    """What OpenTelemetry's own SDK writes is plain, states, statuses and lists included: the decoder gets none."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("a tracer")
    context = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "1")]))
    with tracer.start_as_current_span("outside", context=set_span_in_context(NonRecordingSpan(context))) as outer:
        outer.set_attributes({"user.id": "u", "http.response.status_code": 200, "retried": True, "ratio": -0.5})
        with tracer.start_as_current_span("inside", attributes={"tags": ["a", "b"], "count": -1, "empty": ""}) as inner:
            inner.set_status(Status(StatusCode.ERROR, "why not"))
    data = encode_spans(exporter.get_finished_spans()).SerializeToString()
    assert_same(data)
    assert (read_many_traces(data).rows.num_rows, len(read_many_traces(data).events)) == (2, 0)


def test_a_span_without_a_status_is_plain_whatever_it_begins_with():
    """Fields in another order, with what would be a long length at the front, cost a span nothing but its order."""
    start = b"\x39" + b"\xff" * 3 + (1_767_600_000_000_000_000 >> 24).to_bytes(5, "little")
    plain = Span(trace_id=b"t" * 16, span_id=b"s" * 8, name="a span", end_time_unix_nano=2**62).SerializeToString()
    data = body(start + plain, span(span_id=b"o" * 8) + ODD_FIELDS["a message"])
    assert read_many_traces(data).rows.num_rows == 2
    assert_same(data)


def test_a_body_of_any_size_is_read(monkeypatch):
    """A body in which places would not fit their numbers goes to the decoder as it is."""
    monkeypatch.setattr(wire, "_MOST_SIZE", 100)
    assert_same(body(span(), span(span_id=b"o" * 8)))
    assert read_many_traces(body(span(), span(span_id=b"o" * 8))).rows is None


texts = st.text(max_size=6) | st.sampled_from(["", "x" * 130])
scalars = texts | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300) | st.floats() | st.booleans() | st.none()
names = st.sampled_from(["user.id", "tenant.id", "tenant", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"])
attributes = st.lists(st.tuples(names | texts, scalars | st.lists(texts, max_size=2)), max_size=4)


@st.composite
def requests(draw):
    """Return the bytes of requests with few and repeated shapes."""
    kinds = draw(st.lists(attributes, min_size=1, max_size=3))
    made = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(1, 2))):
        scope = made.resource_spans.add().scope_spans.add()
        for items in draw(st.lists(st.sampled_from(kinds), max_size=6)):
            scope.spans.add().ParseFromString(span(kind=draw(st.integers(0, 5)), name=draw(texts)))
            scope.spans[-1].attributes.extend(pairs(items))
    return made.SerializeToString()


@settings(max_examples=400, deadline=None)
@given(data=requests(), draw=st.data())
def test_no_byte_makes_a_difference_between_both_ways(data, draw):
    """Bytes changed, left out, put in or cut off anywhere: the outcome is the decoder's, events, counts and errors."""
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        place = draw.draw(st.integers(0, max(len(changed) - 1, 0)))
        end = place + draw.draw(st.integers(0, 2))
        changed[place:end] = draw.draw(st.binary(max_size=2) | st.sampled_from([b"\x80", b"\xff", b"\x0a", b"\x12"]))
    assert_same(bytes(changed[: draw.draw(st.sampled_from([len(changed), len(changed) - 1]))]))


@settings(max_examples=100)
@given(data=requests(), draw=st.data())
def test_the_rest_of_a_body_is_the_request_without_the_other_spans(data, draw):
    """Whatever spans are left, the rest decodes to the same request with these alone, resources and scopes kept."""
    found = Body(data)
    left = draw.draw(st.lists(st.integers(0, max(len(found.starts) - 1, 0)), unique=True).map(sorted))
    left = left if len(found.starts) else []
    wanted = ExportTraceServiceRequest.FromString(data)
    place = 0
    for group in wanted.resource_spans:
        for scope in group.scope_spans:
            kept = [each for number, each in enumerate(scope.spans, place) if number in left]
            place += len(scope.spans)
            del scope.spans[:]
            scope.spans.extend(kept)
    assert ExportTraceServiceRequest.FromString(found.rest(left)) == wanted
