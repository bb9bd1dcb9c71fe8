"""Calendar periods: where they begin and end, what is left of their budget, and when it will be gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS, ManualClock, parse_time, utc
from opsloop.dashboard import Count, count_slo, judge_slo, slo_windows
from opsloop.dashboard.api import endpoints
from opsloop.dashboard.burn import tiers
from opsloop.dashboard.period import calendar_at, period_of
from opsloop.dashboard.slo import period_seconds
from opsloop.event import Event
from opsloop.settings import Settings, SloSettings

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Beirut",
    "Pacific/Apia", "Asia/Kathmandu", "Africa/Casablanca", "Asia/Gaza",
)  # fmt: skip
kinds = st.sampled_from(["week", "month", "quarter"])
MONTH = SloSettings(id="up", target=0.99, calendar="month", time_zone="Europe/Berlin")


def local(moment_ns, zone):
    """Return the local date and time of an instant."""
    return datetime.fromtimestamp(moment_ns // NANOSECONDS, tz=UTC).astimezone(ZoneInfo(zone))


def first_day(day, kind):
    """Return the first day of a period, found by walking back."""
    begins = {
        "week": lambda each: each.weekday() == 0,
        "month": lambda each: each.day == 1,
        "quarter": lambda each: each.day == 1 and each.month in {1, 4, 7, 10},
    }[kind]
    while not begins(day):
        day -= timedelta(days=1)
    return day


@settings(max_examples=60)
@given(seconds=st.integers(946_684_800, 2_208_988_800), kind=kinds, zone=st.sampled_from(ZONES))
def test_a_period_holds_its_moment_and_begins_at_its_first_midnight(seconds, kind, zone):
    """From 2000 to 2040 in any zone periods touch, begin on their first day, and a second before it was another day."""
    now_ns = seconds * NANOSECONDS
    start_ns, end_ns = calendar_at(now_ns, kind, ZoneInfo(zone))
    assert start_ns <= now_ns < end_ns
    assert calendar_at(end_ns, kind, ZoneInfo(zone))[0] == end_ns
    assert calendar_at(start_ns - 1, kind, ZoneInfo(zone))[1] == start_ns
    assert local(start_ns, zone).date() == first_day(local(now_ns, zone).date(), kind)
    assert local(start_ns - NANOSECONDS, zone).date() < local(start_ns, zone).date()


@pytest.mark.parametrize(
    ("moment", "kind", "zone", "start", "hours"),
    [
        ("2026-03-15T12:00:00Z", "month", "Europe/Berlin", "2026-02-28T23:00:00.000Z", 31 * 24 - 1),
        ("2026-10-31T12:00:00Z", "month", "Europe/Berlin", "2026-09-30T22:00:00.000Z", 31 * 24 + 1),
        ("2026-03-29T12:00:00Z", "week", "Europe/Berlin", "2026-03-22T23:00:00.000Z", 167),
        ("2026-11-01T12:00:00Z", "quarter", "America/New_York", "2026-10-01T04:00:00.000Z", 92 * 24 + 1),
        ("2024-02-29T12:00:00Z", "month", "UTC", "2024-02-01T00:00:00.000Z", 29 * 24),
        ("2026-01-05T00:00:00Z", "week", "UTC", "2026-01-05T00:00:00.000Z", 168),
        ("2025-12-31T23:59:59Z", "quarter", "UTC", "2025-10-01T00:00:00.000Z", 92 * 24),
    ],
)
def test_a_clock_change_makes_a_period_an_hour_longer_or_shorter(moment, kind, zone, start, hours):
    """Days are 23 or 25 hours long where clocks change; February has 29 days in a leap year."""
    start_ns, end_ns = calendar_at(parse_time(moment), kind, ZoneInfo(zone))
    assert (utc(start_ns), (end_ns - start_ns) / NANOSECONDS / 3600) == (start, hours)


def test_an_event_at_midnight_belongs_to_the_new_month():
    """The first instant of a period is inside, the last before it outside, to the nanosecond even after a quarter."""
    for calendar in ("month", "quarter"):
        slo = SloSettings(id="up", calendar=calendar, time_zone="Europe/Berlin")
        start_ns = parse_time("2026-03-31T22:00:00Z")
        end_ns = parse_time("2026-04-30T21:59:59.999Z" if calendar == "month" else "2026-06-30T21:59:59.999Z")
        events = [Event(ts_ns=start_ns + off, event="request", error=True) for off in (-1, 0, 1)]
        counts = count_slo(slo, events, end_ns=end_ns)
        assert counts[period_seconds(period_of(slo, now_ns=end_ns), end_ns=end_ns)] == Count(2, 2)


def test_a_new_month_begins_with_a_whole_budget():
    """What was lost on the last day of a month is gone with it, while the burn of the last hours still sees it."""
    midnight = parse_time("2026-04-30T22:00:00Z")
    lost = [Event(ts_ns=midnight - k * NANOSECONDS, event="request", error=True) for k in range(1, 101)]
    good = [Event(ts_ns=midnight + 60 * NANOSECONDS, event="request")]
    before, after = (
        judge_slo(MONTH, count_slo(MONTH, lost + good, end_ns=end_ns), end_ns=end_ns)
        for end_ns in (midnight - 1, midnight + 60 * NANOSECONDS)
    )
    assert before.remaining_ratio == pytest.approx(-99)
    assert (after.remaining_ratio, after.bad, after.total) == (1.0, 0, 1)
    assert after.burn_1h == pytest.approx(100 / 101 / 0.01)
    assert after.tiers[0].verdict == "BREACH"


@settings(max_examples=40)
@given(hours=st.integers(1, 742), failing=st.integers(0, 300))
def test_the_budget_of_a_running_month_takes_the_events_so_far_for_those_to_come(hours, failing):
    """A steady service that loses its month's budget in k hours has lost hours/k of it: no jumps on the first day."""
    start_ns = parse_time("2026-05-01T00:00:00Z")
    slo = SloSettings(id="up", target=0.9, calendar="month")
    now_ns = start_ns + hours * 3600 * NANOSECONDS
    counts = dict.fromkeys(slo_windows(slo, end_ns=now_ns), Count(failing, 1000))
    found = judge_slo(slo, counts, end_ns=now_ns)
    assert found.remaining_ratio == pytest.approx(1 - failing / 100 * hours / 744, rel=1e-6, abs=1e-9)
    if failing and found.remaining_ratio > 0:
        gone = hours + found.exhausts_in_seconds / 3600
        assert failing / 100 * gone / 744 == pytest.approx(1, rel=1e-6)


