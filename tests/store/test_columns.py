"""What is stored once comes back whole: the columns that are written, and those that are worked out from them."""

from __future__ import annotations

import os
import tempfile
from enum import StrEnum
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.event import Event, flatten
from opsloop.filter import Statement
from opsloop.store.clickhouse import ClickHouseStream, _look_ups
from opsloop.store.columns import COLUMNS, HOLE, record_batch, rows_of, shape_of
from tests.strategies import events

START = 1_767_600_000_000_000_000
texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    [HOLE, '"', "\\/", "a/b", "\\", "\u2028", "'"]
)
scalars = (
    texts
    | st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
keys = texts | st.sampled_from(["a", "b", "a.b", "a.b.c", ""])
attributes = st.dictionaries(keys, trees | st.dictionaries(keys, trees, max_size=3), max_size=4)
ids = st.sampled_from(["", "t", HOLE, f"{HOLE}t", ":", "t:s", "a:b"])
odd_events = st.builds(
    lambda event, **fields: event.replace(**fields),
    events, attributes=attributes, event_id=ids, trace_id=st.sampled_from(["", "t", "a"]),
    span_id=st.sampled_from(["", "s", "b"]),
)  # fmt: skip


@settings(max_examples=60)
@given(batch=st.lists(odd_events, min_size=1, max_size=6))
def test_columns_are_the_rows(batch):
    """Packed column by column, the events are the same rows as one by one."""
    table = record_batch(batch, 7)
    assert table.column_names == list(COLUMNS)
    packed = [tuple(row.values()) for row in table.to_pylist(maps_as_pydicts="strict")]
    assert packed == rows_of(batch, 7)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batch=st.lists(odd_events, min_size=1, max_size=8))
def test_attributes_come_back_as_they_were(clickhouse, batch):
    """Whatever they hold, the JSON that is worked out is that of the event, and the leaves are those of the event."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(event.replace(event_id="") for event in batch)
    written = sorted((event.replace(event_id="") for event in batch), key=lambda event: event.ts_ns)
    assert clickhouse.query() == written
    leaves = clickhouse.rows(Statement("SELECT leaves FROM events ORDER BY ts_ns, sequence"))
    assert leaves == [(flatten(event.attributes),) for event in written]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=st.lists(st.lists(st.dictionaries(keys, scalars, min_size=1, max_size=4), max_size=5), min_size=2))
def test_bodies_of_one_commit_keep_their_paths_and_shapes_apart(clickhouse, batches):
    """Whatever paths and shapes the bodies of a commit share or do not share, each row comes back as it was."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    number = count(clickhouse.last_sequence + 1)
    made = [
        [
            Event(ts_ns=START + n, event="llm", trace_id="t", span_id=str(n), event_id=f"t:{n}", attributes=each)
            for each, n in zip(batch, number, strict=False)
        ]
        for batch in batches
    ]
    tables = [record_batch(batch, 0).drop_columns("sequence") for batch in made[1:] if batch]
    written = [event for batch in made for event in batch]
    assert clickhouse.append(made[0], rows=tables) == len(written)
    assert clickhouse.query() == written
    leaves = clickhouse.rows(Statement("SELECT leaves FROM events ORDER BY sequence"))
    assert leaves == [(flatten(event.attributes),) for event in written]


def test_every_stored_column_is_handed_over(clickhouse):
    """The table has no column that an insert leaves out: none would get its default."""
    sql = "SELECT name FROM system.columns WHERE database = {name:String} AND table = 'events' AND default_kind = ''"
    assert {row[0] for row in clickhouse.rows(Statement(sql, {"name": clickhouse.database}))} == set(COLUMNS)


def test_a_text_that_is_none_is_stored_empty(clickhouse):
    """A host that has no user to name fails neither its own commit nor that of others."""
    clickhouse.append([Event(ts_ns=START, event="log", user_id=None), Event(ts_ns=START, event="log", user_id="u-1")])
    assert [event.user_id for event in clickhouse.query()] == ["", "u-1"]


@pytest.mark.parametrize("in_memory", [True, False])
def test_inserts_of_any_size_follow_each_other(clickhouse, tmp_path, monkeypatch, in_memory):
    """What hands rows over is written over and over: short after long is whole, and no file is left in any folder."""
    folder = tmp_path / "it's \\ there"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr("opsloop.store.engine._KEPT_BYTES", 10_000)
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    sizes = [1, 50_000, 1, 30_000, 9_000, 200]
    events = [Event(ts_ns=START + n, event="log", message=f"{n}" * size) for n, size in enumerate(sizes)]
    with ClickHouseStream(":memory:", database=clickhouse.database) as stream:
        assert [stream.append([event]) for event in events] == [1] * len(events)
        assert stream.query() == events
        assert not list(folder.iterdir())


