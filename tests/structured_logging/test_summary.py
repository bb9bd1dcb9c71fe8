"""The pipe: a number per group, the same from SQL as in plain Python."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.structured_logging.sql import groups_from_rows, summary_statement
from opsloop.structured_logging.summary import FUNCTIONS, Group, Summary, summarise
from tests.strategies import events, filters

START, END = 1_767_600_000_000_000_000, 1_767_600_000_000_000_020
fields = st.sampled_from(["duration_us", "score", "retry.count", "status_code", "ts_ns", "message", "error"])
groups = st.sampled_from(
    ["", "tenant", "model", "error", "severity", "status_code", "score", "größe", "it's } {by:String}"]
)
summaries = st.builds(
    lambda function, field, by: Summary(function, "" if function == "count" else field, by),
    st.sampled_from(FUNCTIONS),
    fields,
    groups,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batch=st.lists(events, max_size=12), where=filters, summary=summaries)
def test_sql_agrees_with_the_definition(clickhouse, batch, where, summary):
    """For any events, filter, function and fields, both forms have the same groups with the same numbers."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(batch)
    inside = [event for event in batch if START < event.ts_ns <= END]
    rows = clickhouse.rows(summary_statement(where, summary, start_ns=START, end_ns=END))
    found = {group.group: (pytest.approx(group.value, rel=1e-9), group.n) for group in groups_from_rows(rows)}
    assert {group.group: (group.value, group.n) for group in summarise(inside, summary, where)} == found


def test_groups_come_by_value():
    """The largest first, ties in the order of their names; what is no number is neither used nor counted."""
    made = [("b", 3), ("a", 3), ("c", None), ("", 9)]
    batch = [Event(ts_ns=0, event="llm", model=model, duration_us=took) for model, took in made]
    assert summarise(batch, Summary("max", "duration_us", "model")) == (
        Group("", 9.0, 1),
        Group("a", 3.0, 1),
        Group("b", 3.0, 1),
    )
    assert summarise(batch, Summary("count")) == (Group("", 4.0, 4),)
    assert summarise([], Summary("count")) == ()
