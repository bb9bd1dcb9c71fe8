"""Every time zone that the machine knows, at every change of its clock: periods against an oracle of whole segments."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from opsloop.rate_limit import quota

FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1970, 2038))
HOUR, DAY, SECOND = 3600, 86_400, 10**9
LOOK = 5 * DAY
"""Between two looks at a zone's offset; what is there and back within them is not seen."""


def offset_at(moment, zone):
    """Return the zone's offset in seconds."""
    return round(datetime.fromtimestamp(moment, UTC).astimezone(zone).utcoffset().total_seconds())


def segments_of(zone):
    """Return the stretches of one offset as (first second, second after the last, offset)."""
    found, start, offset = [], FIRST, offset_at(FIRST, zone)
    for moment in range(FIRST + LOOK, LAST, LOOK):
        if offset_at(moment, zone) == offset:
            continue
        low, high = moment - LOOK, moment
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_at(middle, zone) == offset else (low, middle)
        found.append((start, high, offset))
        start, offset = high, offset_at(high, zone)
    return (*found, (start, LAST, offset))


def day_start(day, segments):
    """Return the first second at which a local clock has reached midnight of a day, counted from 1970."""
    return next(max(start, day * DAY - offset) for start, end, offset in segments if day * DAY - offset < end)


def hour_starts(segments):
    """Return every second at which a local clock reads HH:00."""
    return [at for start, end, offset in segments for at in range(start + -(start + offset) % HOUR, end, HOUR)]


def around(edge, segments):
    """Return the segments that meet within six days of a change, cut to that."""
    low, high = edge - 6 * DAY, edge + 6 * DAY
    return [(max(start, low), min(end, high), offset) for start, end, offset in segments if start < high and end > low]


def test_every_zone_at_every_change_of_its_clock():
    """From 1970 to 2037, a second before, at, and hours after each change: the hour and the day are the oracle's."""
    changes, wrong = {}, []
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        zone = ZoneInfo(name)
        segments = segments_of(zone)
        for (_, edge, before), (_, _, after) in itertools.pairwise(segments):
            changes.setdefault((edge, before, after), (zone, around(edge, segments)))
    for (edge, before, after), (zone, segments) in changes.items():
        hours = hour_starts(segments)
        first = (edge + min(before, after)) // DAY - 1
        days = [day_start(day, segments) for day in range(first, first + 5)]
        for moment in (edge - 1, edge, edge + HOUR // 2, edge + 3 * HOUR, edge + DAY):
            for per, starts in (("hour", hours), ("day", days)):
                at = max(place for place, start in enumerate(starts) if start <= moment)
                period = quota.period_at(moment * SECOND, per, zone)
                if (period.start_ns, period.end_ns) != (starts[at] * SECOND, starts[at + 1] * SECOND):
                    wrong.append((zone.key, per, moment, period, starts[at], starts[at + 1]))
    assert wrong == []
    assert len(changes) > 5000, "the machine's zone data is thin"


def test_weeks_and_months_begin_with_their_first_day():
    """In every zone a week begins with its Monday and a month with its first, at the instant at which that day does."""
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        zone = ZoneInfo(name)
        for now in (datetime(2026, 3, 29, 12, tzinfo=UTC), datetime(2026, 11, 1, 5, tzinfo=UTC)):
            now_ns = int(now.timestamp()) * SECOND
            today = now.astimezone(zone).date()
            for per, first in (("week", today - timedelta(days=today.weekday())), ("month", today.replace(day=1))):
                noon = datetime(first.year, first.month, first.day, 12, tzinfo=zone)
                expected = quota.period_at(int(noon.timestamp()) * SECOND, "day", zone).start_ns
                assert quota.period_at(now_ns, per, zone).start_ns == expected, (name, per)