def test_ids_come_back_as_they_were(clickhouse):
    """An id is known again whether it is its own, that of its span, none, or looks like how another is stored."""
    ids = ["own", "", "t:s", HOLE, f"{HOLE}t", ":", "a:b", f"{HOLE}{HOLE}"]
    written = [
        Event(ts_ns=START + n, event="log", event_id=name, trace_id=trace_id, span_id=span_id)
        for n, (name, trace_id, span_id) in enumerate(
            [(name, "t", "s") for name in ids] + [("t:", "t", ""), (":s", "", "s"), ("x:y", "x", "y")]
        )
    ]
    assert clickhouse.append(written) == len(written)
    assert clickhouse.query() == written
    named = [event.event_id for event in written if event.event_id]
    assert clickhouse._stored(named) == set(named)


def test_a_text_is_stored_once(clickhouse):
    """The JSON of an event holds none of its texts again, and an id that its span says is not written out."""
    event = Event(ts_ns=START, event="llm", trace_id="t", span_id="s", event_id="t:s", attributes={"input": "Why?"})
    clickhouse.append([event])
    stored = "SELECT stored_event_id, stored_attributes, shape FROM events"
    assert clickhouse.rows(Statement(stored)) == [(HOLE, "", f'{{"input":"{HOLE}"}}')]
    assert clickhouse.rows(Statement("SELECT event_id, attributes FROM events")) == [("t:s", '{"input":"Why?"}')]


def insert_twice_and_merge(stream):
    """Make two parts, and of these a third."""
    for number in range(2):
        stream.append([Event(ts_ns=START + number, event="log", message="Why?")])
    stream.command(Statement("OPTIMIZE TABLE events FINAL"))


def test_a_text_and_its_length_are_stored_together(clickhouse):
    """Texts have no stream of lengths besides their own, neither in a new part nor in one that a merge has written."""
    insert_twice_and_merge(clickhouse)
    sql = (
        "SELECT groupUniqArray(substreams), max(rows) FROM system.parts_columns"
        " WHERE database = {name:String} AND table = 'events' AND column = 'message'"
    )
    assert clickhouse.rows(Statement(sql, {"name": clickhouse.database})) == [([["message"]], 2)]


def test_a_new_part_is_written_fast_and_a_merged_one_small(clickhouse):
    """Every column has the codec that the engine chooses for a part: LZ4 for an insert, ZSTD for a merge."""
    insert_twice_and_merge(clickhouse)
    parts = (
        "SELECT DISTINCT level > 0, default_compression_codec FROM system.parts"
        " WHERE database = {name:String} AND table = 'events' ORDER BY 1"
    )
    columns = (
        "SELECT name, compression_codec FROM system.columns"
        " WHERE database = {name:String} AND table = 'events' AND default_kind = ''"
    )
    name = {"name": clickhouse.database}
    assert clickhouse.rows(Statement(parts, name)) == [(0, "LZ4"), (1, "ZSTD(1)")]
    for column, codec in clickhouse.rows(Statement(columns, name)):
        assert codec.endswith("Default)"), column


def test_a_member_of_an_enum_is_stored_as_its_value(clickhouse):
    """A text that is more than a text to Python is that text to everybody else."""
    colour = StrEnum("colour", {"RED": "red"})
    clickhouse.append([Event(ts_ns=START, event="log", attributes={"own": colour.RED, "in": {"own": colour.RED}})])
    assert clickhouse.query() == [Event(ts_ns=START, event="log", attributes={"own": "red", "in": {"own": "red"}})]
    assert clickhouse.rows(Statement("SELECT leaves FROM events")) == [({"own": "red", "in.own": "red"},)]


def test_attributes_whose_paths_read_the_same_are_kept_whole(clickhouse):
    """Where the leaves cannot tell the attributes, their text is stored beside them."""
    event = Event(ts_ns=START, event="log", attributes={"a": {"b": 1}, "a.b": "two"})
    assert shape_of(event.attributes) == ""
    clickhouse.append([event])
    assert clickhouse.rows(Statement("SELECT stored_attributes, leaves['a.b'] FROM events")) == [
        ('{"a":{"b":1},"a.b":"two"}', "two")
    ]
    assert clickhouse.query() == [event]


def test_ids_are_looked_up_by_an_index(clickhouse):
    """To learn that an id is new, whether of a span or not, no row is read."""
    clickhouse.append([Event(ts_ns=START, event="log", event_id="own"), Event(ts_ns=START, event="span", trace_id="t")])
    for look_up in _look_ups(["alert:7", "nobody", "no:body"], (0, START)):
        plan = clickhouse.rows(Statement(f"EXPLAIN indexes = 1 {look_up.sql}", look_up.parameters))
        assert "Ranges: 0" in [line.strip() for (line,) in plan]
