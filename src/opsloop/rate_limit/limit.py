"""One limit of a policy, compiled: its lever, what it counts, and the arithmetic that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.rate_limit import gcra, quota, rolling
from opsloop.rate_limit.context import Context

__all__ = ["PERIOD_SECONDS", "Key", "Level", "Lever", "Limit", "LimitState"]

Lever = Literal["rate", "quota", "concurrency"]
Key = tuple[Any, ...]
"""Where a limit's state lies: (root, scope values), and for calendar quotas (root, scope values, period start).

A tuple and not a joined text, so that no tenant can name itself into another one's bucket.
"""
PERIOD_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled limit; build it with :func:`opsloop.rate_limit.policy_from_settings`."""

    id: str
    lever: Lever
    amount: int
    """Units per period for a rate or quota, slots for concurrency."""
    unit: str
    per: str
    scope: tuple[str, ...]
    when: tuple[tuple[str, str], ...]
    root: str
    """The first part of its keys. It holds all that a state has no meaning without: unit, scope, period, rate."""
    read: Callable[[Context], Any]
    """The scope's values of a context."""
    bucket: gcra.Rate | None = None
    calendar: quota.Calendar | None = None
    window: rolling.Window | None = None
    lease_ns: int = 0

    on_store_failure: Literal["open", "closed", "local"] = "closed"
    """What stands in for the count when the store does not answer."""
    settles: bool = False
    """Whether there is something to settle or release later: an amount known afterwards only, or a slot."""
    cases: tuple[tuple[tuple[tuple[str, str], ...], Limit], ...] = ()
    """What stands in for it: (context parts and values, limit), the first that fits. An override has another amount, a
    ceiling the same state and a smaller amount."""

    def applies(self, context: Context) -> bool:
        """Tell whether a request is counted at all."""
        return all(getattr(context, name) == value for name, value in self.when)

    def case(self, context: Context) -> Limit:
        """Return the limit that stands in for this one where a request fits one of its cases, else itself."""
        for parts, other in self.cases:
            if all(getattr(context, name) == value for name, value in parts):
                return other.case(context) if other.cases else other
        return self

    def leased(self, lease_ns: int) -> Limit:
        """Return this limit with leases of another length, in its cases too."""
        cases = tuple((parts, other.leased(lease_ns)) for parts, other in self.cases)
        return msgspec.structs.replace(self, lease_ns=lease_ns if self.lease_ns else 0, cases=cases)

    @property
    def capacity(self) -> int:
        """The most units that can be had at once."""
        return self.amount if self.bucket is None else self.bucket.capacity // self.bucket.weight

    @property
    def counted(self) -> bool:
        """Whether its state is one number."""
        return self.bucket is not None or self.calendar is not None

    @property
    def shared(self) -> bool:
        """Whether it is one for all callers: when it is full the service is, and nobody asked for too much."""
        return not {"organisation", "tenant", "key"}.intersection(self.scope)

    def spelled(self) -> str:
        """Return the limit in words.

        >>> from opsloop.rate_limit import policy_from_settings
        >>> from opsloop.settings import LimitSettings
        >>> rate = LimitSettings(id="tpm", lever="rate", amount=90_000, unit="tokens")
        >>> policy_from_settings([rate]).limits[0].spelled()
        '90000 tokens per minute'
        """
        if self.lever == "concurrency":
            return f"{self.amount} at once"
        if self.window is not None:
            return f"{self.amount} {self.unit} in the last {self.window.count} {self.per}s"
        return f"{self.amount} {self.unit} per {self.per}"


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """How full a limit is, right after a decision."""

    remaining: int
    """Whole units that could be had now."""
    used_ratio: float
    """Used share of the capacity; above 1 when an actual cost exceeded its estimate."""
    reset_seconds: float
    """Until it is wholly free again if nothing more is asked: a full bucket, a new period, the last lease's end."""


class Level(msgspec.Struct, frozen=True):
    """The raw numbers behind a :class:`LimitState`, kept as they were: most decisions are never looked into."""

    limit: Limit
    value: int
    """A bucket's state, a quota's count, or the slots held."""
    now_ns: int
    resets_in_ns: int

    def state(self) -> LimitState:
        """Work the numbers out."""
        bucket = self.limit.bucket
        if bucket is not None:
            owed = gcra.debt(bucket, self.value, self.now_ns)
            return LimitState(
                remaining=gcra.remaining(bucket, self.value, self.now_ns),
                used_ratio=owed / bucket.capacity,
                reset_seconds=gcra.full_in_ns(bucket, self.value, self.now_ns) / NANOSECONDS,
            )
        return LimitState(
            remaining=max(0, self.limit.amount - self.value),
            used_ratio=self.value / self.limit.amount,
            reset_seconds=self.resets_in_ns / NANOSECONDS,
        )
