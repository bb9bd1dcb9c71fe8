"""Waiting instead of a 429: for at most so long, in a fair order, and without losing anything when given up.

Rule
    Whoever waits for a bucket keeps their place at it: nobody behind them in the fair order takes from it before they
    have had their turn. So a large request is not starved by small ones, and whoever waits for a bucket of their own
    holds up nobody else. A request that would rather not wait (``wait_seconds=0``) does not overtake either.
Turns
    Nobody is admitted by somebody else. A waiter is *woken* when it may try, and tries itself: between the yes and its
    return nothing is awaited, so a cancellation or an exception cannot fall in between and lose a slot.
Time
    A rate and a quota say exactly when to try again; a slot is tried when one comes back in this process, and every
    ``poll_seconds`` for those that come back in others. A quota or a rate of requests that will not have room before
    the deadline is refused at once: waiting would be in vain.

See design/waiting-is-fair.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from opsloop.clock import NANOSECONDS, Clock, SystemClock
from opsloop.rate_limit.context import Amounts, Context, amount_of
from opsloop.rate_limit.decision import Decision, Demand
from opsloop.rate_limit.fairness import FairQueue
from opsloop.rate_limit.limiter import Limiter, Slot

__all__ = ["Waiting", "WaitingSlot"]

NOBODY: Final[frozenset[Any]] = frozenset()


class Waiting:
    """A limiter whose callers may wait, from threads and from tasks alike.

    ``who`` names whose turn a request takes, its tenant unless given; ``cost`` how much of it, its tokens unless given.

    >>> from opsloop.rate_limit import policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> fast = LimitSettings(id="fast", lever="rate", amount=1000, per="second", burst=1)
    >>> waiting = Waiting(Limiter(policy_from_settings([fast])))
    >>> all(waiting.admit(Context(tenant="acme"), wait_seconds=1).allowed for _ in range(5))
    True
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        clock: Clock | None = None,
        most_waiting: int = 1000,
        poll_seconds: float = 0.25,
        who: Callable[[Context], str] | None = None,
        cost: Callable[[Context, Amounts], int] | None = None,
    ) -> None:
        """Let at most ``most_waiting`` requests wait for ``limiter``; more are refused as if they would not wait."""
        self.limiter = limiter
        self._clock = clock or SystemClock()
        self._most = most_waiting
        self._poll_ns = round(poll_seconds * NANOSECONDS)
        self._who = who or (lambda context: context.tenant)
        self._cost = cost or (lambda _, estimate: amount_of("tokens", estimate) or 1)
        self._lock = threading.Lock()
        self._queue = FairQueue[_Ticket]()
        self._frees = 0
        limiter.listeners.append(self._freed)

    def admit(self, context: Context, estimate: Amounts | None = None, *, wait_seconds: float) -> Decision:
        """As :meth:`Limiter.admit`, and wait up to ``wait_seconds`` for a yes."""
        turn = threading.Event()
        ticket = self._ticket(context, estimate, wait_seconds, turn.set)
        try:
            while True:
                turn.clear()
                looked = self._look(ticket)
                tried = self.limiter.attempt(ticket.context, ticket.estimate) if looked.mine else None
                decision, rest_ns = self._next(ticket, looked, tried)
                if decision is not None:
                    return decision
                turn.wait(rest_ns / NANOSECONDS)
        finally:
            self._leave(ticket)

    async def admit_async(self, context: Context, estimate: Amounts | None = None, *, wait_seconds: float) -> Decision:
        """As :meth:`admit`, for tasks. A cancelled task leaves the queue and has taken nothing."""
        loop, turn = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop of that waiter is closed: it waits no more
                loop.call_soon_threadsafe(turn.set)

        ticket = self._ticket(context, estimate, wait_seconds, wake)
        try:
            while True:
                turn.clear()
                looked, tried = self._look(ticket), None
                if looked.mine:
                    tried = await self.limiter.attempt_async(ticket.context, ticket.estimate)
                decision, rest_ns = self._next(ticket, looked, tried)
                if decision is not None:
                    return decision
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest_ns / NANOSECONDS):
                        await turn.wait()
        finally:
            self._leave(ticket)

    def slot(self, context: Context, estimate: Amounts | None = None, *, wait_seconds: float) -> WaitingSlot:
        """As :meth:`Limiter.slot`, and wait up to ``wait_seconds`` on entering."""
        return WaitingSlot(self, context, estimate, wait_seconds)

    def pump(self) -> None:
        """Wake whoever may try now: for a clock that was moved by hand, or room that came from elsewhere."""
        self._freed()

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._queue)

    def _ticket(
        self, context: Context, estimate: Amounts | None, wait_seconds: float, wake: Callable[[], None]
    ) -> _Ticket:
        deadline_ns = self._clock.monotonic_ns() + round(wait_seconds * NANOSECONDS)
        return _Ticket(context, estimate or {}, deadline_ns, wake)

    def _look(self, ticket: _Ticket) -> _Turn:
        """Return how things stand for a ticket."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            ahead, frees = self._ahead(ticket), self._frees
        late = now_ns >= ticket.deadline_ns
        return _Turn(now_ns, late, not ahead and (late or ticket.due_ns <= now_ns), ahead, frees)

    def _next(
        self, ticket: _Ticket, turn: _Turn, tried: tuple[Decision, Decision | None] | None
    ) -> tuple[Decision | None, int]:
        """Return the answer, or how many nanoseconds to sleep at most."""
        refused = None
        if tried is not None:
            decision, shadow = tried
            if decision.allowed or _in_vain(decision, ticket.deadline_ns - turn.now_ns):
                return self._answer(ticket, decision, shadow), 0
            refused = decision
            with self._lock:
                ticket.learn(decision, turn.now_ns, self._poll_ns)
                if turn.frees != self._frees:  # something came back since: what was learned is old
                    ticket.due_ns = 0
        if turn.late or not self._join(ticket):
            return self._answer(ticket, refused or self._behind(ticket, turn.ahead, turn.now_ns)), 0
        with self._lock:
            wakes_ns = ticket.deadline_ns if self._ahead(ticket) else min(ticket.due_ns, ticket.deadline_ns)
        return None, max(0, wakes_ns - turn.now_ns)

    def _ahead(self, ticket: _Ticket) -> dict[Any, int]:
        """Return the buckets of a ticket that others before it wait for, each with when it is tried again."""
        found: dict[Any, int] = {}
        for other in self._queue or ():
            if other is ticket:
                break
            for key in self._keys(ticket) & (other.held or self._keys(other)):
                found[key] = max(found.get(key, 0), other.due_ns)
        return found

    def _keys(self, ticket: _Ticket) -> frozenset[Any]:
        """Return the buckets that a request takes from; a quota's is the same in each period."""
        if not ticket.keys:
            demands = self.limiter.policy.demands(ticket.context, ticket.estimate, 0)
            ticket.keys = _buckets(demands)
        return ticket.keys

    def _join(self, ticket: _Ticket) -> bool:
        with self._lock:
            if ticket in self._queue:
                return True
            if len(self._queue) >= self._most:
                return False
            who, cost = self._who(ticket.context), self._cost(ticket.context, ticket.estimate)
            self._queue.join(ticket, tenant=who, cost=cost)
            ticket.joined = True
            return True

    def _answer(self, ticket: _Ticket, decision: Decision, shadow: Decision | None = None) -> Decision:
        with self._lock:
            self._queue.leave(ticket, served=decision.allowed)
        waited_ns = 0 if ticket.since_ns is None else self._clock.monotonic_ns() - ticket.since_ns
        self.limiter.record(decision, shadow=shadow, waited_seconds=waited_ns / NANOSECONDS)
        return decision

    def _leave(self, ticket: _Ticket) -> None:
        """Leave the queue, whatever happened, and wake those who are now first at what it held."""
        with self._lock:
            self._queue.leave(ticket, served=False)
            if ticket.joined:
                self._wake()

    def _freed(self) -> None:
        """Something came back: everybody who is first at a bucket may try."""
        with self._lock:
            self._frees += 1
            if self._queue:
                for ticket in self._queue:
                    ticket.due_ns = 0
                self._wake()

    def _wake(self) -> None:
        """Wake the first at each bucket; the lock is held."""
        held: set[Any] = set()
        for ticket in self._queue:
            if held.isdisjoint(self._keys(ticket)):
                ticket.wake()
            held |= ticket.held or self._keys(ticket)

    def _behind(self, ticket: _Ticket, ahead: dict[Any, int], now_ns: int) -> Decision:
        """Return the no of a request whose limits may have room, and others before it wait for that."""
        decision = self.limiter.peek(ticket.context, ticket.estimate)
        if not decision.allowed:
            return decision
        waits = tuple(
            max(1, ahead[demand.key[:2]] - now_ns) if demand.key[:2] in ahead else 0
            for demand in decision.request.demands
        )
        return msgspec.structs.replace(decision, status="rejected", waits=waits, retry_after_ns=max(waits, default=1))


