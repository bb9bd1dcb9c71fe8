"""The limits in front of the simulated bot: a rate and a daily quota for each tenant, and slots for all.

All or nothing: a request that breaks one limit takes from none. The rate is a token bucket kept as the time that its
debt takes to be repaid; the quota counts the tokens of a UTC day; a slot is held while a request runs. A request is
admitted on an estimate of its tokens and settled with their actual number.
"""

from __future__ import annotations

import heapq
import math
from typing import Any, Final

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.settings import LimitSettings
from opsloop.sim.traffic import Talk

__all__ = ["Admission", "Desk", "limits_for"]

DAY_NS: Final = 86_400 * NANOSECONDS
MINUTE_NS: Final = 60 * NANOSECONDS


def limits_for(rate_per_minute: float) -> tuple[LimitSettings, ...]:
    """Return limits that traffic of this peak rate keeps well inside: what the bot's operators would have configured.

    >>> [(limit.id, limit.amount) for limit in limits_for(20)]
    [('tenant-requests', 30), ('tenant-tokens-per-day', 8000000), ('service-slots', 16)]
    """
    return (
        LimitSettings(
            id="tenant-requests",
            lever="rate",
            amount=max(12, math.ceil(1.5 * rate_per_minute)),
            per="minute",
            burst=max(12, math.ceil(rate_per_minute)),
        ),
        LimitSettings(
            id="tenant-tokens-per-day",
            lever="quota",
            amount=max(1_000_000, math.ceil(400_000 * rate_per_minute)),
            per="day",
            unit="tokens",
        ),
        LimitSettings(
            id="service-slots", lever="concurrency", amount=max(16, math.ceil(rate_per_minute / 2)), scope=()
        ),
    )


class Admission(msgspec.Struct, frozen=True):
    """One decision, with what each limit held after it."""

    allowed: bool
    violated: tuple[str, ...]
    limits: dict[str, dict[str, Any]]
    retry_after_seconds: int | None


class Desk:
    """What the world remembers from one request to the next: running requests, limits, open conversations."""

    def __init__(self, limits: tuple[LimitSettings, ...]) -> None:
        """Start empty, under a rate, a quota and a concurrency limit in this order."""
        self._rate, self._quota, self._slots = limits
        self._emission_ns = MINUTE_NS // self._rate.amount
        self._capacity_ns = self._emission_ns * (self._rate.burst or self._rate.amount)
        self._running: list[int] = []
        self._held: list[int] = []
        self._debts: dict[str, tuple[int, int]] = {}
        self._used: dict[str, tuple[int, int]] = {}
        self.talks: dict[str, tuple[Talk, ...]] = {}

    def copy(self) -> Desk:
        """Return a copy that can go its own way."""
        other = Desk((self._rate, self._quota, self._slots))
        other._running, other._held = self._running.copy(), self._held.copy()
        other._debts, other._used, other.talks = self._debts.copy(), self._used.copy(), self.talks.copy()
        return other

    def in_flight(self, ts_ns: int) -> int:
        """Return how many requests run at a moment, one that comes in now included."""
        for heap in (self._running, self._held):
            while heap and heap[0] <= ts_ns:
                heapq.heappop(heap)
        return len(self._running) + 1

    def admit(self, tenant: str, tokens: int, ts_ns: int) -> Admission:
        """Decide over a request that will take about so many tokens; an admitted one is charged with them."""
        debt, at_ns = self._debts.get(tenant, (0, ts_ns))
        want = max(0, debt - (ts_ns - at_ns)) + self._emission_ns
        day, used = ts_ns // DAY_NS, 0
        if tenant in self._used and self._used[tenant][0] == day:
            used = self._used[tenant][1]
        waits = {
            self._rate.id: (want - self._capacity_ns) / NANOSECONDS,
            self._quota.id: ((day + 1) * DAY_NS - ts_ns) / NANOSECONDS if used + tokens > self._quota.amount else 0.0,
            self._slots.id: 1.0 if len(self._held) >= self._slots.amount else 0.0,
        }
        violated = tuple(name for name, wait in waits.items() if wait > 0)
        if not violated:
            self._debts[tenant] = (want, ts_ns)
            self._used[tenant] = (day, used + tokens)
        limits = {
            self._rate.id: _level(want, self._capacity_ns, self._rate.burst or self._rate.amount, want / NANOSECONDS),
            self._quota.id: _level(
                used + tokens, self._quota.amount, self._quota.amount, ((day + 1) * DAY_NS - ts_ns) / NANOSECONDS
            ),
            self._slots.id: _level(len(self._held) + 1, self._slots.amount, self._slots.amount, 0.0),
        }
        wait = math.ceil(max(waits[name] for name in violated)) if violated else None
        return Admission(not violated, violated, limits, wait)

    def settle(self, tenant: str, difference: int) -> None:
        """Correct the day's count of an admitted request by its actual less its estimated tokens."""
        day, used = self._used[tenant]
        self._used[tenant] = (day, max(0, used + difference))

    def begin(self, end_ns: int, *, admitted: bool) -> None:
        """Note a request that will end at ``end_ns``; an admitted one holds a slot until then."""
        heapq.heappush(self._running, end_ns)
        if admitted:
            heapq.heappush(self._held, end_ns)


def _level(level: int, full: int, amount: int, reset_seconds: float) -> dict[str, Any]:
    """Return how much of a limit is taken with this request, at most all of it, and what is left."""
    ratio = min(1.0, level / full)
    return {
        "used_ratio": round(ratio, 6),
        "remaining": math.floor(amount * (1.0 - ratio) + 1e-9),
        "reset_seconds": round(reset_seconds, 3),
    }
