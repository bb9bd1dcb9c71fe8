"""Every operation on Redis as steps: a generator that yields script calls and is sent their replies.

Nothing here waits, so one text serves a thread and an event loop; see :mod:`opsloop.rate_limit.redis_client` and
:mod:`opsloop.rate_limit.redis_async` for the two drivers. A driver that cannot get a reply throws a :class:`StoreError`
into the steps. Steps that want to wait yield the seconds, of which a driver grants half of what its deadline leaves.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec

from opsloop.clock import Clock
from opsloop.errors import StoreError
from opsloop.rate_limit.context import Amounts
from opsloop.rate_limit.decision import Decision, Receipt, Request
from opsloop.rate_limit.failure import LoneError, MovingError
from opsloop.rate_limit.redis_kept import Kept
from opsloop.rate_limit.redis_keys import Keys
from opsloop.rate_limit.redis_plan import Plan, finding
from opsloop.rate_limit.redis_script import Answer, Closed, Script, merged, read, split

__all__ = ["Core", "Steps", "granted"]

T = TypeVar("T")
Steps: TypeAlias = Generator[Script | float, bytes, T]
REMEMBERED: Final = 65_536
"""Reservations of this process that are settled without asking Redis first what they were."""
TRIES: Final = 3
"""Times that a quota's period may turn out to be over before the answer is heard."""
LEAST_SECONDS: Final = 0.001
"""Of a wait; with less time than twice that there is no more to wait for."""
GONE: Final = "settled before, expired, or never admitted"


