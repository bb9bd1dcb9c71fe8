"""A large body of spans becomes the same events, whichever way it goes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.json import encode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from opsloop.event import flatten
from opsloop.filter import Statement
from opsloop.ingest import accept, content, flat, mapping, plan, read_traces
from opsloop.ingest.attributes import Attributes
from opsloop.ingest.content import content_of
from opsloop.ingest.wire import Body
from opsloop.server import bulk as bulk_way
from opsloop.server.bulk import read_many_traces, rows_in_time
from opsloop.settings import ServerSettings, Settings
from opsloop.store.columns import events_of
from tests.otlp import pairs

START = 1_767_600_000_000_000_000


def request(groups):
    """Return a request of [(resource items, [span fields and attribute items])]."""
    made = ExportTraceServiceRequest()
    for resource, spans in groups:
        group = made.resource_spans.add()
        group.resource.attributes.extend(pairs(resource))
        scope = group.scope_spans.add()
        for number, (fields, attributes) in enumerate(spans):
            plain = {"trace_id": b"t" * 16, "span_id": b"s" * 6 + number.to_bytes(2, "big"), "name": "a span"}
            times = {"start_time_unix_nano": START + number, "end_time_unix_nano": START + 5_000_000}
            scope.spans.add(**{**plain, **times, **fields}).attributes.extend(pairs(attributes))
    return made


NAMES = sorted(plan.asked_for())
DOCUMENTS = st.builds(
    "retrieval.documents.{}.document.{}".format, st.integers(0, 12), st.sampled_from(["id", "score", "content"])
)
MESSAGES = st.builds(
    "{}.{}.content".format, st.sampled_from(["gen_ai.prompt", "gen_ai.completion"]), st.integers(0, 99)
)
names = st.sampled_from(NAMES) | st.text(max_size=6) | DOCUMENTS | MESSAGES | st.sampled_from(["input", "span_name"])
marks = st.sampled_from(
    [*mapping.KINDS, "CHAT", "Tool", "ai.generateText.doStream", "ai.generateText", "new", "\u212a"]
)
objects = st.sampled_from(
    ['{"order":7}', "{}", "{ }", '{"order":7} and', '{"messages":[]}', '{"role":"user","content":"Hi"}', "{",
     '{"messages":[{"role":"user","content":"Hi"}]}', r'{"m\u006fdel":"m","input":"Yo"}', '{"model":"m","input":"Yo"}']
)  # fmt: skip
texts = (
    st.text(max_size=8)
    | marks
    | objects
    | st.sampled_from(["", "7", "az.ai.openai", '"quoted"', "a\\b/c", "\x00\x1f\u2028\x7f"])
)
numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 999) | st.floats() | st.floats(0, 10) | st.booleans()
message_texts = st.sampled_from(
    [
        '[{"role":"user","parts":[{"type":"text","content":"Hi"}]}]',
        "[]",
        "not JSON",
        '[{"role":"assistant","content":"Yo"}]',
    ]
)
scalars = texts | numbers | message_texts | st.none() | st.binary(max_size=4)
values = (
    scalars | st.lists(texts, max_size=2) | st.lists(scalars, max_size=2) | st.dictionaries(texts, scalars, max_size=2)
)


def plain_names(table):
    """Return the names in a table that lead into no other."""
    return sorted(name for names in table.values() for name in names if isinstance(name, str))


counts = st.sampled_from(plain_names(plan._COUNTS))
reals = st.sampled_from(plain_names(plan._REALS))
tabled = st.sampled_from([name for name in NAMES if name not in plan._OWN])
tidy = (
    st.tuples(tabled, texts)
    | st.tuples(counts, st.integers(0, 999))
    | st.tuples(reals, st.floats(0, 1e6) | st.integers(0, 9))
    | st.tuples(
        st.text(max_size=3),
        texts
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(-1e6, 1e6)
        | st.lists(texts, min_size=1, max_size=1),
    )
    | st.tuples(DOCUMENTS | MESSAGES | st.sampled_from(sorted(content.STRUCTURED)), scalars | message_texts)
)
tidy_items = st.lists(tidy, max_size=6, unique_by=lambda item: item[0])
odd_items = st.lists(st.tuples(names, values), max_size=5)
items = st.integers(0, 5).flatmap(lambda chance: tidy_items if chance else odd_items)
kind_items = st.lists(
    unique_by=lambda item: item[0],
    elements=st.tuples(st.sampled_from([*mapping.KIND_NAMES, *mapping.KIND_FALLBACKS]), marks),
    max_size=2,
)
tidy_fields = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.integers(0, 5),
        "parent_span_id": st.sampled_from([b"", b"p" * 8]),
        "status": st.fixed_dictionaries({"code": st.integers(0, 2), "message": texts}),
        "name": texts,
    },
)
odd_fields = st.fixed_dictionaries(
    {},
    optional={
        "parent_span_id": st.sampled_from([b"\x00" * 8, b"short"]),
        "end_time_unix_nano": st.sampled_from([START, START + 10**9, 2**64 - 1, 5]),
        "start_time_unix_nano": st.sampled_from([0, START, 2**63]),
        "trace_id": st.sampled_from([b"x" * 16, b"\x00" * 16, b"short", b""]),
    },
)
fields = st.integers(0, 9).flatmap(lambda chance: tidy_fields if chance else odd_fields)
spans = st.lists(st.tuples(fields, st.builds(lambda a, b: a + b, kind_items, items)), min_size=20, max_size=60)
resources = st.lists(
    st.tuples(
        st.sampled_from(["service.name", "service.version", "deployment.environment", "host"]),
        st.integers(0, 9).flatmap(lambda chance: texts if chance else values),
    ),
    max_size=3,
    unique_by=lambda item: item[0],
)


@pytest.fixture
def bulk(monkeypatch):
    """The way by columns, for a body of any size and shapes of any number."""
    monkeypatch.setattr(bulk_way, "LEAST_SPANS", 1)
    monkeypatch.setattr(flat, "LEAST_OF_A_SHAPE", 1)
    return read_many_traces


def by_id(events):
    """Return events by their identity and time; an id can come twice in what Hypothesis makes."""
    return sorted(events, key=lambda event: (event.event_id, event.ts_ns, encode(event, order="sorted")))


def assert_same(body, batch):
    """Compare whole events, and the leaves of the rows with their definition."""
    wanted = read_traces(body, json=False)
    rows = batch.rows
    assert by_id([*batch.events, *events_of(rows)]) == by_id(wanted.events)
    assert (batch.rejected, batch.reasons) == (wanted.rejected, wanted.reasons)
    for leaves, event in zip(rows["leaves"].to_pylist(), events_of(rows), strict=True):
        assert dict(leaves) == flatten(event.attributes)


def test_rows_are_what_the_python_mapping_makes(bulk):
    """Whatever the attributes, every span becomes the same event in either way, and the same spans are rejected."""

    @settings(max_examples=25, deadline=None)
    @given(groups=st.lists(st.tuples(resources, spans), min_size=1, max_size=2))
    def agrees(groups):
        body = request(groups).SerializeToString()
        assert_same(body, bulk(body))

    agrees()


FRAMED = st.sampled_from(
    ['[{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]',
     '[{"role": "user", "parts": [{"type": "text", "content": "Say \\"Hi\\""}]}]',
     '[{"role": "assistant", "content": "Yo"}]', '[{"role": "assistant", "content": ""}]', '["stop"]',
     '[{"id": "kb-1", "text": "a"}]', "[]", '["retrieved"', '{"model": "m", "input": "Yo"}']
)  # fmt: skip


@st.composite
def alike(draw):
    """Return spans of one shape: names that content is looked for in, with values of the same types."""
    told = [name for name, home in plan._homes().items() if home.table in {"content", "structured"}]
    written = texts | message_texts | FRAMED
    others = [st.integers(-9, 9), st.floats(-1e6, 1e6), st.booleans(), st.none(), st.lists(texts, max_size=2)]
    kinds = st.sampled_from([written, written, *others])
    listing = st.sampled_from(["gen_ai.retrieval.documents", "output.value"])
    shape = draw(st.dictionaries(st.sampled_from(told) | listing | DOCUMENTS | MESSAGES, kinds, min_size=1, max_size=6))
    if draw(st.booleans()):
        shape["openinference.span.kind"] = st.sampled_from(["RETRIEVER", "RETRIEVER", "LLM", "EMBEDDING"])
    return draw(st.lists(st.tuples(st.just({}), st.fixed_dictionaries(shape)), min_size=2, max_size=20))


def test_spans_of_one_shape_have_the_content_that_each_has_alone(bulk):
    """Whatever the values, content that is found by columns and frames is what the definition finds span by span."""
    answers = ['[{"id": "kb-1", "text": "a"}]', "[]", "[7]", "plain"]
    answered = [({}, {"openinference.span.kind": "RETRIEVER", "output.value": answer}) for answer in answers]
    listed = [({}, {"gen_ai.retrieval.documents": names}) for names in (["kb-1"], [])]

    @settings(max_examples=150, deadline=None)
    @given(spans=alike())
    @example(spans=answered)
    @example(spans=listed)
    def agrees(spans):
        body = request([([], spans)]).SerializeToString()
        batch = bulk(body)
        assert batch.rows.num_rows == len(spans)
        assert_same(body, batch)

    agrees()


def test_two_shapes_under_one_hash_stay_apart(bulk, monkeypatch):
    """Spans whose names and types hash alike are told apart, and go the other way if there are too many."""
    monkeypatch.setattr(flat, "_MIX", np.uint64(0))
    shapes = [[("user.id", "u")], [("user.id", 7)], [("tenant", "t")], [("user.id", "u"), ("tenant", "t")], []]
    body = request([([], [({}, attributes) for attributes in shapes * 3])]).SerializeToString()
    for most, rows in ((8, 15), (1, 3)):
        monkeypatch.setattr(flat, "_MOST_SHAPES", most)
        batch = bulk(body)
        assert batch.rows.num_rows == rows
        assert_same(body, batch)


def test_names_that_differ_in_one_byte_are_two_shapes(bulk, monkeypatch):
    """Wherever two names of one length differ, also where the hash does not look, their spans are rows of their own."""
    monkeypatch.setattr(flat, "_MOST_SHAPES", 64)
    names = ["n" * place + "o" + "n" * (size - place - 1) for size in range(1, 64) for place in range(size)]
    spans = [({}, [(name, value), ("last", 1)]) for value in ("x", "another") for name in names]
    body = request([([], spans)]).SerializeToString()
    assert len(flat.read_flat(Body(body)).shapes) == len(names)
    batch = bulk(body)
    assert batch.rows.num_rows == len(spans)
    assert_same(body, batch)


def test_names_in_any_order_are_shapes_that_hash_differently(bulk):
    """Spans with the same names in more orders than are looked for under one hash are rows all the same."""
    orders = [*permutations([("user.id", "u"), ("tenant", "t"), ("retries", 7), ("cache", "hit")])]
    assert len(orders) > flat._MOST_SHAPES
    body = request([([], [({}, attributes) for attributes in orders])]).SerializeToString()
    batch = bulk(body)
    assert batch.rows.num_rows == len(orders)
    assert_same(body, batch)


@settings(max_examples=60)
@given(attributes=items)
def test_a_shape_changes_nothing(attributes):
    """Attributes that remember their shape are mapped as a plain mapping is."""
    plain = dict(attributes)
    assert content_of(Attributes(plain)) == content_of(plain)
    record = plan.bare_span(Attributes(plain))
    with_plain = mapping.SpanRecord(
        **{name: getattr(record, name) for name in record.__struct_fields__ if name != "attributes"}, attributes=plain
    )
    assert list(mapping.map_span(record)) == list(mapping.map_span(with_plain))


def test_a_span_is_stored_once_whichever_way_it_comes(bulk, clickhouse):
    """A body sent again, its spans as rows or as events, adds nothing, not even within one commit."""
    body = request([([("service.name", "bot")], [({}, [("user.id", "u")]), ({}, [("user.id", 7.5)]), ({}, [])])])
    body = body.SerializeToString()
    batch = bulk(body)
    assert (len(batch.events), batch.rows.num_rows) == (1, 2)
    assert clickhouse.append(batch.events, rows=[batch.rows, batch.rows]) == 3
    assert clickhouse.append(batch.events, rows=[batch.rows]) == 0
    assert clickhouse.append(read_traces(body, json=False).events) == 0
    assert by_id(clickhouse.query()) == by_id(read_traces(body, json=False).events)


def test_spans_whose_shapes_read_the_same_are_stored(bulk, clickhouse):
    """Spans of other types under the same names are stored in one insert."""
    shapes = [[("retries", 7)], [("retries", True)], [("retries", 0.5)], [("retries", 0.5), ("cache", "hit")]]
    body = request([([], [({}, attributes) for attributes in shapes])]).SerializeToString()
    batch = bulk(body)
    assert batch.rows.num_rows == len(shapes)
    assert clickhouse.append(batch.events, rows=[batch.rows]) == len(shapes)
    assert by_id(clickhouse.query()) == by_id(read_traces(body, json=False).events)


def test_rows_out_of_time_are_rejected_by_the_same_rule(bulk):
    """Whichever way a body goes, the same spans are kept, and the others counted with the same reason."""
    old = {"start_time_unix_nano": 5}
    body = request([([], [({}, []), (old, []), ({}, [])])]).SerializeToString()
    when = {"now_ns": START + 10**9, "settings": Settings(server=ServerSettings(retention_days=30))}
    kept = accept(rows_in_time(bulk(body), **when), **when)
    wanted = accept(read_traces(body, json=False), **when)
    assert by_id([*kept.events, *events_of(kept.rows)]) == by_id(wanted.events)
    assert (kept.accepted, kept.rejected, kept.reasons) == (2, 1, wanted.reasons)


def test_listeners_are_told_of_rows_as_of_events(bulk, clickhouse):
    """Whoever follows the store hears of every row, in the order of the sequence numbers."""
    told = []
    clickhouse.listeners.append(told.extend)
    body = request([([], [({}, [("gen_ai.operation.name", "chat")]), ({}, [("gen_ai.operation.name", "tool")])])])
    batch = bulk(body.SerializeToString())
    clickhouse.append(batch.events, rows=[batch.rows])
    stored = clickhouse.rows(Statement("SELECT event_id FROM events ORDER BY sequence"))
    assert [event.event_id for event in told] == [event_id for (event_id,) in stored]
    assert by_id(told) == by_id(read_traces(body.SerializeToString(), json=False).events)
