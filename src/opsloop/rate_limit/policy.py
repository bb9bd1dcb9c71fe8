"""A policy: the limits of the settings, checked against themselves and compiled to what a decision needs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.errors import ConfigError
from opsloop.rate_limit import gcra, quota, rolling
from opsloop.rate_limit.context import PARTS, Amounts, Context, amount_of
from opsloop.rate_limit.decision import Demand
from opsloop.rate_limit.limit import PERIOD_SECONDS, Limit
from opsloop.settings import CeilingSettings, LimitSettings, OverrideSettings

__all__ = ["Policy", "policy_from_settings", "rest_ns"]

CALENDAR: Final = ("hour", "day", "week", "month")
WEEK: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Policy(msgspec.Struct, frozen=True):
    """Compiled limits, in the order of the settings. Without any, everything is admitted."""

    limits: tuple[Limit, ...] = ()
    shadow: tuple[Limit, ...] = ()
    """Limits that decide and are recorded, and never reject."""

    def forms(self) -> Iterator[Limit]:
        """Yield every limit, those in shadow too, each followed by all that stands in for it."""
        for limit in (*self.limits, *self.shadow):
            yield from _forms(limit)

    def demands(self, context: Context, estimate: Amounts, now_ns: int) -> tuple[Demand, ...]:
        """Return the limits that a request counts against, each with its key and cost, at wall-clock time ``now_ns``.

        A unit that the estimate does not mention costs 1, the least that it can be: unknown is not zero. This is the
        one place where limits and requests meet.
        """
        found = []
        for limit in self.limits:
            if limit.when and not limit.applies(context):
                continue
            if limit.cases:
                limit = limit.case(context)  # noqa: PLW2901 - from here on the case is the limit
            cost = amount_of(limit.unit, estimate) if estimate else 1
            if cost is None:
                cost = 1
            if limit.calendar is None:
                found.append(Demand(limit, (limit.root, limit.read(context)), cost, rest_ns(limit)))
            else:
                period = limit.calendar.period_at(now_ns)
                key = (limit.root, limit.read(context), period.start_ns)
                found.append(Demand(limit, key, cost, period.end_ns - now_ns))
        return tuple(found)


def _forms(limit: Limit) -> Iterator[Limit]:
    yield limit
    for _, other in limit.cases:
        yield from _forms(other)


def rest_ns(limit: Limit) -> int:
    """Return how long what is taken from a limit without a calendar counts at the longest; a rate's state knows it."""
    return limit.lease_ns if limit.window is None else rolling.longest_ns(limit.window)


def policy_from_settings(limits: Iterable[LimitSettings]) -> Policy:
    """Compile ``[[limit]]`` tables; raise :class:`ConfigError` for what contradicts itself or can never be.

    >>> policy_from_settings([LimitSettings(id="rpm", lever="rate", amount=60, burst=10)]).limits[0].capacity
    10
    """
    compiled: dict[str, Limit] = {}
    shadow: set[str] = set()
    for limit in limits:
        if limit.id in compiled:
            raise ConfigError(f"two limits have the id {limit.id!r}", fix="give each its own id")
        _check(limit)
        compiled[limit.id] = _with_cases(limit)
        if limit.shadow:
            shadow.add(limit.id)
    return Policy(
        tuple(limit for name, limit in compiled.items() if name not in shadow),
        tuple(limit for name, limit in compiled.items() if name in shadow),
    )


def _with_cases(limit: LimitSettings) -> Limit:
    """Compile a limit with its overrides and, in each of them, its ceilings."""
    overrides = []
    for override in limit.override:
        other = msgspec.structs.replace(limit, amount=override.amount, burst=override.burst)
        overrides.append((_parts(override.when), _with_ceilings(other)))
    base = _with_ceilings(limit)
    return msgspec.structs.replace(base, cases=(*overrides, *base.cases))