def test_a_calendar_budget_says_when_a_new_one_begins():
    """The sentence has the period by its name, what is left, how long it lasts, and the next beginning."""
    now_ns = parse_time("2026-05-16T12:00:00Z")
    slo = SloSettings(id="up", target=0.99, calendar="month")
    counts = dict.fromkeys(slo_windows(slo, end_ns=now_ns), Count(1, 200))
    assert judge_slo(slo, counts, end_ns=now_ns).sentence == (
        "75.0% of the budget is left: 1 of 200 bad in this month, 1% allowed. At burn 0.50x it lasts 46.5 d more."
        " A new one begins in 15.5 d."
    )


def test_burn_windows_are_scaled_from_the_usual_length():
    """A month has the workbook's windows, a week keeps the first at an hour, a quarter has longer ones."""
    lengths = {
        calendar: [
            tier.name for tier in tiers(target=0.999, period_days=SloSettings(id="x", calendar=calendar).period_days)
        ]
        for calendar in ("week", "month", "quarter")
    }
    assert lengths == {
        "week": ["1 h / 5 m", "1.4 h / 7 m", "5.6 h / 28 m", "16.8 h / 1.4 h"],
        "month": ["1 h / 5 m", "6 h / 30 m", "1 d / 2 h", "3 d / 6 h"],
        "quarter": ["3 h / 15 m", "18 h / 1.5 h", "3 d / 6 h", "9 d / 18 h"],
    }


def test_the_burn_down_begins_with_the_month_and_ends_on_what_is_left(clickhouse):
    """The series of a calendar budget runs from its first midnight to now and never rises; explain shows the sum."""
    now_ns = parse_time("2026-05-16T22:00:00Z")
    hours = range(24 * 15)
    clickhouse.append(
        Event(ts_ns=now_ns - hour * 3600 * NANOSECONDS, event="request", error=hour % 200 == 0) for hour in hours
    )
    found, explain = endpoints(clickhouse, Settings(slo=(MONTH,), objective=()), ManualClock(now_ns))[::2]
    (slo,) = found.handler({}, b"")["slos"]
    left = slo["series"]["remaining_ratio"]
    assert left == sorted(left, reverse=True)
    assert left[-1] == pytest.approx(slo["remaining_ratio"])
    assert slo["series"]["ts_ns"][0] - parse_time("2026-04-30T22:00:00Z") < 3.3 * 3600 * NANOSECONDS
    text = explain.handler({"id": "up"}, b"")["text"].splitlines()
    assert text[0] == "up: 99% good by availability over a month in Europe/Berlin"
    between = "2026-04-30T22:00:00.000Z (inside) to 2026-05-31T22:00:00.000Z (outside)"
    assert text[2:4] == [
        f"period: {between}, T = 31 d, of which p = 0.516129",
        "so far: 2 / 360 = 0.00555556; left = 1 - (bad / total) / E * p = 0.713262",
    ]
