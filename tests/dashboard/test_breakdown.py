"""By dimension: each row is what the window says of its value alone, in SQL as in Python."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock
from opsloop.dashboard import Window, signals
from opsloop.dashboard.api import endpoints
from opsloop.dashboard.breakdown import (
    DIMENSIONS,
    MOST_ROWS,
    Row,
    breakdown,
    breakdown_from_rows,
    breakdown_statement,
)
from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.settings import Settings
from tests.dashboard.traffic import END_NS, MINUTE_NS, streams

START_NS = END_NS - 5 * MINUTE_NS
twins = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(database, dimension):
    """Return the rows that SQL finds."""
    statement = breakdown_statement(dimension, start_ns=START_NS, end_ns=END_NS)
    return breakdown_from_rows(database.rows(statement), dimension)


@twins
@given(events=streams, dimension=st.sampled_from(DIMENSIONS))
def test_rows_in_sql_are_the_rows_in_python(clickhouse, events, dimension):
    """Every count, ratio and quantile of every row, in the same order."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(events)
    assert read(clickhouse, dimension) == breakdown(Window.of(events, start_ns=START_NS, end_ns=END_NS), dimension)


@settings(max_examples=40)
@given(events=streams, dimension=st.sampled_from([each for each in DIMENSIONS if each != "model"]))
def test_rows_add_up_to_the_window_and_each_is_a_window_of_its_own(events, dimension):
    """Summed, rows are the window's errors; alone, each is what the signals say with its value as the only label."""
    window = Window.of(events, start_ns=START_NS, end_ns=END_NS)
    found, whole = breakdown(window, dimension), signals(window).errors
    assert sum(row.n for row in found.rows) == whole.served
    assert sum(row.failed for row in found.rows) == whole.failed
    assert sum(row.rejected for row in found.rows) == whole.rejected
    for row in found.rows:
        only = [event for event in window.events if getattr(event, dimension) == row.key]
        alone = signals(Window.of(only, start_ns=START_NS, end_ns=END_NS))
        assert (row.n, row.failed, row.rejected) == (alone.errors.served, alone.errors.failed, alone.errors.rejected)
        assert (row.latency_us_p50, row.latency_us_p95) == (alone.latency.served.p50, alone.latency.served.p95)
        assert row.few == (alone.latency.served.n < 200)


def test_whose_failure_it_was_is_told_apart(clickhouse):
    """Our 429 is in no ratio, a refusal of the provider and a 5xx are failures, and one may be both; in SQL too."""
    seen = [
        Event(ts_ns=END_NS, event="request", tenant="acme", status_code=429, error_type="rate_limited"),
        Event(ts_ns=END_NS, event="request", tenant="acme", status_code=503, error=True, error_type="upstream_429"),
        Event(ts_ns=END_NS, event="request", tenant="acme", status_code=500, error=True, error_type="KeyError"),
        Event(ts_ns=END_NS, event="request", tenant="acme", error=True, error_type="timeout"),
        Event(ts_ns=END_NS, event="request", tenant="acme", status_code=200, duration_us=70),
        Event(ts_ns=END_NS, event="llm", tenant="acme", error=True, error_type="upstream_429"),
    ]
    clickhouse.append(seen)
    (row,) = breakdown(Window.of(seen, start_ns=START_NS, end_ns=END_NS), "tenant").rows
    assert read(clickhouse, "tenant").rows == (row,)
    assert row == Row(
        key="acme",
        n=4,
        rejected=1,
        failed=3,
        upstream=1,
        server_errors=2,
        error_ratio=0.75,
        latency_us_p50=70.0,
        latency_us_p95=70.0,
        few=True,
    )


def test_the_smallest_rows_are_left_out_and_counted(clickhouse):
    """A thousand tenants make fifty rows and a remark, the same in both forms."""
    events = [Event(ts_ns=END_NS, event="request", tenant=f"t{k:03}") for k in range(60) for _ in range(60 - k)]
    clickhouse.append(events)
    found = read(clickhouse, "tenant")
    assert (len(found.rows), found.left_out, found.rows[0].key, found.rows[0].n) == (MOST_ROWS, 10, "t000", 60)
    assert found == breakdown(Window.of(events, start_ns=START_NS, end_ns=END_NS), "tenant")


def test_the_endpoint_answers_by_route_unless_asked(clickhouse):
    """The window is the one that was asked for; another dimension is refused with the known ones."""
    clickhouse.append([Event(ts_ns=END_NS - MINUTE_NS, event="request", route="/chat", duration_us=9)])
    ask = endpoints(clickhouse, Settings(), ManualClock(END_NS))[1].handler
    assert [row.key for row in ask({"from": "2m"}, b"").rows] == ["/chat"]
    assert ask({"from": "30s"}, b"").rows == ()
    assert ask({"dimension": "model"}, b"").counted == "model calls"
    with pytest.raises(InputError, match="no dimension 'planet'; use one of service, route, tenant, release, model"):
        ask({"dimension": "planet"}, b"")