def _with_ceilings(limit: LimitSettings) -> Limit:
    """Compile a limit and, as cases of it, the same state under a smaller amount."""
    base = _compile(limit)
    cases = []
    for number, ceiling in enumerate(limit.ceiling, start=1):
        amount = int(base.capacity * Fraction(str(ceiling.share)))
        if amount < 1:
            what = f"ceiling {number} of {ceiling.share} leaves nothing of {base.capacity}"
            raise _wrong(limit, what, "give it a larger share, or leave those requests out with when")
        bucket = base.bucket
        if bucket is not None:
            bucket = gcra.Rate(bucket.gain, bucket.weight, amount * bucket.weight)
        smaller = base.amount if bucket is not None else amount
        cases.append((_parts(ceiling.when), msgspec.structs.replace(base, amount=smaller, bucket=bucket)))
    return msgspec.structs.replace(base, cases=tuple(cases))


def _parts(when: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(when.items()))


def _compile(limit: LimitSettings) -> Limit:
    bucket = calendar = window = None
    kept = [limit.id]
    if limit.scope != ("tenant",):
        kept.append("+".join(limit.scope))
    if limit.unit != "requests":
        kept.append(limit.unit)
    if limit.lever == "rate":
        bucket = gcra.rate(limit.amount, PERIOD_SECONDS[limit.per] * NANOSECONDS, burst=limit.burst)
        kept.append(f"{bucket.gain}/{bucket.weight}")
    elif limit.rolling is not None:
        window = rolling.window(limit.rolling, PERIOD_SECONDS[limit.per] * NANOSECONDS)
        kept.append(f"{limit.rolling} {limit.per}")
    elif limit.lever == "quota":
        hours, minutes = map(int, limit.reset_at.split(":"))
        reset_at = timedelta(hours=hours, minutes=minutes)
        per, week_start = cast("quota.Per", limit.per), WEEK.index(limit.week_start)
        calendar = quota.Calendar(per, _zone(limit), reset_at=reset_at, week_start=week_start)
        kept.append(f"{limit.per}/{limit.time_zone}")
        if reset_at or week_start:
            kept.append(f"{limit.reset_at}/{limit.week_start}")
    return Limit(
        id=limit.id,
        lever=limit.lever,
        amount=limit.amount,
        unit=limit.unit,
        per="" if limit.lever == "concurrency" else limit.per,
        scope=limit.scope,
        when=_parts(limit.when),
        root="@".join(kept),
        read=cast("Callable[[Context], Any]", operator.attrgetter(*limit.scope)) if limit.scope else _everyone,
        bucket=bucket,
        calendar=calendar,
        window=window,
        lease_ns=round(limit.lease_seconds * NANOSECONDS) if limit.lever == "concurrency" else 0,
        on_store_failure=limit.on_store_failure,
        settles=limit.lever == "concurrency" or limit.unit != "requests",
    )


def _everyone(_: Context) -> str:
    return ""


def _check(limit: LimitSettings) -> None:
    """Refuse a limit whose parts contradict each other, naming the part."""
    _check_parts(limit, "when", limit.when)
    if len(set(limit.scope)) < len(limit.scope):
        raise _wrong(limit, "scope repeats a part", "name each part once")
    if limit.lever == "rate" and limit.per == "month":
        raise _wrong(limit, "a month has no fixed length to spread a rate over", 'use lever = "quota"')
    if limit.lever != "rate" and limit.burst is not None:
        raise _wrong(limit, f"a {limit.lever} has no burst", 'leave burst out, or use lever = "rate"')
    _check_period(limit)
    if limit.lever == "concurrency" and limit.unit != "requests":
        raise _wrong(limit, f"slots are held by requests, not by {limit.unit}", "leave unit out")
    if limit.lever == "concurrency" and limit.per != "minute":
        raise _wrong(limit, "concurrency has no period", "leave per out")
    if limit.lever != "concurrency" and limit.lease_seconds != 30.0:
        raise _wrong(limit, f"a {limit.lever} has no lease", 'leave lease_seconds out, or use lever = "concurrency"')
    if limit.lever == "concurrency" and not 0.001 <= limit.lease_seconds <= 3600:
        raise _wrong(limit, "lease_seconds is not between 0.001 and 3600", "use about 30")
    _check_overrides(limit)
    _check_ceilings(limit)


