"""The period of a budget at a moment: the last so many days, or a week, month or quarter of somebody's calendar.

Objects
    A *rolling* period is ``(now - T, now]``: always whole. A *calendar* one began at local midnight of its first day
    and ends, without it, at that of the next one's; its length T is what lies between, an hour less or more where
    clocks change.
Rule
    Local midnight is the first instant of the day: where a zone has it twice the first, where it skips it the change.
    Weeks begin on Monday (ISO 8601), quarters in January, April, July and October. An event at midnight belongs to the
    new period, so its window is ``(start - 1 ns, now]``.
Limits
    Burn windows are not cut at the calendar: trouble at five to midnight is trouble at five past.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.settings import SloSettings

__all__ = ["Period", "calendar_at", "period_of"]

DAY_NS = 86_400 * NANOSECONDS


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """One period, seen at a moment."""

    start_ns: int
    """Its window up to now is ``(start_ns, now]``."""
    end_ns: int
    """Its last instant; now for a rolling period."""

    @property
    def seconds(self) -> float:
        """T, how long the whole period is."""
        return (self.end_ns - self.start_ns) / NANOSECONDS

    def passed(self, now_ns: int) -> float:
        """Return the share of the period that lies behind ``now_ns``, in (0, 1]."""
        return (now_ns - self.start_ns) / (self.end_ns - self.start_ns)


def period_of(slo: SloSettings, *, now_ns: int) -> Period:
    """Return the period of an objective that holds ``now_ns``.

    >>> from opsloop.clock import parse_time, utc
    >>> quarter = SloSettings(id="up", calendar="quarter", time_zone="Europe/Berlin")
    >>> found = period_of(quarter, now_ns=parse_time("2026-05-20T12:00:00Z"))
    >>> utc(found.start_ns + 1), utc(found.end_ns + 1)
    ('2026-03-31T22:00:00.000Z', '2026-06-30T22:00:00.000Z')
    """
    if slo.calendar is None:
        return Period(start_ns=now_ns - round(slo.period_days * DAY_NS), end_ns=now_ns)
    first, following = calendar_at(now_ns, slo.calendar, ZoneInfo(slo.time_zone))
    return Period(start_ns=first - 1, end_ns=following - 1)


def calendar_at(now_ns: int, per: Literal["week", "month", "quarter"], zone: ZoneInfo) -> tuple[int, int]:
    """Return the first instant of the calendar's period that holds ``now_ns``, and the first of the next one.

    >>> from opsloop.clock import parse_time
    >>> start, end = calendar_at(parse_time("2026-03-29T12:00:00Z"), "week", ZoneInfo("Europe/Berlin"))
    >>> (end - start) // (3600 * NANOSECONDS)
    167
    """
    day = _first(datetime.fromtimestamp(now_ns // NANOSECONDS, tz=UTC).astimezone(zone).date(), per)
    start_ns, end_ns = _midnight(day, zone), _midnight(_following(day, per), zone)
    if end_ns <= now_ns:  # the clock was set back over midnight: the new day had begun once already
        day = _following(day, per)
        start_ns, end_ns = end_ns, _midnight(_following(day, per), zone)
    return start_ns, end_ns


def _first(day: date, per: str) -> date:
    match per:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case _:
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)


def _following(first: date, per: str) -> date:
    """Return the first day of the next period."""
    if per == "week":
        return first + timedelta(days=7)
    return _first(first + timedelta(days=31 if per == "month" else 95), per)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Return the first instant of a local day. A midnight that is skipped reads, by the old offset, as the change."""
    moment = datetime(day.year, day.month, day.day, tzinfo=zone)
    return round(moment.timestamp()) * NANOSECONDS
