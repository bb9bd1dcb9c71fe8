"""Calendar periods follow each other without gap or overlap, whatever the clocks of a zone do."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opsloop.clock import parse_time, utc
from opsloop.rate_limit import quota

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/Scoresbysund",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "America/St_Johns",
    "Africa/Casablanca",
)
moments = st.integers(parse_time("1986-01-01T00:00:00Z"), parse_time("2036-01-01T00:00:00Z"))
kinds = st.sampled_from(["hour", "day", "week", "month"])


@settings(max_examples=100, deadline=None)
@given(moments, kinds, st.sampled_from(ZONES))
def test_periods_cover_time_without_gap_or_overlap(now_ns, per, name):
    """Each moment lies in its period; both ends of it and what is next to them agree."""
    zone = ZoneInfo(name)
    period = quota.period_at(now_ns, per, zone)
    assert period.start_ns <= now_ns < period.end_ns
    assert quota.period_at(period.start_ns, per, zone) == period
    assert quota.period_at(period.end_ns - 1, per, zone) == period
    following = quota.period_at(period.end_ns, per, zone)
    assert following.start_ns == period.end_ns < following.end_ns
    previous = quota.period_at(period.start_ns - 1, per, zone)
    assert previous.start_ns < previous.end_ns == period.start_ns


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("per", ["hour", "day"])
def test_walking_over_every_clock_change_of_a_year_leaves_no_gap(name, per):
    """From period to period over the days around each change of offset, starts and ends meet."""
    zone = ZoneInfo(name)
    for year in (2011, 2024, 2026):
        first = parse_time(f"{year}-01-01T00:00:00Z")
        for day in range(365):
            now_ns = first + day * 24 * HOUR
            here, later = (
                datetime.fromtimestamp(t // SECOND, UTC).astimezone(zone) for t in (now_ns, now_ns + 24 * HOUR)
            )
            if here.utcoffset() == later.utcoffset():
                continue
            period = quota.period_at(now_ns - 24 * HOUR, per, zone)
            while period.start_ns < now_ns + 48 * HOUR:
                following = quota.period_at(period.end_ns, per, zone)
                assert following.start_ns == period.end_ns < following.end_ns
                assert quota.period_at(following.end_ns - SECOND, per, zone) == following
                period = following


@settings(max_examples=60, deadline=None)
@given(moments, st.sampled_from(ZONES))
@example(parse_time("2011-12-30T10:00:00Z"), "Pacific/Apia")
def test_a_day_begins_at_the_first_instant_of_its_date(now_ns, name):
    """At the start the local date is new, a second earlier it was not, nor ever before: no earlier instant had it."""
    zone = ZoneInfo(name)
    start_ns = quota.period_at(now_ns, "day", zone).start_ns
    at, before = (datetime.fromtimestamp(t // SECOND, UTC).astimezone(zone) for t in (start_ns, start_ns - SECOND))
    assert at.date() > before.date()


@pytest.mark.parametrize(
    ("zone", "per", "now", "start", "hours"),
    [
        ("Europe/Berlin", "day", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00.000Z", 23),
        ("Europe/Berlin", "day", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00.000Z", 25),
        ("Europe/Berlin", "week", "2026-03-29T12:00:00Z", "2026-03-22T23:00:00.000Z", 167),
        ("Europe/Berlin", "month", "2026-03-01T00:00:00Z", "2026-02-28T23:00:00.000Z", 743),
        ("UTC", "month", "2028-02-29T23:59:59Z", "2028-02-01T00:00:00.000Z", 696),
        ("UTC", "week", "2026-01-04T23:59:59Z", "2025-12-29T00:00:00.000Z", 168),
        ("Africa/Cairo", "day", "2026-04-24T12:00:00Z", "2026-04-23T22:00:00.000Z", 23),
        ("America/Havana", "day", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00.000Z", 25),
        ("Asia/Kathmandu", "hour", "2026-01-01T00:00:00Z", "2025-12-31T23:15:00.000Z", 1),
        ("Australia/Lord_Howe", "hour", "2026-10-03T15:45:00Z", "2026-10-03T14:30:00.000Z", 1.5),
    ],
)
def test_known_periods(zone, per, now, start, hours):
    """Days of 23 and 25 hours, a midnight that does not exist, weeks from Monday, a half-hour change."""
    period = quota.period_at(parse_time(now), per, ZoneInfo(zone))
    assert (utc(period.start_ns), (period.end_ns - period.start_ns) / HOUR) == (start, hours)


@given(st.integers(1, 50), st.lists(st.tuples(st.booleans(), st.integers(-20, 60))))
def test_a_counter_never_exceeds_its_amount_by_taking(amount, moves):
    """Taking stops exactly at the amount, refusals change nothing, corrections may exceed it and never go below 0."""
    used = 0
    for taking, units in moves:
        if taking:
            cost = abs(units)
            after, wait = quota.take(amount, used, cost, 9)
            assert wait == (None if cost > amount else 0 if used + cost <= amount else 9)
            assert after == (used + cost if wait == 0 else used)
            used = after
        else:
            used = quota.correct(used, units)
            assert used >= 0