def _check_period(limit: LimitSettings) -> None:
    """Refuse a quota whose period is none, and what only a calendar has elsewhere."""
    if limit.rolling is not None:
        if limit.lever != "quota":
            raise _wrong(limit, f"a {limit.lever} does not roll", 'leave rolling out, or use lever = "quota"')
        if limit.per == "month":
            raise _wrong(limit, "a month has no fixed length to roll over", 'use rolling = 30 and per = "day"')
    elif limit.lever == "quota" and limit.per not in CALENDAR:
        fix = 'use lever = "rate", or per = "hour", or rolling'
        raise _wrong(limit, f"a quota per {limit.per} is no calendar period", fix)
    calendar = limit.lever == "quota" and limit.rolling is None
    kind = limit.lever if limit.rolling is None else "rolling quota"
    if limit.time_zone != "UTC" and not calendar:
        raise _wrong(limit, f"a {kind} knows no time zone", 'leave time_zone out, or use lever = "quota"')
    if limit.reset_at != "00:00" and not (calendar and limit.per != "hour"):
        raise _wrong(limit, "only a quota per day, week or month has a time to begin at", "leave reset_at out")
    if limit.week_start != "monday" and not (calendar and limit.per == "week"):
        raise _wrong(limit, "only a quota per week has a day to begin on", 'leave week_start out, or use per = "week"')


def _check_parts(limit: LimitSettings, name: str, when: Mapping[str, str]) -> None:
    for part in when:
        if part not in PARTS:
            raise _wrong(limit, f"{name} names {part!r}, which no request has", f"use {', '.join(PARTS)}")


def _check_overrides(limit: LimitSettings) -> None:
    """Refuse an override that would give one bucket two amounts, or that can never be reached."""
    for number, override in enumerate(limit.override, start=1):
        name = f"override {number}"
        _check_parts(limit, name, override.when)
        outside = [part for part in override.when if part not in limit.scope]
        if outside:
            what = f"{name} chooses by {outside[0]}, which is not in the scope: one bucket would have two amounts"
            raise _wrong(limit, what, f"add {outside[0]} to scope, or use a ceiling")
        if override.burst is not None and limit.lever != "rate":
            raise _wrong(limit, f"{name} has a burst, which a {limit.lever} has not", "leave burst out")
        _check_reached(limit, name, override.when, limit.override[: number - 1])


def _check_ceilings(limit: LimitSettings) -> None:
    for number, ceiling in enumerate(limit.ceiling, start=1):
        name = f"ceiling {number}"
        _check_parts(limit, name, ceiling.when)
        _check_reached(limit, name, ceiling.when, limit.ceiling[: number - 1])


def _check_reached(
    limit: LimitSettings,
    name: str,
    when: Mapping[str, str],
    earlier: Iterable[OverrideSettings | CeilingSettings],
) -> None:
    """Refuse a case that no request ever comes to."""
    if not when:
        raise _wrong(limit, f"{name} fits every request", "say which with when, or change the limit itself")
    for part, value in when.items():
        if limit.when.get(part, value) != value:
            what = f"{name} is for {part} {value!r}, and the limit counts only {limit.when[part]!r}"
            raise _wrong(limit, what, "remove it, or change when")
    for place, other in enumerate(earlier, start=1):
        if other.when.items() <= when.items():
            what = f"{name} is never reached: number {place} before it fits all of its requests"
            raise _wrong(limit, what, "put the narrower one first")


def _zone(limit: LimitSettings) -> ZoneInfo:
    try:
        return ZoneInfo(limit.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as cause:
        raise _wrong(limit, f"there is no time zone {limit.time_zone!r}", "use a name such as Europe/Berlin") from cause


def _wrong(limit: LimitSettings, what: str, fix: str) -> ConfigError:
    return ConfigError(f"limit {limit.id!r}: {what}", fix=fix)