class WaitingSlot(Slot):
    """One admission as a context manager, that waits for its yes."""

    def __init__(self, waiting: Waiting, context: Context, estimate: Amounts | None, wait_seconds: float) -> None:
        """Remember what to ask for; nothing is asked before entering."""
        super().__init__(waiting.limiter, context, estimate)
        self._waiting = waiting
        self._wait_seconds = wait_seconds

    def __enter__(self) -> Decision:
        """Wait and admit, or raise :class:`RateLimitedError`."""
        return self.hold(self._waiting.admit(self._context, self._estimate, wait_seconds=self._wait_seconds))

    async def __aenter__(self) -> Decision:
        """Wait and admit, or raise; between the yes and the block nothing is awaited."""
        waiting, seconds = self._waiting, self._wait_seconds
        return self.hold(await waiting.admit_async(self._context, self._estimate, wait_seconds=seconds))


class _Turn(msgspec.Struct, frozen=True):
    """How things stand for one ticket."""

    now_ns: int
    late: bool
    mine: bool
    """Whether it may try."""
    ahead: dict[Any, int]
    frees: int


class _Ticket:
    """One request that waits."""

    __slots__ = ("context", "deadline_ns", "due_ns", "estimate", "held", "joined", "keys", "since_ns", "wake")

    def __init__(self, context: Context, estimate: Amounts, deadline_ns: int, wake: Callable[[], None]) -> None:
        self.context = context
        self.estimate = estimate
        self.deadline_ns = deadline_ns
        self.wake = wake
        self.due_ns = 0
        self.since_ns: int | None = None
        self.joined = False
        self.keys: frozenset[Any] = NOBODY
        self.held: frozenset[Any] = NOBODY
        """The buckets that said no: those it keeps its place at. Before it has tried, all that it takes from."""

    def learn(self, decision: Decision, now_ns: int, poll_ns: int) -> None:
        """Take from a refusal what to wait for, and until when."""
        violated = [demand for demand, wait in zip(decision.request.demands, decision.waits, strict=True) if wait != 0]
        self.held = _buckets(violated)
        self.due_ns = now_ns + (decision.retry_after_ns or 0)
        if any(demand.limit.lever == "concurrency" for demand in violated):
            self.due_ns = min(self.due_ns, now_ns + poll_ns)
        if self.since_ns is None:
            self.since_ns = now_ns


def _buckets(demands: Iterable[Demand]) -> frozenset[Any]:
    return frozenset(demand.key[:2] for demand in demands)


def _in_vain(decision: Decision, rest_ns: int) -> bool:
    """Tell whether waiting does not help before the deadline: never, not before a period ends, not at this rate."""
    if decision.retry_after_ns is None:
        return True
    limits = (demand.limit for demand in decision.request.demands)
    return any(
        wait is not None and wait > rest_ns and limit.lever != "concurrency" and not (limit.bucket and limit.settles)
        for wait, limit in zip(decision.waits, limits, strict=True)
    )
