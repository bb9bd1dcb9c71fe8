"""The limiter: the one object that an application holds."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from opsloop.clock import NANOSECONDS, Clock, Ids, SystemClock, SystemIds
from opsloop.errors import OpsloopError, StoreError
from opsloop.event import Event
from opsloop.rate_limit.context import UNITS, Amounts, Context, checked_amounts
from opsloop.rate_limit.decision import Decision, Receipt, Request, decision_event, receipt_event
from opsloop.rate_limit.heartbeat import Heartbeat
from opsloop.rate_limit.memory import MemoryStore, Store
from opsloop.rate_limit.plan import Caller, Plan
from opsloop.rate_limit.policy import Policy
from opsloop.rate_limit.remote import RemoteStore
from opsloop.rate_limit.shadow import shadow_id, shadow_request
from opsloop.stream import Sink

__all__ = ["Limiter", "RateLimitedError", "Slot"]

P = ParamSpec("P")
R = TypeVar("R")
NO_AMOUNTS: Final[Amounts] = {}
_LOG: Final = logging.getLogger("opsloop.rate_limit")


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
        self.events_lost = 0
        self.listeners: list[Callable[[], None]] = []
        """Called after every settlement, release and reload: whoever waits for room may try."""
        self.heartbeat = Heartbeat(self._renew_all)
        self._plan = Plan(policy)
        self._clock = SystemClock() if clock is None else clock
        self._now_ns = self._clock.now_ns
        self._store = MemoryStore(clock=self._clock) if store is None else store
        self._remote = self._store if isinstance(self._store, RemoteStore) else None
        if self._remote is not None:
            self._remote.check(policy)
        self._sink = sink
        self._service = service
        self._prefix = (ids or SystemIds()).request_id().removeprefix("req-")
        self._numbers = itertools.count(1)

    @property
    def policy(self) -> Policy:
        """What is decided by; a new one applies from the next call on."""
        return self._plan.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._plan = Plan(policy)

    def admit(self, context: Context, estimate: Amounts | None = None, *, reservation: str = "") -> Decision:
        """Check and reserve in one step: on all limits or on none.

        ``estimate`` says how much of each unit the request will take; what it does not mention costs 1. A caller that
        may repeat itself names its ``reservation`` and gets the same answer for an hour. Raises
        :class:`opsloop.errors.InputError` for an estimate that counts in no known unit.
        """
        plan = self._plan
        if self._sink is None and not plan.shadow:  # nobody else hears of it
            return self._store.admit(self._asked(plan, context, estimate, reservation))
        decision, shadow = self.attempt(context, estimate, reservation=reservation)
        self.record(decision, shadow=shadow)
        return decision

    def attempt(
        self, context: Context, estimate: Amounts | None = None, *, reservation: str = ""
    ) -> tuple[Decision, Decision | None]:
        """As :meth:`admit` without an event; with what the shadow limits would have said, had they been asked."""
        plan = self._plan
        request = self._asked(plan, context, estimate, reservation)
        decision = self._store.admit(request)
        shadow = shadow_request(plan.policy, request) if plan.shadow and decision.allowed else None
        if shadow is None:
            return decision, None
        try:
            return decision, self._store.admit(shadow)
        except StoreError:
            return decision, None

    async def attempt_async(
        self, context: Context, estimate: Amounts | None = None, *, reservation: str = ""
    ) -> tuple[Decision, Decision | None]:
        """As :meth:`attempt`. In memory nothing is awaited."""
        if self._remote is None:
            return self.attempt(context, estimate, reservation=reservation)
        plan = self._plan
        request = self._asked(plan, context, estimate, reservation)
        decision = await self._remote.admit_async(request)
        shadow = shadow_request(plan.policy, request) if plan.shadow and decision.allowed else None
        if shadow is None:
            return decision, None
        try:
            return decision, await self._remote.admit_async(shadow)
        except StoreError:
            return decision, None
        except asyncio.CancelledError:  # what was admitted is given back before that goes on
            await self._remote.settle_async(decision.reservation, dict.fromkeys(UNITS, 0))
            raise

    def record(self, decision: Decision, *, shadow: Decision | None = None, waited_seconds: float = 0.0) -> None:
        """Hand the event of a decision to the sink, if there is one."""
        if self._sink is not None:
            event = decision_event(decision, service=self._service, shadow=shadow, waited_seconds=waited_seconds)
            self._record(event)

    def reload(self, policy: Policy) -> None:
        """Decide by another policy from the next request on; requests that run are settled by their own.

        Whatever has the same id, unit, scope and period keeps its counts and slots under the new amount. A rate that
        changed takes over what is owed, in units: in memory at once (:mod:`opsloop.rate_limit.inherit`), on Redis with
        the first admission that meets it, for a process that starts with another policy too.
        """
        if self._remote is not None:
            self._remote.check(policy)
        before, self.policy = self.policy, policy
        if isinstance(self._store, MemoryStore):
            self._store.inherit(before, policy)
        self._tell()

    def peek(self, context: Context, estimate: Amounts | None = None) -> Decision:
        """Return the decision that :meth:`admit` would make now, and reserve nothing."""
        return self._store.peek(self._asked(self._plan, context, estimate, ""))

    def settle(self, reservation: str, actual: Amounts) -> Receipt:
        """Replace the estimate by what the request really cost, and give its slots back; only the first time counts."""
        receipt = self._store.settle(reservation, checked_amounts(actual, name="actual"))
        self._follow(lambda: self._store.settle(shadow_id(reservation), actual))
        return self._settled(receipt)

    def renew(self, reservation: str) -> Receipt:
        """Prolong the slots of a request that is still running."""
        self._follow(lambda: self._store.renew(shadow_id(reservation)))
        return self._store.renew(reservation)

    def release(self, reservation: str) -> Receipt:
        """Give the slots of a request back and let its estimate stand."""
        self.heartbeat.stop(reservation)
        self._follow(lambda: self._store.release(shadow_id(reservation)))
        receipt = self._store.release(reservation)
        self._tell()
        return receipt

    def keep_alive(self, decision: Decision) -> None:
        """Renew the slots of a running request every third of a lease, until it is settled or released."""
        limits = (*(demand.limit for demand in decision.request.demands), *self.policy.shadow)
        leases = [limit.lease_ns for limit in limits if limit.lease_ns]
        if leases and decision.reservation:
            self.heartbeat.start(decision.reservation, every_seconds=min(leases) / 3 / NANOSECONDS)

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
        plan = self._plan
        if self._sink is None and not plan.shadow:  # nobody else hears of it
            return await self._remote.admit_async(self._asked(plan, context, estimate, reservation))
        decision, shadow = await self.attempt_async(context, estimate, reservation=reservation)
        self.record(decision, shadow=shadow)
        return decision

    async def peek_async(self, context: Context, estimate: Amounts | None = None) -> Decision:
        """As :meth:`peek`."""
        if self._remote is None:
            return self.peek(context, estimate)
        return await self._remote.peek_async(self._asked(self._plan, context, estimate, ""))

    async def settle_async(self, reservation: str, actual: Amounts) -> Receipt:
        """As :meth:`settle`."""
        if self._remote is None:
            return self.settle(reservation, actual)
        self.heartbeat.stop(reservation)
        receipt = await self._remote.settle_async(reservation, checked_amounts(actual, name="actual"))
        await self._follow_async(self._remote.settle_async, shadow_id(reservation), actual)
        return self._settled(receipt)

    async def renew_async(self, reservation: str) -> Receipt:
        """As :meth:`renew`."""
        if self._remote is None:
            return self.renew(reservation)
        await self._follow_async(self._remote.renew_async, shadow_id(reservation))
        return await self._remote.renew_async(reservation)

    async def release_async(self, reservation: str) -> Receipt:
        """As :meth:`release`."""
        if self._remote is None:
            return self.release(reservation)
        self.heartbeat.stop(reservation)
        receipt = await self._remote.release_async(reservation)
        await self._follow_async(self._remote.release_async, shadow_id(reservation))
        self._tell()
        return receipt

    def _renew_all(self, reservations: Sequence[str]) -> list[bool]:
        """Prolong the slots of all that runs, in as few calls as the store can; tell which of them still have any."""
        renew_all = self._renew_each if self._remote is None else self._remote.renew_all
        if self.policy.shadow:
            with contextlib.suppress(StoreError):
                renew_all([shadow_id(reservation) for reservation in reservations])
        return [receipt.status != "not_held" for receipt in renew_all(reservations)]

    def _renew_each(self, reservations: Sequence[str]) -> list[Receipt]:
        return [self._store.renew(reservation) for reservation in reservations]

    def _tell(self) -> None:
        """Tell whoever listens that there may be room."""
        for listener in self.listeners:
            listener()

    def _follow(self, step: Callable[[], Receipt]) -> None:
        """Let the shadow limits follow a step, if there are any; they never fail it."""
        if self.policy.shadow:
            with contextlib.suppress(StoreError):
                step()

    async def _follow_async(self, step: Callable[..., Awaitable[Receipt]], *arguments: Any) -> None:
        if self.policy.shadow:
            with contextlib.suppress(StoreError):
                await step(*arguments)

    def _asked(self, plan: Plan, context: Context, estimate: Amounts | None, reservation: str) -> Request:
        caller = plan.caller(plan.read(context))
        if estimate or reservation or not caller.plain or plan.shadow:
            return self._request(plan, caller, context, estimate, reservation)
        return Request(context, NO_AMOUNTS, caller.demands, self._now_ns())

    def _request(
        self, plan: Plan, caller: Caller, context: Context, estimate: Amounts | None, reservation: str
    ) -> Request:
        amounts = checked_amounts(estimate, name="estimate") if estimate else NO_AMOUNTS
        ts_ns = self._now_ns()
        demands = caller.costed(amounts, ts_ns)
        if reservation:
            return Request(context, amounts, demands, ts_ns, reservation, remember=True)
        if caller.settles or any(limit.settles for limit in plan.policy.shadow):
            return Request(context, amounts, demands, ts_ns, f"{self._prefix}-{next(self._numbers)}")
        return Request(context, amounts, demands, ts_ns)

    def _settled(self, receipt: Receipt) -> Receipt:
        self.heartbeat.stop(receipt.reservation)
        self._tell()
        if self._sink is not None and receipt.status == "settled":
            self._record(receipt_event(receipt, self._clock.now_ns(), service=self._service))
        return receipt

    def _record(self, event: Event) -> None:
        try:
            if self._sink is not None:
                self._sink.append([event])
        except Exception as cause:  # noqa: BLE001 - a sink is anybody's code, and must not take requests down with it
            if not self.events_lost:
                _LOG.warning("a limit's events cannot be written, they are counted in events_lost: %r", cause)
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
        return self.hold(self._limiter.admit(self._context, self._estimate))

    def hold(self, decision: Decision) -> Decision:
        """Keep what was decided until the block is left; raise :class:`RateLimitedError` for a no."""
        if not decision.allowed:
            raise RateLimitedError(decision)
        self._decision = decision
        self._limiter.keep_alive(decision)
        return decision

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        if self._decision is not None and self._decision.reservation:
            self._limiter.release(self._decision.reservation)

    async def __aenter__(self) -> Decision:
        """Admit, or raise; nothing is awaited after the answer."""
        return self.hold(await self._limiter.admit_async(self._context, self._estimate))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release. It is under way before anything is awaited, so a second cancellation cannot stop it."""
        if self._decision is not None and self._decision.reservation:
            await self._limiter.release_async(self._decision.reservation)
