"""SQL says what the plain functions say: every count, every quantile, every level, every budget."""

from __future__ import annotations

from itertools import pairwise
from math import isclose

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import Count, Window, count_slo, signals
from opsloop.dashboard.budgets import budget_series
from opsloop.dashboard.evaluation import grid, read_series, read_signals, read_slos
from opsloop.dashboard.period import period_of
from opsloop.dashboard.slo import judge_slo, period_seconds
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.settings import SloSettings
from tests.dashboard.traffic import END_NS, MINUTE_NS, caches, levels, streams

twins = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
slots = st.none() | st.integers(1, 32)
labels = st.sampled_from([{}, {"tenant": "acme"}, {"status": "scored"}])
SLOS = (
    SloSettings(id="up", target=0.995),
    SloSettings(id="fast", sli="latency", target=0.95, threshold_us=1_500_000),
    SloSettings(id="first", sli="time_to_first_token", target=0.9, threshold_us=500_000, labels={"tenant": "acme"}),
    SloSettings(id="good", sli="quality", target=0.8, period_days=7),
    SloSettings(id="useful", sli="goodput", target=0.9, threshold_us=1_500_000, period_days=7),
    SloSettings(id="usable", sli="goodput", target=0.99, threshold=0.8, scorer="grounded"),
    SloSettings(id="grounded", sli="quality", target=0.8, threshold=0.75, scorer="grounded", calendar="month"),
    SloSettings(id="week", target=0.99, calendar="week", time_zone="Pacific/Auckland"),
    SloSettings(id="quarter", sli="goodput", target=0.9, calendar="quarter", time_zone="America/New_York"),
)


def only(database, events):
    """Let a database hold these events and no others."""
    database.command(Statement("TRUNCATE TABLE events"))
    database.append(events)


def same(sql, plain):
    """Compare two signals whole: exact but for the weighted mean, whose sum has an order; it agrees to 4 ulp."""
    mean, expected = sql.quality.mean, plain.quality.mean
    assert mean == expected or isclose(mean, expected, rel_tol=1e-15)
    levels = msgspec.structs.replace(sql.quality, mean=expected)
    assert msgspec.structs.replace(sql, quality=levels) == plain


@twins
@given(events=streams, slots=slots, labels=labels)
def test_a_window_in_sql_is_the_window_in_python(clickhouse, events, slots, labels):
    """Latency, traffic, errors, saturation, quality and cost of one window are equal, also where attributes are odd."""
    only(clickhouse, events)
    start_ns = END_NS - 5 * MINUTE_NS
    found = read_signals(clickhouse, start_ns=start_ns, end_ns=END_NS, labels=labels, slots=slots)
    same(found, signals(Window.of(events, start_ns=start_ns, end_ns=END_NS, labels=labels), slots=slots))


@twins
@given(events=streams, slots=slots, shift=st.integers(0, 59))
def test_each_step_of_a_series_is_a_window_of_its_own(clickhouse, events, slots, shift):
    """A series is the signals of its steps, the empty and the clipped ones too; the window comes with it."""
    only(clickhouse, events)
    start_ns, end_ns = END_NS - 5 * MINUTE_NS - shift * NANOSECONDS, END_NS - shift * NANOSECONDS // 2
    steps = grid(start_ns=start_ns, end_ns=end_ns, step_ns=MINUTE_NS)
    whole, found = read_series(clickhouse, start_ns=start_ns, end_ns=end_ns, step_ns=MINUTE_NS, slots=slots)
    same(whole, signals(Window.of(events, start_ns=start_ns, end_ns=end_ns), slots=slots))
    for each, (first, last) in zip(found, steps, strict=True):
        same(each, signals(Window.of(events, start_ns=first, end_ns=last), slots=slots))


@twins
@given(events=streams)
def test_budgets_in_sql_are_the_budgets_in_python(clickhouse, events):
    """One statement counts bad and total events of every kind of objective in all its windows."""
    only(clickhouse, events)
    expected = [judge_slo(slo, count_slo(slo, events, end_ns=END_NS), end_ns=END_NS) for slo in SLOS]
    assert read_slos(clickhouse, SLOS, end_ns=END_NS) == expected


