"""A policy: the limits of the settings, checked against themselves and compiled to what a decision needs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.errors import ConfigError
from opsloop.rate_limit import gcra, quota
from opsloop.rate_limit.context import SCOPES, Amounts, Context, amount_of
from opsloop.rate_limit.decision import Demand
from opsloop.rate_limit.limit import PERIOD_SECONDS, Limit
from opsloop.settings import LimitSettings

__all__ = ["Policy", "policy_from_settings"]

CALENDAR: Final = ("hour", "day", "week", "month")


class Policy(msgspec.Struct, frozen=True):
    """Compiled limits, in the order of the settings. Without any, everything is admitted."""

    limits: tuple[Limit, ...] = ()

    def demands(self, context: Context, estimate: Amounts, now_ns: int) -> tuple[Demand, ...]:
        """Return the limits that a request counts against, each with its key and cost, at wall-clock time ``now_ns``.

        A unit that the estimate does not mention costs 1, the least that it can be: unknown is not zero. This is the
        one place where limits and requests meet.
        """
        found = []
        for limit in self.limits:
            if limit.when and not limit.applies(context):
                continue
            cost = amount_of(limit.unit, estimate) if estimate else 1
            if cost is None:
                cost = 1
            if limit.calendar is None:
                found.append(Demand(limit, (limit.root, limit.read(context)), cost, limit.lease_ns))
            else:
                period = limit.calendar.period_at(now_ns)
                key = (limit.root, limit.read(context), period.start_ns)
                found.append(Demand(limit, key, cost, period.end_ns - now_ns))
        return tuple(found)


def policy_from_settings(limits: Iterable[LimitSettings]) -> Policy:
    """Compile ``[[limit]]`` tables; raise :class:`ConfigError` for what contradicts itself or can never be.

    >>> policy_from_settings([LimitSettings(id="rpm", lever="rate", amount=60, burst=10)]).limits[0].capacity
    10
    """
    compiled: dict[str, Limit] = {}
    for limit in limits:
        if limit.id in compiled:
            raise ConfigError(f"two limits have the id {limit.id!r}", fix="give each its own id")
        _check(limit)
        compiled[limit.id] = _compile(limit)
    return Policy(tuple(compiled.values()))


def _compile(limit: LimitSettings) -> Limit:
    bucket = calendar = None
    root = limit.id
    if limit.lever == "rate":
        bucket = gcra.rate(limit.amount, PERIOD_SECONDS[limit.per] * NANOSECONDS, burst=limit.burst)
        root = f"{limit.id}@{bucket.gain}/{bucket.weight}"
    elif limit.lever == "quota":
        calendar = quota.Calendar(cast("quota.Per", limit.per), _zone(limit))
        root = f"{limit.id}@{limit.per}/{limit.time_zone}"
    return Limit(
        id=limit.id,
        lever=limit.lever,
        amount=limit.amount,
        unit=limit.unit,
        per="" if limit.lever == "concurrency" else limit.per,
        scope=limit.scope,
        when=tuple(sorted(limit.when.items())),
        root=root,
        read=cast("Callable[[Context], Any]", operator.attrgetter(*limit.scope)) if limit.scope else _everyone,
        bucket=bucket,
        calendar=calendar,
        lease_ns=round(limit.lease_seconds * NANOSECONDS) if limit.lever == "concurrency" else 0,
        on_store_failure=limit.on_store_failure,
        settles=limit.lever == "concurrency" or limit.unit != "requests",
    )


def _everyone(_: Context) -> str:
    return ""


def _check(limit: LimitSettings) -> None:
    """Refuse a limit whose parts contradict each other, naming the part."""
    for name in limit.when:
        if name not in SCOPES:
            raise _wrong(limit, f"when names {name!r}, which no request has", f"use {', '.join(SCOPES)}")
    if len(set(limit.scope)) < len(limit.scope):
        raise _wrong(limit, "scope repeats a part", "name each part once")
    if limit.lever == "rate" and limit.per == "month":
        raise _wrong(limit, "a month has no fixed length to spread a rate over", 'use lever = "quota"')
    if limit.lever == "quota" and limit.per not in CALENDAR:
        raise _wrong(limit, f"a quota per {limit.per} is no calendar period", 'use lever = "rate", or per = "hour"')
    if limit.lever != "rate" and limit.burst is not None:
        raise _wrong(limit, f"a {limit.lever} has no burst", 'leave burst out, or use lever = "rate"')
    if limit.lever != "quota" and limit.time_zone != "UTC":
        raise _wrong(limit, f"a {limit.lever} knows no time zone", 'leave time_zone out, or use lever = "quota"')
    if limit.lever == "concurrency" and limit.unit != "requests":
        raise _wrong(limit, f"slots are held by requests, not by {limit.unit}", "leave unit out")
    if limit.lever == "concurrency" and limit.per != "minute":
        raise _wrong(limit, "concurrency has no period", "leave per out")
    if limit.lever != "concurrency" and limit.lease_seconds != 30.0:
        raise _wrong(limit, f"a {limit.lever} has no lease", 'leave lease_seconds out, or use lever = "concurrency"')
    if limit.lever == "concurrency" and not 0.001 <= limit.lease_seconds <= 3600:
        raise _wrong(limit, "lease_seconds is not between 0.001 and 3600", "use about 30")


def _zone(limit: LimitSettings) -> ZoneInfo:
    try:
        return ZoneInfo(limit.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as cause:
        raise _wrong(limit, f"there is no time zone {limit.time_zone!r}", "use a name such as Europe/Berlin") from cause


def _wrong(limit: LimitSettings, what: str, fix: str) -> ConfigError:
    return ConfigError(f"limit {limit.id!r}: {what}", fix=fix)
