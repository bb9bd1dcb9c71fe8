"""The contract of the stream's port, run over every form of it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.errors import FilterError
from opsloop.event import Event
from opsloop.filter import ALL, Compare, Op, Statement, compile_filter, equals, matches
from opsloop.stream import MemoryStream
from tests.strategies import events, filters

START = 1_767_600_000_000_000_000


def tool(offset, **fields):
    """Build a tool event ``offset`` nanoseconds into the window."""
    return Event(ts_ns=START + offset, event="tool", **fields)


def test_what_goes_in_comes_out_in_time_order(stream):
    """Every field survives, and the order is by time, then by arrival."""
    late, early, twin = tool(5, message="late"), tool(1, message="early"), tool(1, message="twin")
    assert stream.append([late, early, twin]) == 3
    assert stream.query() == [early, twin, late]
    assert stream.query(newest_first=True) == [late, twin, early]


def test_a_window_is_open_at_its_start_and_closed_at_its_end(stream):
    """An event at start_ns is outside, one at end_ns is inside, so windows that touch share nothing."""
    stream.append([tool(offset) for offset in (1, 2, 3, 4)])
    found = stream.query(start_ns=START + 1, end_ns=START + 3)
    assert [event.ts_ns - START for event in found] == [2, 3]


def test_the_limit_keeps_the_first_of_the_order_asked_for(stream):
    """With newest_first a limit means the latest; zero means none."""
    stream.append([tool(offset) for offset in (1, 2, 3)])
    assert [event.ts_ns - START for event in stream.query(limit=2, newest_first=True)] == [3, 2]
    assert stream.query(limit=0) == []


def test_an_identified_event_is_stored_once(stream):
    """Redelivery in the same call or a later one adds nothing; events without an id are all kept."""
    span, plain = tool(1, event_id="span-1"), tool(1)
    assert stream.append([span, span, plain, plain]) == 3
    assert stream.append([span]) == 0
    assert stream.query() == [span, plain, plain]


def test_attributes_survive_exactly(stream):
    """Nested, dotted, null and mixed attributes come back as they went in."""
    attributes = {"gen_ai.system": "x", "gen_ai": {"system": None}, "docs": [1, "two", {"three": 3.5}], "empty": {}}
    stream.append([tool(1, attributes=attributes)])
    assert stream.query()[0].attributes == attributes


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batch=st.lists(events, min_size=1, max_size=12), where=filters)
def test_sql_agrees_with_the_definition(clickhouse, batch, where):
    """For any events and any filter, the compiled SQL finds exactly what matches() finds, in the same order."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(batch)
    memory = MemoryStream(batch)
    assert memory.query() == clickhouse.query()
    assert memory.query(where) == clickhouse.query(where)
    assert memory.query(where) == [event for event in memory.query() if matches(where, event)]


@pytest.mark.parametrize("op", Op)
def test_an_attribute_that_is_not_there_passes_nothing(stream, op):
    """Only an attribute that is there is compared: with an empty text it passes, without it never does."""
    stream.append([tool(1), tool(2, attributes={"a": ""}), tool(3, attributes={"a": "x"})])
    for value in ("", "x", "*", "x*", "a"):
        where = Compare("a", op, value)
        assert stream.query(where) == [event for event in stream.query() if matches(where, event)]
        assert not matches(where, tool(1))


@given(where=filters)
def test_no_value_is_spliced_into_sql(where):
    """A person's text never shows up in the SQL, only among its parameters."""
    hostile = "'; DROP TABLE events; --"
    statement = compile_filter(Compare(f"path{hostile}", Op.EQ, hostile))
    assert "DROP" not in statement.sql
    assert hostile in statement.parameters.values()
    assert "größe" not in compile_filter(where).sql


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (equals(duration_us="fast"), "duration_us is compared with a number, not 'fast'; write duration_us:>=500"),
        (equals(severity="loud"), "unknown severity 'loud'; use one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL"),
        (equals(error="maybe"), "error is true or false, not 'maybe'; write error:true"),
        (Compare("error", Op.GLOB, "t*"), "error cannot be matched by a text pattern; compare it with = < <= > >="),
        (
            Compare("attributes.", Op.EQ, 1),
            "a filter needs a field or an attribute path; write attributes.NAME, or NAME alone",
        ),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(stream, where, message):
    """A filter that compares a field with what it never holds says so, in every form."""
    stream.append([tool(1)])
    with pytest.raises(FilterError) as caught:
        stream.query(where)
    assert str(caught.value) == message


def test_all_passes_everything(stream):
    """The empty conjunction is the filter that every event passes."""
    stream.append([tool(1), tool(2)])
    assert len(stream.query(ALL)) == 2
