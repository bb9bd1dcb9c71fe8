"""The store in Redis: limits that hold across processes and machines, and what happens when it does not answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from opsloop.clock import Clock, SystemClock
from opsloop.errors import ConfigError, StoreError
from opsloop.rate_limit.context import Amounts
from opsloop.rate_limit.decision import Decision, Receipt, Request
from opsloop.rate_limit.failure import Breaker, Fallback, LoneError, MovingError
from opsloop.rate_limit.permits import Permits
from opsloop.rate_limit.policy import Policy
from opsloop.rate_limit.redis_core import Core, Steps
from opsloop.rate_limit.redis_keys import Keys
from opsloop.rate_limit.redis_script import MERGED
from opsloop.rate_limit.redis_url import Address, address
from opsloop.rate_limit.ticks import EXACT, ticks

if TYPE_CHECKING:
    from opsloop.rate_limit.redis_async import AsyncDriver

__all__ = ["RedisStore"]

T = TypeVar("T")
DEADLINE_SECONDS: Final = 0.05
OWED: Final = 10_000
"""Settlements and releases that are kept while Redis does not answer; the oldest are dropped beyond that."""
REPAID_AT_ONCE: Final = 8
FIRST_PAUSE_SECONDS: Final = 0.001
"""Before a slot that moves is asked for again; each pause is twice as long as the one before."""
COUNTABLE: Final = EXACT // 4
"""The largest quota: it leaves room for what is charged beyond it."""


class RedisStore:
    """A :class:`~opsloop.rate_limit.Store` in Redis or Valkey: one server, behind Sentinels, or a Cluster.

    Each call is one script on the server, at the server's time. When it cannot be had within the deadline, each limit's
    ``on_store_failure`` decides, and the decision says so; ends of requests are kept and told later. Nothing of this
    raises into the caller.

    ``Limiter(policy, store=RedisStore.from_url("redis://localhost"))`` is all there is to it.
    """

    def __init__(
        self,
        place: Address,
        *,
        prefix: str = "opsloop",
        root: str | None = None,
        permits: Mapping[str, int] | None = None,
        workers: int = 1,
        deadline_seconds: float = DEADLINE_SECONDS,
        server_clock: Clock | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Connect to a parsed address when first asked; see :meth:`from_url`."""
        from opsloop.rate_limit.redis_client import Driver  # noqa: PLC0415 - the redis package is an extra

        own = clock or SystemClock()
        self.owed_lost = 0
        self._address = place
        self._deadline = deadline_seconds
        self._workers = workers
        self._core = Core(Keys(prefix=prefix, root=root, spread=place.kind == "cluster"), clock=server_clock)
        self._permits = Permits(self._core, own, permits or {})
        self._breaker = Breaker(own)
        self._fallback = Fallback(own, workers=workers)
        self._owed: deque[Callable[[], Steps[Receipt]]] = deque()
        self._driver = Driver(place, deadline_seconds=deadline_seconds)
        self._drivers: dict[asyncio.AbstractEventLoop, AsyncDriver] = {}
        self._latest: AsyncDriver | None = None

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "opsloop",
        root: str | None = None,
        permits: Mapping[str, int] | None = None,
        workers: int = 1,
        deadline_seconds: float = DEADLINE_SECONDS,
        server_clock: Clock | None = None,
        clock: Clock | None = None,
    ) -> RedisStore:
        """Return the store at a URL; see :mod:`opsloop.rate_limit.redis_url` for what it may be.

        ``prefix`` begins every key. ``root`` is what limits share a Cluster's slot by, ``""`` keeps all in one slot.
        ``permits`` (limit id to chunk) leases hot rates. ``workers`` is how many processes are expected to share the
        limits: it divides them when Redis is gone. ``deadline_seconds`` bounds each wait. ``server_clock`` stands in
        for the server's own time and is for tests only, ``clock`` for the breaker's and the permits'.

        Raises :class:`ConfigError` for a URL that names no place, and when the redis package is not installed.
        """
        place = address(url)
        try:
            return cls(
                place,
                prefix=prefix,
                root=root,
                permits=permits,
                workers=workers,
                deadline_seconds=deadline_seconds,
                server_clock=server_clock,
                clock=clock,
            )
        except ImportError as cause:
            raise ConfigError("limits on Redis need the redis package", fix="pip install 'opsloop[redis]'") from cause

    def check(self, policy: Policy) -> None:
        """Refuse a policy that Redis cannot count exactly, or a Cluster cannot decide upon in one step.

        Raises :class:`ConfigError`. A limiter does this when it is made.
        """
        for limit in policy.forms():
            if limit.bucket is not None:
                ticks(limit)
            elif limit.amount > COUNTABLE:
                raise ConfigError(
                    f"limit {limit.id!r}: Redis cannot count to {limit.amount} exactly",
                    fix=f"use at most {COUNTABLE}, or a larger unit",
                )
        self._core.keys.check(self._permits.check(policy.limits))

    def over_admission(self, limit: str) -> int:
        """Return how many units more than allowed a limit may admit in any interval, over all workers: for permits."""
        return self._permits.over_admission(limit, workers=self._workers)

    def admit(self, request: Request) -> Decision:
        """Decide and write, in one transaction."""
        return self._driver.run(self._deciding(request, write=True))

    def peek(self, request: Request) -> Decision:
        """Decide and write nothing."""
        return self._driver.run(self._deciding(request, write=False))

    def settle(self, reservation: str, actual: Amounts) -> Receipt:
        """Replace an estimate by what it really cost, once, from any process."""
        return self._driver.run(self._settling(reservation, actual))

    def renew(self, reservation: str) -> Receipt:
        """Prolong a reservation's slots."""
        return self._driver.run(self._renewing(reservation))

    def renew_all(self, reservations: Sequence[str]) -> list[Receipt]:
        """Prolong the slots of many reservations, by the dozen in one call, each with a deadline of its own."""
        receipts: list[Receipt] = []
        for at in range(0, len(reservations), MERGED):
            receipts += self._driver.run(self._renewing_all(reservations[at : at + MERGED]))
        return receipts

    def release(self, reservation: str) -> Receipt:
        """Give a reservation's slots back."""
        return self._driver.run(self._releasing(reservation))

    async def admit_async(self, request: Request) -> Decision:
        """As :meth:`admit`. Whoever is cancelled meanwhile has charged nothing in the end."""
        return await self._here().run(self._deciding(request, write=True))

    async def peek_async(self, request: Request) -> Decision:
        """As :meth:`peek`."""
        return await self._here().run(self._deciding(request, write=False))

    async def settle_async(self, reservation: str, actual: Amounts) -> Receipt:
        """As :meth:`settle`; carried out even if the caller is cancelled."""
        return await self._here().run(self._settling(reservation, actual))

    async def renew_async(self, reservation: str) -> Receipt:
        """As :meth:`renew`."""
        return await self._here().run(self._renewing(reservation))

    async def release_async(self, reservation: str) -> Receipt:
        """As :meth:`release`; carried out even if the caller is cancelled."""
        return await self._here().run(self._releasing(reservation))

    def close(self) -> None:
        """Give the connections of threads back."""
        self._driver.close()

    async def aclose(self) -> None:
        """Give the connections of this event loop back, once everything that was asked for is sent."""
        self._latest = None
        driver = self._drivers.pop(asyncio.get_running_loop(), None)
        if driver is not None:
            await driver.close()

    def _here(self) -> AsyncDriver:
        loop = asyncio.get_running_loop()
        driver = self._latest
        if driver is None or driver.loop is not loop:
            driver = self._drivers.get(loop)
            if driver is None:
                from opsloop.rate_limit.redis_async import AsyncDriver  # noqa: PLC0415 - the redis package is an extra

                driver = AsyncDriver(self._address, deadline_seconds=self._deadline)
                others = self._drivers.items()
                self._drivers = {other: each for other, each in others if not other.is_closed()} | {loop: driver}
            self._latest = driver
        return driver

    def _deciding(self, request: Request, *, write: bool) -> Steps[Decision]:
        """Ask Redis, or each limit's policy for when it does not answer."""
        if not self._breaker.allows():
            return self._fallback.decide(request, self._gone(), write=write)
        try:
            return (yield from self._asked(partial(self._permits.admit if write else self._core.peek, request)))
        except StoreError as failed:
            decision = self._fallback.decide(request, failed.message, write=write)
            if write and request.reservation and not decision.allowed:
                self._owe(partial(self._core.undo, request))
            return decision

    def _settling(self, reservation: str, actual: Amounts) -> Steps[Receipt]:
        local = self._fallback.settle(reservation, actual)
        return (yield from self._ending(reservation, partial(self._permits.settle, reservation, actual), local))

    def _releasing(self, reservation: str) -> Steps[Receipt]:
        local = self._fallback.release(reservation)
        return (yield from self._ending(reservation, partial(self._core.release, reservation), local))

    def _renewing(self, reservation: str) -> Steps[Receipt]:
        return (yield from self._renewing_all((reservation,)))[0]

    def _renewing_all(self, reservations: Sequence[str]) -> Steps[list[Receipt]]:
        """Renew at Redis and what was admitted here; while Redis does not answer a lease may still be alive there."""
        reason = self._gone()
        local = [self._fallback.renew(reservation) for reservation in reservations]
        receipts: list[Receipt] = []
        if self._breaker.allows():
            try:
                receipts = yield from self._asked(partial(self._core.renew_all, reservations))
            except StoreError as failed:
                reason = failed.message
        if not receipts:
            receipts = [Receipt(reservation, "deferred", reason) for reservation in reservations]
        return [
            here if there.status != "renewed" and here.status == "renewed" else there
            for here, there in zip(local, receipts, strict=True)
        ]

    def _ending(self, reservation: str, steps: Callable[[], Steps[Receipt]], local: Receipt) -> Steps[Receipt]:
        """Tell Redis, or keep it until it can be told: each of these is done at most once, however often it is told."""
        reason = ""
        if self._breaker.allows():
            try:
                receipt = yield from self._asked(steps)
            except StoreError as failed:
                reason = failed.message
            except GeneratorExit:  # its task was cancelled, it may have been waiting
                self._owe(steps)
                raise
            else:
                return local if receipt.status == "not_held" and local.status != "not_held" else receipt
        else:
            reason = self._gone()
        self._owe(steps)
        return local if local.status != "not_held" else Receipt(reservation, "deferred", reason)

    def _asked(self, steps: Callable[[], Steps[T]]) -> Steps[T]:
        """Tell Redis what is owed, then ask: again and again while a slot moves. The breaker hears how it went."""
        moving: MovingError | None = None
        pause_seconds = FIRST_PAUSE_SECONDS
        try:
            if self._owed:
                yield from self._repaying()
            while True:
                try:
                    answer = yield from steps()
                except MovingError as failed:
                    moving = failed
                    yield pause_seconds
                    pause_seconds *= 2
                else:
                    self._breaker.succeeded()
                    return answer
        except LoneError:
            raise
        except StoreError:
            if moving is not None:  # there was no time left
                raise moving from None
            self._breaker.failed()
            raise

    def _repaying(self) -> Steps[None]:
        """Tell Redis some of what it could not be told before."""
        for _ in range(REPAID_AT_ONCE):
            try:
                owed = self._owed.popleft()
            except IndexError:
                return
            try:
                yield from owed()
            except MovingError:  # others do not wait for its slot
                self._owed.append(owed)
                return
            except (StoreError, GeneratorExit):  # it failed or was cancelled: it is told again
                self._owed.appendleft(owed)
                raise

    def _owe(self, steps: Callable[[], Steps[Receipt]]) -> None:
        self._owed.append(steps)
        if len(self._owed) > OWED:
            self._owed.popleft()
            self.owed_lost += 1

    def _gone(self) -> str:
        return f"{self._address!r} failed again and again and is not asked for a moment"