class Core:
    """The operations of a store, as steps. ``clock`` is for tests: the time that the scripts are handed."""

    def __init__(self, keys: Keys, *, clock: Clock | None = None) -> None:
        """Name keys by ``keys``; without a clock the server's own time counts."""
        self.keys = keys
        self._clock = clock
        self._open: dict[str, Plan] = {}

    def admit(self, request: Request) -> Steps[Decision]:
        """Decide and write, in one call; see :func:`opsloop.rate_limit.admit.decide`."""
        return self._decide(request, write=True)

    def peek(self, request: Request) -> Steps[Decision]:
        """Decide and write nothing."""
        return self._decide(request, write=False)

    def settle(self, reservation: str, actual: Amounts) -> Steps[Receipt]:
        """See :func:`opsloop.rate_limit.admit.settle`."""
        plan = yield from self._plan(reservation)
        if isinstance(plan, Receipt):
            return plan
        script, changed = plan.closing("settle", self.keys, now_us=self._now_us(), actual=actual)
        reply = yield script
        self._forget(reservation)
        if reply[:1] != b"D":
            return Receipt(reservation, "not_held", GONE)
        levels = plan.levels(changed, read(reply, Closed))
        corrected = ", ".join(level.limit.id for level in levels)
        reason = f"corrected {corrected}" if levels else "the estimate was right"
        if not plan.request.demands:
            reason = "no limit applies"
        request = msgspec.structs.replace(plan.request, reservation=reservation)
        return Receipt(reservation, "settled", reason, request, dict(actual), levels)

    def renew(self, reservation: str) -> Steps[Receipt]:
        """See :func:`opsloop.rate_limit.admit.renew`."""
        return (yield from self.renew_all((reservation,)))[0]

    def renew_all(self, reservations: Sequence[str]) -> Steps[list[Receipt]]:
        """Renew many reservations in one call for each slot of a Cluster that they lie in: one without a Cluster."""
        receipts: dict[str, Receipt] = {}
        plans: dict[str, list[tuple[str, Plan]]] = {}
        for name in dict.fromkeys(reservations):
            plan = yield from self._plan(name)
            if isinstance(plan, Receipt):
                receipts[name] = plan
            else:
                plans.setdefault(plan.tag, []).append((name, plan))
        for together in plans.values():
            scripts = [plan.closing("renew", self.keys, now_us=self._now_us())[0] for _, plan in together]
            try:
                reply = yield scripts[0] if len(scripts) == 1 else merged(scripts)
            except MovingError as moving:
                if len(plans) == 1:
                    raise
                receipts |= {name: Receipt(name, "deferred", moving.message) for name, _ in together}
                continue  # the others' slots must not run out for that
            for (name, plan), told in zip(together, split(reply, len(scripts)), strict=True):
                receipts[name] = self._renewed(name, plan, told)
        return [receipts[name] for name in reservations]

    def _renewed(self, name: str, plan: Plan, reply: bytes) -> Receipt:
        leased = [demand.limit.id for demand in plan.request.demands if demand.limit.lease_ns]
        if reply[:1] == b"D":
            return Receipt(name, "renewed", f"{len(leased)} slots renewed")
        if reply[:1] == b"L":
            return Receipt(name, "not_held", f"the lease on {leased[int(reply[1:]) - 1]} ran out")
        if reply[:1] == b"H":
            return Receipt(name, "not_held", f"{leased[int(reply[1:]) - 1]} was held for the longest time")
        self._forget(name)
        return Receipt(name, "not_held", GONE)

    def release(self, reservation: str) -> Steps[Receipt]:
        """See :func:`opsloop.rate_limit.admit.release`."""
        plan = yield from self._plan(reservation)
        if isinstance(plan, Receipt):
            return plan
        reply = yield plan.closing("release", self.keys, now_us=self._now_us())[0]
        if reply[:1] != b"D" or all(demand.limit.lease_ns for demand in plan.request.demands):
            self._forget(reservation)
        if reply[:1] != b"D":
            return Receipt(reservation, "not_held", GONE)
        request = msgspec.structs.replace(plan.request, reservation=reservation)
        return Receipt(reservation, "released", f"{read(reply, Closed).done} slots given back", request)

    def undo(self, request: Request) -> Steps[Receipt]:
        """Take an admission back whose answer was never heard, should it have come true."""
        name = self.keys.qualified(request.reservation, Plan.of(request, self.keys).tag)
        nothing = {demand.limit.unit: 0 for demand in request.demands}
        return self.settle(name, nothing)

    def change(self, request: Request) -> Steps[None]:
        """Add the request's costs to its buckets without asking; a cost below zero gives back."""
        demands = tuple(msgspec.structs.replace(demand, cost=-demand.cost) for demand in request.demands)
        plan = Plan.of(msgspec.structs.replace(request, demands=demands, reservation=""), self.keys)
        yield plan.undoing(b"", self.keys, now_us=self._now_us())

    def _decide(self, request: Request, *, write: bool) -> Steps[Decision]:
        if not request.demands and not (write and request.reservation):
            return Decision(request, "allowed", (), request.ts_ns)
        for _ in range(TRIES):
            plan = Plan.of(request, self.keys)
            reply = yield plan.admission(self.keys, now_us=self._now_us(), write=write)
            status = chr(reply[0])
            if status == "K":
                kept = Kept.read(reply[1:])
                return self._held(Plan.of(kept.request, self.keys), kept.answer)
            answer = read(reply, Answer)
            if status == "A" and write:
                plan.refreshed()
                return self._held(plan, answer)
            if status == "A":
                return plan.decision("A", answer)
            if status == "R":
                return plan.decision("R", answer)
            request = plan.at_time(answer.now_us)
        raise StoreError("the server's clock does not stand in one period", fix="check the clocks of the Redis servers")

    def _held(self, plan: Plan, answer: Answer) -> Decision:
        decision = plan.decision("A", answer)
        name = plan.request.reservation
        if not name:
            return decision
        admitted = plan.admitted(answer)
        self._remember(name, admitted)
        qualified = self.keys.qualified(name, plan.tag)
        if qualified == name:
            return decision
        self._remember(qualified, admitted)
        request = msgspec.structs.replace(plan.request, reservation=qualified)
        return msgspec.structs.replace(decision, request=request)

    def _plan(self, reservation: str) -> Steps[Plan | Receipt]:
        """Return what a reservation holds: from memory where this process made it, from Redis where another did.

        Where it holds nothing, or nothing that can be read, return what is to be answered.
        """
        plan = self._open.get(reservation)
        if plan is not None:
            return plan
        name, tag = self.keys.located(reservation)
        reply = yield finding(name, tag, self.keys, now_us=self._now_us())
        if reply[:1] != b"F":
            return Receipt(reservation, "not_held", GONE)
        try:
            kept = Kept.read(reply[1:])
        except LoneError as unreadable:
            return Receipt(reservation, "not_held", str(unreadable))
        plan = Plan.of(kept.request, self.keys).admitted(kept.answer)
        self._remember(reservation, plan)
        return plan

    def _remember(self, name: str, plan: Plan) -> None:
        self._open[name] = plan
        if len(self._open) > REMEMBERED:
            self._open.pop(next(iter(self._open), ""), None)

    def _forget(self, reservation: str) -> None:
        plan = self._open.pop(reservation, None)
        if plan is not None:
            self._open.pop(plan.request.reservation, None)

    def _now_us(self) -> int:
        return 0 if self._clock is None else self._clock.now_ns() // 1000


def granted(seconds: float, left_seconds: float) -> float:
    """Return how long to wait of what a step asks for; raise :class:`StoreError` where no time is left to try again.

    >>> granted(0.004, 0.05), granted(0.016, 0.019)
    (0.004, 0.0095)
    """
    if left_seconds < 2 * LEAST_SECONDS:
        raise StoreError("there is no time left to wait")
    return min(seconds, left_seconds / 2)
