"""Calendar periods follow each other without gap or overlap, whatever the clocks of a zone do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
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


resets = st.integers(0, 24 * 60 - 1).map(lambda minutes: timedelta(minutes=minutes))


@settings(max_examples=60, deadline=None)
@given(moments, st.sampled_from(["day", "week", "month"]), st.sampled_from(ZONES), resets, st.integers(0, 6))
@example(parse_time("2026-03-29T00:59:59Z"), "day", "Europe/Berlin", timedelta(hours=2, minutes=30), 0)
@example(parse_time("2026-10-25T01:10:00Z"), "day", "Europe/Berlin", timedelta(hours=2, minutes=30), 0)
@example(parse_time("2011-12-30T10:00:00Z"), "week", "Pacific/Apia", timedelta(hours=6), 4)
def test_a_reset_time_and_a_week_start_leave_no_gap_either(now_ns, per, name, reset_at, week_start):
    """Whenever a day begins and a week with it, each moment lies in one period and the next begins where it ends."""
    zone, chosen = ZoneInfo(name), {"reset_at": reset_at, "week_start": week_start}
    period = quota.period_at(now_ns, per, zone, **chosen)
    assert period.start_ns <= now_ns < period.end_ns
    assert quota.period_at(period.start_ns, per, zone, **chosen) == period
    assert quota.period_at(period.end_ns - 1, per, zone, **chosen) == period
    following = quota.period_at(period.end_ns, per, zone, **chosen)
    assert following.start_ns == period.end_ns < following.end_ns


@settings(max_examples=60, deadline=None)
@given(moments, st.sampled_from(ZONES), resets, st.integers(0, 6))
def test_a_week_begins_on_its_day_at_its_time(now_ns, name, reset_at, week_start):
    """At the start the local clock has reached the time of the chosen weekday, a second earlier it never had."""
    zone = ZoneInfo(name)
    start = quota.period_at(now_ns, "week", zone, reset_at=reset_at, week_start=week_start).start_ns // SECOND
    at, before = (datetime.fromtimestamp(t, UTC).astimezone(zone).replace(tzinfo=None) for t in (start, start - 1))
    wanted = (
        datetime.combine(at.date() - timedelta(days=(at.weekday() - week_start) % 7), datetime.min.time()) + reset_at
    )
    if wanted > at:
        wanted -= timedelta(days=7)
    assert before < wanted <= at
    assert at - wanted < timedelta(days=1, hours=1)  # exact but for a time that the zone skipped


@pytest.mark.parametrize(
    ("zone", "reset_at", "now", "start", "hours"),
    [
        ("Europe/Berlin", 6 * 60, "2026-01-05T04:59:59Z", "2026-01-04T05:00:00.000Z", 24),
        ("Europe/Berlin", 6 * 60, "2026-01-05T05:00:00Z", "2026-01-05T05:00:00.000Z", 24),
        ("Europe/Berlin", 150, "2026-03-29T12:00:00Z", "2026-03-29T01:00:00.000Z", 23.5),
        ("Europe/Berlin", 150, "2026-03-29T00:00:00Z", "2026-03-28T01:30:00.000Z", 23.5),
        ("Europe/Berlin", 150, "2026-10-25T01:10:00Z", "2026-10-25T00:30:00.000Z", 25),
        ("America/New_York", 17 * 60, "2026-03-08T12:00:00Z", "2026-03-07T22:00:00.000Z", 23),
    ],
)
def test_known_days_that_begin_at_a_time(zone, reset_at, now, start, hours):
    """A time that spring skips begins the day at the change; one that comes twice in autumn, at its first coming."""
    period = quota.period_at(parse_time(now), "day", ZoneInfo(zone), reset_at=timedelta(minutes=reset_at))
    assert (utc(period.start_ns), (period.end_ns - period.start_ns) / HOUR) == (start, hours)


def test_a_week_from_sunday():
    """Monday the 5th of January 2026 belongs to the week of Sunday the 4th."""
    period = quota.period_at(parse_time("2026-01-05T09:00:00Z"), "week", ZoneInfo("UTC"), week_start=6)
    assert datetime.fromtimestamp(period.start_ns // SECOND, UTC).date() == date(2026, 1, 4)
