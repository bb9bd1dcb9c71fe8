"""Roll-ups say what the rows say: however a window is cut, whatever came late or twice, or was deleted since."""

from __future__ import annotations

import re
from importlib import resources
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import Count, count_slo
from opsloop.dashboard.budgets import budget_series, slo_counts
from opsloop.dashboard.rollup import DURATION_BOUNDS_US, FIRST_TOKEN_BOUNDS_US, rolled_statement, why_rows
from opsloop.dashboard.sql import slo_band, slo_counts_from_rows, slo_starts, slo_statement
from opsloop.errors import StoreError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.rollup import KEYS, SLOT_NS, cut
from opsloop.settings import SloSettings
from opsloop.store.rolled import roll_up_quiet_days

END_NS = 1_767_603_600 * NANOSECONDS
IDS = count()
SLOS = (
    SloSettings(id="up", target=0.995),
    SloSettings(id="fast", sli="latency", target=0.95, threshold_us=1_500_000, labels={"tenant": "acme"}),
    SloSettings(id="first", sli="time_to_first_token", target=0.9, threshold_us=500_000, period_days=7),
    SloSettings(id="month", target=0.9, calendar="month", labels={"error_type": "timeout", "route": "/chat"}),
)
"""Objectives that roll-ups answer."""
USED = ", force_optimize_projection_name = 'rollup'"
"""Fails a statement that does not read the roll-up."""

twins = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
moments = st.integers(-30_000, 900).map(lambda seconds: END_NS + seconds * NANOSECONDS) | st.integers(-40, 2).map(
    lambda slot: END_NS + slot * SLOT_NS
)
requests = st.builds(
    Event,
    ts_ns=moments,
    event=st.sampled_from(["request", "request", "request", "llm"]),
    tenant=st.sampled_from(["", "acme"]),
    route=st.sampled_from(["", "/chat"]),
    error=st.booleans(),
    error_type=st.sampled_from(["", "timeout", "rate_limited"]),
    duration_us=st.none() | st.sampled_from([0, 1_500_000, 1_500_001, 9_000_000]),
    time_to_first_token_us=st.none() | st.sampled_from([499_999, 500_000, 500_001]),
)
batches = st.lists(st.lists(requests, max_size=12), min_size=1, max_size=3)
ends = st.integers(0, 2 * SLOT_NS).map(lambda back: END_NS - back) | st.just(END_NS)


def roll_up(database):
    """Merge every part and build what no merge has built, as the engine and the worker do in time."""
    database.command(Statement("OPTIMIZE TABLE events FINAL"))
    database.command(Statement("ALTER TABLE events MATERIALIZE PROJECTION rollup SETTINGS mutations_sync = 2"))


def by_rollup(database, slos, *, end_ns, plan=USED):
    """Count from a statement that must read the roll-up."""
    starts = slo_starts(slos, end_ns=end_ns)
    statement = rolled_statement(slos, cuts=(*starts, end_ns), band=slo_band(starts))
    rows = database.rows(Statement(statement.sql + plan, statement.parameters))
    return slo_counts_from_rows(rows, slos, end_ns=end_ns)


def by_row(database, slos, *, end_ns):
    """Count row by row."""
    return slo_counts_from_rows(database.rows(slo_statement(slos, end_ns=end_ns)), slos, end_ns=end_ns)


