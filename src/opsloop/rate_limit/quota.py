"""A quota as a plain counter per calendar period: hour, day, week or month in a time zone.

The period's start is part of the counter's key, so nothing is ever reset: a new period is a new key, and a correction
that arrives after midnight goes to the day on which the request was made.

A day is ``[start, end)`` where ``start`` is the first instant whose local time has reached midnight. So days are 23 or
25 hours long where clocks change, a midnight that a zone skips begins the day at the change, and a date that a zone
skipped altogether has no length. The same holds for any other time of day at which a day may begin. Weeks begin on
Monday (ISO 8601) unless set. An hour begins wherever the local clock reads ``HH:00``, both times when it does so twice.
Boundaries increase strictly and leave no gap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from opsloop.clock import NANOSECONDS

__all__ = ["Calendar", "Per", "Period", "correct", "period_at", "take"]

Per = Literal["hour", "day", "week", "month"]
HOUR_SECONDS: Final = 3600
MIDNIGHT: Final = timedelta(0)
EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local wall time, compared with local wall time only


class Period(msgspec.Struct, frozen=True):
    """One calendar period: from ``start_ns`` on, up to and without ``end_ns``."""

    start_ns: int
    end_ns: int


def take(amount: int, used: int, cost: int, resets_in_ns: int) -> tuple[int, int | None]:
    """Take ``cost`` units if they are left; return (used after, nanoseconds to wait).

    The wait is 0 when they were taken, the rest of the period when not, ``None`` when no period has that much.

    >>> take(3, 2, 1, 60), take(3, 3, 1, 60), take(3, 0, 4, 60)
    ((3, 0), (3, 60), (0, None))
    """
    if cost > amount:
        return used, None
    if used + cost > amount:
        return used, resets_in_ns
    return used + cost, 0


def correct(used: int, units: int) -> int:
    """Charge ``units`` more, or give them back when negative, without a check; a counter never goes below zero.

    >>> correct(5, 3), correct(2, -3)
    (8, 0)
    """
    return max(0, used + units)


def period_at(now_ns: int, per: Per, zone: ZoneInfo, *, reset_at: timedelta = MIDNIGHT, week_start: int = 0) -> Period:
    """Return the period of ``zone`` that holds ``now_ns``.

    Days, weeks and months begin at the local time ``reset_at``, weeks on day ``week_start`` (0 is Monday).

    >>> from opsloop.clock import parse_time, utc
    >>> spring = period_at(parse_time("2026-03-29T12:00:00Z"), "day", ZoneInfo("Europe/Berlin"))
    >>> utc(spring.start_ns), (spring.end_ns - spring.start_ns) // (3600 * NANOSECONDS)
    ('2026-03-28T23:00:00.000Z', 23)
    """
    now = now_ns // NANOSECONDS
    if per == "hour":
        start, end = _hour(now, zone)
    else:
        start, end = _days(now, functools.partial(_first, per, week_start), _NEXTS[per], zone, reset_at)
    return Period(start * NANOSECONDS, end * NANOSECONDS)


class Calendar:
    """The periods of one kind in one zone, with the last one remembered: a decision seldom crosses midnight."""

    def __init__(self, per: Per, zone: ZoneInfo, *, reset_at: timedelta = MIDNIGHT, week_start: int = 0) -> None:
        """Name the kind of period and where it is reckoned; see :func:`period_at`."""
        self.per: Per = per
        self.zone = zone
        self.reset_at = reset_at
        self.week_start = week_start
        self._last = Period(0, 0)

    def period_at(self, now_ns: int) -> Period:
        """Return :func:`period_at` of this calendar."""
        period = self._last
        if not period.start_ns <= now_ns < period.end_ns:
            period = period_at(now_ns, self.per, self.zone, reset_at=self.reset_at, week_start=self.week_start)
            self._last = period
        return period


def _offset(moment: int, zone: ZoneInfo) -> int:
    """Return the zone's offset from UTC in seconds at an instant."""
    local = datetime.fromtimestamp(moment, tz=UTC).astimezone(zone)
    return round((local.utcoffset() or timedelta()).total_seconds())


def _hour(now: int, zone: ZoneInfo) -> tuple[int, int]:
    """Return the last and the next instant around ``now`` at which the local clock reads HH:00."""
    offset = _offset(now, zone)
    start = now - (now + offset) % HOUR_SECONDS
    end = start + HOUR_SECONDS
    before, after = _offset(start, zone), _offset(end, zone)
    if before != offset:
        start = now - (now + before) % HOUR_SECONDS
        while _offset(start, zone) != before:
            start -= HOUR_SECONDS
    if after != offset:
        end = now - (now + after) % HOUR_SECONDS + HOUR_SECONDS
        while _offset(end, zone) != after:
            end += HOUR_SECONDS
    return start, end


def _days(
    now: int,
    first: Callable[[date], date],
    following: Callable[[date], date],
    zone: ZoneInfo,
    reset_at: timedelta,
) -> tuple[int, int]:
    """Return the start and end of the period of whole days around ``now``."""
    local = datetime.fromtimestamp(now, tz=UTC).astimezone(zone).replace(tzinfo=None)
    day = first((local - reset_at).date())
    start, end = _reached(day, reset_at, zone), _reached(following(day), reset_at, zone)
    while end <= now:  # the local clock was set back across the reset: the new day has begun once already
        day = following(day)
        start, end = end, _reached(following(day), reset_at, zone)
    return start, end


@functools.lru_cache(maxsize=256)
def _reached(day: date, reset_at: timedelta, zone: ZoneInfo) -> int:
    """Return the first instant at which the zone's clock has reached the time ``reset_at`` of ``day``."""
    wall = datetime(day.year, day.month, day.day) + reset_at  # noqa: DTZ001 - as for EPOCH
    wanted = (wall - EPOCH) // timedelta(seconds=1)

    def local(moment: int) -> int:
        return moment + _offset(moment, zone)

    early = wanted - round(_utc_offset(wall, zone, fold=1).total_seconds())
    late = wanted - round(_utc_offset(wall, zone, fold=0).total_seconds())
    if local(late) == wanted:
        return late
    while late - early > 1:  # the time lies in a gap: bisect for the change itself
        middle = (early + late) // 2
        early, late = (early, middle) if local(middle) >= wanted else (middle, late)
    return late


def _utc_offset(wall: datetime, zone: ZoneInfo, *, fold: int) -> timedelta:
    return wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()


def _first(per: Per, week_start: int, day: date) -> date:
    """Return the first day of the period that holds ``day``."""
    if per == "week":
        return day - timedelta(days=(day.weekday() - week_start) % 7)
    return day.replace(day=1) if per == "month" else day


_NEXTS: Final[dict[str, Callable[[date], date]]] = {
    "day": lambda day: day + timedelta(days=1),
    "week": lambda day: day + timedelta(days=7),
    "month": lambda day: (day + timedelta(days=32)).replace(day=1),
}
