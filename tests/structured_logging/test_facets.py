"""Facets and histogram: the definition, and that SQL agrees with it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import And, Compare, Not, Op, Or, Statement, equals
from opsloop.structured_logging.facets import Facet, FacetValue, facets, histogram, step_width_ns, without
from opsloop.structured_logging.sql import (
    facets_from_rows,
    facets_statement,
    histogram_from_rows,
    histogram_statement,
)
from tests.strategies import events, filters

START = 1_767_600_000_000_000_000


def test_a_facet_ignores_its_own_condition():
    """Whoever has chosen a tenant still sees the others, counted under every other condition."""
    held = [
        Event(ts_ns=n, event="log", tenant=t, error=e)
        for n, (t, e) in enumerate([("a", True), ("b", True), ("b", False)])
    ]
    by_name = {facet.field: facet for facet in facets(held, equals(tenant="a", error=True))}
    assert by_name["tenant"] == Facet("tenant", (FacetValue("a", 1), FacetValue("b", 1)))
    assert by_name["event"] == Facet("event", (FacetValue("log", 1),))
    assert by_name["model"] == Facet("model", ())


def test_only_conditions_on_the_field_alone_are_left_out():
    """A condition that mixes fields stays, wherever the field is in it."""
    tenant, tool = Compare("tenant", Op.EQ, "a"), Compare("tool", Op.EQ, "x")
    mixed = Or((tenant, tool))
    assert without(And((tenant, mixed, Not(tenant))), "tenant") == And((mixed,))
    assert without(mixed, "tenant") == mixed
    assert without(tenant, "tenant") == And()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    batch=st.lists(events, max_size=12),
    where=filters,
    window=st.tuples(st.integers(0, 20), st.integers(1, 25)),
    steps=st.integers(1, 7),
    limit=st.integers(1, 3),
)
def test_sql_agrees_with_the_definition(clickhouse, batch, where, window, steps, limit):
    """For any events, filter and window, both counts from SQL are exactly those in plain Python."""
    start_ns, end_ns = START + window[0] - 1, START + window[0] + window[1]
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(batch)
    rows = clickhouse.rows(histogram_statement(where, start_ns=start_ns, end_ns=end_ns, steps=steps))
    counted = histogram_from_rows(rows, start_ns=start_ns, end_ns=end_ns, steps=steps)
    assert counted == histogram(batch, where, start_ns=start_ns, end_ns=end_ns, steps=steps)
    rows = clickhouse.rows(facets_statement(where, start_ns=start_ns, end_ns=end_ns, limit=limit))
    inside = [event for event in batch if start_ns < event.ts_ns <= end_ns]
    assert facets_from_rows(rows) == facets(inside, where, limit=limit)


@given(start=st.integers(0, 10**6), width=st.integers(1, 10**6), steps=st.integers(1, 1000))
def test_the_steps_cover_the_window(start, width, steps):
    """Steps never leave the window's end out, and are the narrowest that cover it."""
    step = step_width_ns(start, start + width, steps)
    assert (step - 1) * steps < width <= step * steps


@pytest.mark.parametrize(("start", "end", "steps"), [(0, 10, 0), (0, 10, 1001), (5, 5, 3)])
def test_a_senseless_histogram_is_refused(start, end, steps):
    """No steps, too many, or a window without length is the caller's mistake."""
    with pytest.raises(InputError):
        histogram([], start_ns=start, end_ns=end, steps=steps)