@twins
@given(arrivals=batches, late=batches, end_ns=ends)
def test_rollups_rows_and_the_definition_count_the_same(clickhouse, arrivals, late, end_ns):
    """Rolled up, half rolled up when late events came, and rolled up again: always what plain Python counts."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append([Event(ts_ns=END_NS - 100_000 * NANOSECONDS, event="request", tenant="acme")])
    stored = list(clickhouse.query())
    for round_of in (arrivals, late):
        for batch in round_of:
            named = [event.replace(event_id=f"e-{next(IDS)}") for event in batch]
            clickhouse.append(named)
            clickhouse.append(named)
            stored += named
        expected = {slo.id: count_slo(slo, stored, end_ns=end_ns) for slo in SLOS}
        assert slo_counts(clickhouse, SLOS, end_ns=end_ns) == expected
        roll_up(clickhouse)
        assert by_rollup(clickhouse, SLOS, end_ns=end_ns) == expected
        assert by_row(clickhouse, SLOS, end_ns=end_ns) == expected


def test_what_expires_or_is_deleted_leaves_the_rollups_too(clickhouse):
    """A TTL, a mutation, a light delete and a dropped day take from both the same."""
    hour_ns = 3600 * NANOSECONDS
    clickhouse.append(
        Event(ts_ns=END_NS - n * hour_ns, event="request", error=n % 7 == 0, tenant=f"t{n % 5}", duration_us=n * 10**5)
        for n in range(24 * 3)
    )
    roll_up(clickhouse)
    moment = "toDateTime(intDiv(ts_ns, 1000000000))"
    changes = (
        "ALTER TABLE events DELETE WHERE tenant = 't1' SETTINGS mutations_sync = 2",
        "DELETE FROM events WHERE tenant = 't2'",
        "ALTER TABLE events DROP PARTITION 20260103",
        f"ALTER TABLE events MODIFY TTL {moment} + toIntervalDay(1) DELETE WHERE tenant = 't3'",
    )
    totals = []
    for change in changes:
        clickhouse.command(Statement(change))
        roll_up(clickhouse)
        found = by_rollup(clickhouse, SLOS, end_ns=END_NS)
        assert found == by_row(clickhouse, SLOS, end_ns=END_NS)
        totals.append(found["up"][30 * 86_400.0].total)
    assert totals == sorted(set(totals), reverse=True)


@twins
@given(
    start=st.integers(0, 5 * SLOT_NS), length=st.integers(1, 5 * SLOT_NS), inner=st.lists(st.floats(0, 1), max_size=3)
)
def test_a_cut_window_is_whole_slots_and_the_rows_of_the_others(clickhouse_engine, start, length, inner):
    """Every moment of a window is counted once, and none outside of it."""
    end = start + length
    cuts = [start, end, *(start + round(share * length) for share in inner)]
    found = cut(cuts)
    edges = {moment for each in cuts for moment in (each - 1, each, each + 1) if moment >= 0}
    tried = sorted(edges | {moment + move for moment in range(0, 11 * SLOT_NS, SLOT_NS) for move in (0, 1)})
    sql = f"SELECT ts_ns, {found.slots}, {found.rows} FROM (SELECT arrayJoin({{moments:Array(Int64)}}) AS ts_ns)"
    for ts_ns, whole, row in clickhouse_engine.rows(Statement(sql, {"moments": tried})):
        assert whole + row == (start < ts_ns <= end), ts_ns
        slot = -(-ts_ns // SLOT_NS)
        assert not whole or not any((slot - 1) * SLOT_NS < moment < slot * SLOT_NS for moment in cuts)


def test_the_schema_rolls_up_what_the_statements_ask_for():
    """Keys and bounds in the schema are those that Python knows; a bound more or less would be read row by row."""
    sql = resources.files("opsloop.store").joinpath("schema", "0003_rollup.sql").read_text(encoding="utf-8")
    bounds = {name: [] for name in ("duration_us", "time_to_first_token_us")}
    for name, bound in re.findall(r"countIf\((\w+) > (\d+)\)", sql):
        bounds[name].append(int(bound))
    assert bounds == {"duration_us": [*DURATION_BOUNDS_US], "time_to_first_token_us": [*FIRST_TOKEN_BOUNDS_US]}
    assert set(re.search(r"GROUP BY ([\w, ]+)", sql)[1].split(", ")) == KEYS | {"slot"}


@pytest.mark.parametrize("bounds", [DURATION_BOUNDS_US, FIRST_TOKEN_BOUNDS_US])
def test_every_bound_is_answered_from_the_rollup(clickhouse, bounds):
    """Each threshold that counts as a bound is one for the engine too, and counts strictly above it."""
    sli = "latency" if bounds is DURATION_BOUNDS_US else "time_to_first_token"
    slos = tuple(SloSettings(id=f"at-{bound}", sli=sli, target=0.9, threshold_us=bound) for bound in bounds)
    clickhouse.append(
        Event(ts_ns=END_NS - 86_400 * NANOSECONDS, event="request", duration_us=took, time_to_first_token_us=took)
        for bound in bounds
        for took in (bound, bound + 1)
    )
    roll_up(clickhouse)
    found = by_rollup(clickhouse, slos, end_ns=END_NS)
    month = 30 * 86_400.0
    n = len(bounds)
    assert [found[slo.id][month] for slo in slos] == [Count(2 * (n - at) - 1, 2 * n) for at in range(n)]


def test_a_threshold_between_bounds_is_counted_by_row(clickhouse):
    """It is never read off a bucket: the numbers are exact, and why it took every event is said."""
    slow = SloSettings(id="slow", sli="latency", target=0.9, threshold_us=1_234_567)
    clickhouse.append(
        Event(ts_ns=END_NS - 7200 * NANOSECONDS, event="request", duration_us=took) for took in (1_234_567, 1_234_568)
    )
    roll_up(clickhouse)
    assert why_rows(slow) == "no roll-up counts at 1.23 s: the next that do are 1.00 s and 1.50 s"
    assert slo_counts(clickhouse, [slow], end_ns=END_NS)["slow"][21_600.0] == Count(1, 2)
    with pytest.raises(StoreError, match="not used"):
        by_rollup(clickhouse, [slow], end_ns=END_NS)


@pytest.mark.parametrize(
    ("slo", "why"),
    [
        (SloSettings(id="useful", sli="goodput"), "goodput asks for single scores"),
        (SloSettings(id="good", sli="quality"), "quality asks for single scores"),
        (SloSettings(id="user", labels={"user_id": "u"}), "roll-ups do not tell apart by user_id"),
        (
            SloSettings(id="edge", sli="latency", threshold_us=1),
            "no roll-up counts at 1.00 µs: the next that do are 100 ms",
        ),
    ],
)
def test_what_is_counted_by_row_says_why(slo, why):
    """Scores, other columns and other thresholds are left to the rows."""
    assert why_rows(slo) == why


def test_the_course_of_a_budget_is_the_same_from_rows(clickhouse):
    """Each step's sum is the definition's count from the start of the period to the step's end."""
    events = [Event(ts_ns=END_NS - n * 900 * NANOSECONDS - n, event="request", error=n % 9 == 0) for n in range(200)]
    clickhouse.append(events)
    roll_up(clickhouse)
    now_ns = END_NS - 77 * NANOSECONDS
    ends, sums = budget_series(clickhouse, SLOS[:1], end_ns=now_ns)["up"]
    begun_ns = now_ns - 30 * 86_400 * NANOSECONDS
    counted = [count_slo(SLOS[0], events, end_ns=end, windows=[(end - begun_ns) / NANOSECONDS]) for end in ends]
    assert sums == [count for each in counted for count in each.values()]


def test_a_quiet_day_that_no_merge_has_touched_is_rolled_up_once(clickhouse):
    """A day filled in by one insert gets its roll-up in the background; one that has it is left alone."""
    clickhouse.append(Event(ts_ns=END_NS + n, event="request") for n in range(10))
    parts = Statement(
        "SELECT projections FROM system.parts WHERE active AND table = 'events' AND database = currentDatabase()"
    )
    assert clickhouse.rows(parts) == [([],)]
    assert roll_up_quiet_days(clickhouse, quiet_seconds=3600) == []
    assert roll_up_quiet_days(clickhouse, quiet_seconds=-1) == ["20260105"]
    roll_up(clickhouse)
    assert clickhouse.rows(parts) == [(["rollup"],)]
    assert roll_up_quiet_days(clickhouse, quiet_seconds=-1) == []