@twins
@given(events=streams)
def test_the_spent_budget_ends_on_the_count_of_the_period(clickhouse, events):
    """The series of a budget has at most 120 steps that end now; its last sum is what the whole period counts."""
    only(clickhouse, events)
    found = budget_series(clickhouse, SLOS, end_ns=END_NS)
    for slo in SLOS:
        ends, sums = found[slo.id]
        whole = period_seconds(period_of(slo, now_ns=END_NS), end_ns=END_NS)
        assert ends[-1] == END_NS
        assert len(ends) <= 120
        assert sums[-1] == count_slo(slo, events, end_ns=END_NS)[whole]
        assert sums == sorted(sums, key=lambda each: (each.total, each.bad))


@given(start=st.integers(0, 500), length=st.integers(1, 500), step=st.integers(1, 90))
def test_a_grid_covers_its_window_once(start, length, step):
    """Steps touch, end on the grid or on the window's end, and only a stub shorter than half a step may be missing."""
    steps = grid(start_ns=start, end_ns=start + length, step_ns=step)
    assert all(start <= first < last <= start + length for first, last in steps)
    assert all(last == first for (_, last), (first, _) in pairwise(steps))
    assert all(last % step == 0 or last == start + length for _, last in steps)
    assert length - sum(last - first for first, last in steps) < step


@pytest.mark.parametrize("seconds", [300.0, 3600.0])
def test_an_event_at_the_end_counts_and_one_at_the_start_does_not(clickhouse, seconds):
    """Windows are (start, end] in SQL as in Python."""
    start_ns = END_NS - round(seconds * NANOSECONDS)
    clickhouse.append([Event(ts_ns=moment, event="request", error=True) for moment in (start_ns, END_NS)])
    found = read_signals(clickhouse, start_ns=start_ns, end_ns=END_NS)
    assert found.errors.requests == 1
    (slo,) = read_slos(clickhouse, SLOS[:1], end_ns=END_NS)
    assert (slo.bad, slo.total) == (2, 2)
    assert count_slo(SLOS[0], clickhouse.query(), end_ns=END_NS)[seconds] == Count(1, 1)


def test_the_latest_gauge_counts_and_of_one_instant_the_last_that_arrived(clickhouse):
    """A gauge that fell is low again, in SQL as in Python, for each service and model apart."""
    events = [
        Event(
            ts_ns=END_NS - back, event="gauge", model=model, attributes={"name": "queue", "value": value, "limit": 10}
        )
        for back, model, value in ((9, "", 9), (5, "", 8), (5, "", 3), (7, "small", 4))
    ]
    clickhouse.append(events)
    found = read_signals(clickhouse, start_ns=END_NS - MINUTE_NS, end_ns=END_NS)
    assert (found.saturation.ratio, found.saturation.n) == (0.4, 4)
    same(found, signals(Window.of(events, start_ns=END_NS - MINUTE_NS, end_ns=END_NS)))


@twins
@given(events=st.lists(caches | levels, min_size=2, max_size=12))
def test_a_full_cache_and_its_queue_in_sql_are_those_in_python(clickhouse, events):
    """The two conditions of a gauge with a queue hold alike, for each series, whatever came last."""
    only(clickhouse, events)
    start_ns = END_NS - 15 * MINUTE_NS
    found = read_signals(clickhouse, start_ns=start_ns, end_ns=END_NS)
    assert found.saturation == signals(Window.of(events, start_ns=start_ns, end_ns=END_NS)).saturation


def test_a_full_cache_counts_in_sql_while_requests_wait(clickhouse):
    """The level is 0 before somebody waits, the cache's own while they do; each step of a series has its own answer."""
    cache = {"name": "cache", "value": 0.95, "limit": 1.0, "queue": "by_reason waiting"}
    for back, waiting in ((90, 0), (30, 2)):
        ts_ns = END_NS - back * NANOSECONDS
        queue = {"name": "waiting", "value": waiting}
        clickhouse.append([Event(ts_ns=ts_ns, event="gauge", attributes=each) for each in (cache, queue)])
    start_ns = END_NS - 2 * MINUTE_NS
    _, found = read_series(clickhouse, start_ns=start_ns, end_ns=END_NS, step_ns=MINUTE_NS)
    assert [each.saturation.by_resource for each in found] == [{"cache": 0.0}, {"cache": 0.95}]
