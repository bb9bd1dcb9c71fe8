"""The limiter: the one object that an application holds."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from opsloop.clock import NANOSECONDS, Clock, Ids, SystemClock, SystemIds
from opsloop.errors import OpsloopError
from opsloop.event import Event
from opsloop.rate_limit.context import Amounts, Context, checked_amounts
from opsloop.rate_limit.decision import Decision, Receipt, Request, decision_event, receipt_event
from opsloop.rate_limit.heartbeat import Heartbeat
from opsloop.rate_limit.memory import MemoryStore, Store
from opsloop.rate_limit.policy import Policy
from opsloop.rate_limit.remote import RemoteStore
from opsloop.stream import Sink

__all__ = ["Limiter", "RateLimitedError", "Slot"]

P = ParamSpec("P")
R = TypeVar("R")
NO_AMOUNTS: Final[Amounts] = {}


class RateLimitedError(OpsloopError):
    """A slot or a decorated call was refused; ``decision`` has every reason and the time to wait."""

    def __init__(self, decision: Decision) -> None:
        """Say what was violated and when to come back."""
        self.decision = decision
        seconds = decision.retry_after_seconds
        super().__init__(decision.reason, fix="ask for less" if seconds is None else f"retry in {seconds:.3f} s")


class Limiter:
    """Admits requests by a policy. Safe between threads, and the same for synchronous and asynchronous callers.

    ``sink`` receives a ``limit`` event per decision and settlement; a sink that fails is counted in ``events_lost``
    and never noticed by the caller.

    >>> from opsloop.clock import ManualClock
    >>> from opsloop.rate_limit import policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> policy = policy_from_settings([LimitSettings(id="rps", lever="rate", amount=1, per="second")])
    >>> limiter = Limiter(policy, clock=ManualClock())
    >>> limiter.admit(Context(tenant="acme")).allowed
    True
    >>> limiter.admit(Context(tenant="acme")).retry_after_seconds
    1.0
    """

    def __init__(
        self,
        policy: Policy,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        sink: Sink | None = None,
        service: str = "",
    ) -> None:
        """Decide by ``policy`` over ``store``, in memory unless given."""
        self.policy = policy
        self.events_lost = 0
        self.heartbeat = Heartbeat(lambda reservation: self.renew(reservation).status != "not_held")
        self._clock = SystemClock() if clock is None else clock
        self._store = MemoryStore(clock=self._clock) if store is None else store
        self._remote = self._store if isinstance(self._store, RemoteStore) else None
        if self._remote is not None:
            self._remote.check(policy)
        self._sink = sink
        self._service = service
        self._prefix = (ids or SystemIds()).request_id().removeprefix("req-")
        self._numbers = itertools.count(1)

    def admit(self, context: Context, estimate: Amounts | None = None, *, reservation: str = "") -> Decision:
        """Check and reserve in one step: on all limits or on none.

        ``estimate`` says how much of each unit the request will take; what it does not mention costs 1. A caller that
        may repeat itself names its ``reservation`` and gets the same answer for an hour. Raises
        :class:`opsloop.errors.InputError` for an estimate that counts in no known unit.
        """
        request = self._request(context, estimate, reservation)
        return self._decided(self._store.admit(request))

    def peek(self, context: Context, estimate: Amounts | None = None) -> Decision:
        """Return the decision that :meth:`admit` would make now, and reserve nothing."""
        return self._store.peek(self._request(context, estimate, ""))

    def settle(self, reservation: str, actual: Amounts) -> Receipt:
        """Replace the estimate by what the request really cost, and give its slots back; only the first time counts."""
        receipt = self._store.settle(reservation, checked_amounts(actual, name="actual"))
        return self._settled(receipt)

    def renew(self, reservation: str) -> Receipt:
        """Prolong the slots of a request that is still running."""
        return self._store.renew(reservation)

    def release(self, reservation: str) -> Receipt:
        """Give the slots of a request back and let its estimate stand."""
        self.heartbeat.stop(reservation)
        return self._store.release(reservation)

    def slot(self, context: Context, estimate: Amounts | None = None) -> Slot:
        """Return a context manager, for ``with`` and ``async with``, that admits, keeps the slot alive and releases."""
        return Slot(self, context, estimate)

    def limited(
        self, context: Context | Callable[P, Context], estimate: Amounts | Callable[P, Amounts] | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator: each call takes a slot first. Both arguments may be functions of the call's own.

        >>> from opsloop.rate_limit import Policy
        >>> @Limiter(Policy()).limited(lambda question: Context(tenant="acme"))
        ... def answer(question):
        ...     return question.upper()
        >>> answer("why")
        'WHY'
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            def slot(*args: P.args, **kwargs: P.kwargs) -> Slot:
                who = context(*args, **kwargs) if callable(context) else context
                return Slot(self, who, estimate(*args, **kwargs) if callable(estimate) else estimate)

            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                with slot(*args, **kwargs):
                    return function(*args, **kwargs)

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with slot(*args, **kwargs):
                    return await cast("Any", function(*args, **kwargs))

            return cast("Callable[P, R]", call_async) if inspect.iscoroutinefunction(function) else call

        return decorate

    async def admit_async(
        self, context: Context, estimate: Amounts | None = None, *, reservation: str = ""
    ) -> Decision:
        """As :meth:`admit`. In memory nothing is awaited, so a cancellation cannot fall between yes and its answer.

        A remote store is awaited, and takes back what was admitted for a caller that was cancelled meanwhile.
        """
        if self._remote is None:
            return self.admit(context, estimate, reservation=reservation)
        return self._decided(await self._remote.admit_async(self._request(context, estimate, reservation)))

    async def peek_async(self, context: Context, estimate: Amounts | None = None) -> Decision:
        """As :meth:`peek`."""
        if self._remote is None:
            return self.peek(context, estimate)
        return await self._remote.peek_async(self._request(context, estimate, ""))

    async def settle_async(self, reservation: str, actual: Amounts) -> Receipt:
        """As :meth:`settle`."""
        if self._remote is None:
            return self.settle(reservation, actual)
        self.heartbeat.stop(reservation)
        return self._settled(await self._remote.settle_async(reservation, checked_amounts(actual, name="actual")))

    async def renew_async(self, reservation: str) -> Receipt:
        """As :meth:`renew`."""
        return self.renew(reservation) if self._remote is None else await self._remote.renew_async(reservation)

    async def release_async(self, reservation: str) -> Receipt:
        """As :meth:`release`."""
        if self._remote is None:
            return self.release(reservation)
        self.heartbeat.stop(reservation)
        return await self._remote.release_async(reservation)

    def _request(self, context: Context, estimate: Amounts | None, reservation: str) -> Request:
        amounts = checked_amounts(estimate, name="estimate") if estimate else NO_AMOUNTS
        ts_ns = self._clock.now_ns()
        demands = self.policy.demands(context, amounts, ts_ns)
        if reservation:
            return Request(context, amounts, demands, ts_ns, reservation, remember=True)
        for demand in demands:
            if demand.limit.settles:  # a rate of requests has nothing to settle
                return Request(context, amounts, demands, ts_ns, f"{self._prefix}-{next(self._numbers)}")
        return Request(context, amounts, demands, ts_ns)

    def _decided(self, decision: Decision) -> Decision:
        if self._sink is not None:
            self._record(decision_event(decision, service=self._service))
        return decision

    def _settled(self, receipt: Receipt) -> Receipt:
        self.heartbeat.stop(receipt.reservation)
        if self._sink is not None and receipt.status == "settled":
            self._record(receipt_event(receipt, self._clock.now_ns(), service=self._service))
        return receipt

    def _record(self, event: Event) -> None:
        try:
            if self._sink is not None:
                self._sink.append([event])
        except Exception:  # noqa: BLE001 - a broken sink must not take the application's requests down with it
            self.events_lost += 1


class Slot:
    """One admission as a context manager: entering raises :class:`RateLimitedError` or returns the decision.

    Leaving releases by id, whatever happened inside, so a cancelled or failed request keeps no slot. Settle inside, or
    up to a minute later, to correct the estimate.
    """

    def __init__(self, limiter: Limiter, context: Context, estimate: Amounts | None) -> None:
        """Remember what to ask for; nothing is asked before entering."""
        self._limiter = limiter
        self._context = context
        self._estimate = estimate
        self._decision: Decision | None = None

    def __enter__(self) -> Decision:
        """Admit, or raise."""
        return self._entered(self._limiter.admit(self._context, self._estimate))

    def _entered(self, decision: Decision) -> Decision:
        if not decision.allowed:
            raise RateLimitedError(decision)
        self._decision = decision
        leases = [demand.limit.lease_ns for demand in decision.request.demands if demand.limit.lease_ns]
        if leases:
            self._limiter.heartbeat.start(decision.reservation, every_seconds=min(leases) / 3 / NANOSECONDS)
        return decision

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        if self._decision is not None and self._decision.reservation:
            self._limiter.release(self._decision.reservation)

    async def __aenter__(self) -> Decision:
        """Admit, or raise; nothing is awaited after the answer."""
        return self._entered(await self._limiter.admit_async(self._context, self._estimate))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release. It is under way before anything is awaited, so a second cancellation cannot stop it."""
        if self._decision is not None and self._decision.reservation:
            await self._limiter.release_async(self._decision.reservation)
