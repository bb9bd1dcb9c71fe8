"""The answer to an admission: whether, why not, when again, and how full every limit is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.event import Event
from opsloop.rate_limit.context import Amounts, Context
from opsloop.rate_limit.limit import Key, Level, Lever, Limit, LimitState

__all__ = [
    "Decision",
    "Demand",
    "Receipt",
    "Request",
    "Violation",
    "decision_event",
    "receipt_event",
]


class Demand(msgspec.Struct, frozen=True, gc=False):
    """One limit as it bears on one request."""

    limit: Limit
    key: Key
    cost: int
    resets_in_ns: int = 0
    """To the end of a quota's period, or of the last lease on a slot; 0 for a rate, whose state knows it."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request, resolved against a policy: everything that a store needs to decide."""

    context: Context
    estimate: Amounts
    demands: tuple[Demand, ...]
    ts_ns: int
    """The wall-clock time that named the quota periods."""
    reservation: str = ""
    """The id under which it can be repeated, settled, renewed and released; empty when there is nothing to settle."""
    remember: bool = False
    """Whether the caller chose the id and may repeat it: then it is remembered after it was settled."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One limit that said no."""

    limit: str
    """The limit's id."""
    lever: Lever
    scope: dict[str, str]
    """Whose bucket it is: scope names and values."""
    cost: int
    remaining: int | None
    """``None`` when the store did not answer."""
    retry_after_ns: int | None
    """Until this limit alone would say yes; ``None`` when it never will."""
    reason: str


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Yes or no with its reasons. Nothing is written for a no; a yes has reserved its estimate on every limit.

    It keeps the integers that it was made from. Levels, violations and sentences are worked out when they are asked
    for, since most decisions are never looked into.
    """

    request: Request
    status: Literal["allowed", "rejected", "never_admissible"]
    values: tuple[int | None, ...]
    """For each demand of the request the bucket's state, the quota's count or the slots held, after the decision;
    ``None`` when the store did not answer."""
    now_ns: int
    """The store's time."""
    waits: tuple[int | None, ...] = ()
    """After a no, for each demand the nanoseconds to wait: 0 where it would fit, ``None`` where it never will."""
    retry_after_ns: int | None = 0
    """The longest wait among the violated limits; ``None`` when waiting does not help."""
    degraded: str = ""
    """Why the store could not decide, when the limits' ``on_store_failure`` did in its place; empty otherwise."""

    @property
    def allowed(self) -> bool:
        """Whether the request may go ahead."""
        return self.status == "allowed"

    @property
    def reservation(self) -> str:
        """The id to settle, renew and release with; empty after a no and where there is nothing to settle."""
        return self.request.reservation if self.status == "allowed" else ""

    @property
    def retry_after_seconds(self) -> float | None:
        """``retry_after_ns`` in seconds; 0 when allowed, ``None`` when waiting does not help."""
        return None if self.retry_after_ns is None else self.retry_after_ns / NANOSECONDS

    @property
    def status_code(self) -> int:
        """The HTTP status: 200, 429, 413 for what can never be admitted, 503 when only limits for all are full.

        503 too when nobody could be asked.
        """
        if self.status == "allowed":
            return 200
        if None in self.values:
            return 503
        if self.status == "never_admissible":
            return 413
        violated = (demand for demand, wait in zip(self.request.demands, self.waits, strict=True) if wait != 0)
        return 503 if all(demand.limit.shared for demand in violated) else 429

    @property
    def levels(self) -> tuple[Level, ...]:
        """Each limit that the request was counted against with its raw numbers, in the order of the policy."""
        return tuple(
            Level(demand.limit, value, self.now_ns, demand.resets_in_ns)
            for demand, value in zip(self.request.demands, self.values, strict=True)
            if value is not None
        )

    @property
    def limits(self) -> dict[str, LimitState]:
        """Every limit that the request counts against, by id, as the decision left it."""
        return {level.limit.id: level.state() for level in self.levels}

    @property
    def violated(self) -> tuple[Violation, ...]:
        """Every limit that said no, in the order of the policy."""
        if self.status == "allowed":
            return ()
        parts = zip(self.request.demands, self.values, self.waits, strict=True)
        return tuple(_violation(self, *part) for part in parts if part[2] != 0)

    @property
    def reason(self) -> str:
        """One sentence that names every violated limit."""
        if self.status != "allowed":
            return "; ".join(violation.reason for violation in self.violated)
        if self.degraded:
            return f"admitted without the store: {self.degraded}"
        if not self.values:
            return "no limit applies"
        return "within " + ", ".join(demand.limit.id for demand in self.request.demands)


class Receipt(msgspec.Struct, frozen=True):
    """The answer to settle, renew and release. ``not_held`` changed nothing, so each of them is done once.

    ``deferred`` is what a store outside this process could not be told; it is told again when it answers.
    """

    reservation: str
    status: Literal["settled", "renewed", "released", "not_held", "deferred"]
    reason: str
    request: Request | None = None
    actual: Amounts = {}
    levels: tuple[Level, ...] = ()
    """The limits that it changed, as it left them."""


def decision_event(
    decision: Decision, *, service: str = "", shadow: Decision | None = None, waited_seconds: float = 0.0
) -> Event:
    """Return the ``limit`` event of phase ``admit`` that records a decision; the same decision has the same event.

    ``shadow`` is what the shadow limits would have decided, ``waited_seconds`` how long the request waited for it.
    """
    request = decision.request
    attributes: dict[str, Any] = {
        "phase": "admit",
        "allowed": decision.allowed,
        "status": decision.status,
        "violated": [violation.limit for violation in decision.violated],
        "limits": _states(decision.levels),
        "estimate": dict(request.estimate),
        "retry_after_seconds": decision.retry_after_seconds,
        "reservation": decision.reservation,
    }
    if not decision.allowed:
        attributes["reason"] = decision.reason
    if waited_seconds:
        attributes["waited_seconds"] = waited_seconds
    if shadow is not None:
        attributes["shadow"] = {
            "allowed": shadow.allowed,
            "violated": [violation.limit for violation in shadow.violated],
            "limits": _states(shadow.levels),
            "reason": shadow.reason,
        }
    if decision.degraded:
        attributes["degraded"] = decision.degraded
    return _event(
        request,
        request.ts_ns,
        attributes,
        service=service,
        event_id=f"limit:admit:{request.ts_ns}:{decision.reservation}" if decision.reservation else "",
        severity="INFO" if decision.allowed and not decision.degraded else "WARN",
        status_code=None if decision.allowed else decision.status_code,
        error_type="" if decision.allowed else "store_unavailable" if None in decision.values else "rate_limited",
        message=decision.reason,
    )


def receipt_event(receipt: Receipt, ts_ns: int, *, service: str = "") -> Event:
    """Return the ``limit`` event of phase ``settle`` that records what a request really cost.

    Raises ``ValueError`` for a receipt that is not of a settle.
    """
    if receipt.request is None or receipt.status != "settled":
        raise ValueError(f"a receipt that says {receipt.status!r} is no settlement")
    attributes = {
        "phase": "settle",
        "allowed": True,
        "limits": _states(receipt.levels),
        "estimate": dict(receipt.request.estimate),
        "actual": dict(receipt.actual),
        "reservation": receipt.reservation,
    }
    name = f"limit:settle:{receipt.request.ts_ns}:{receipt.reservation}"
    return _event(receipt.request, ts_ns, attributes, service=service, event_id=name, message=receipt.reason)


def _states(levels: tuple[Level, ...]) -> dict[str, Any]:
    return {level.limit.id: msgspec.to_builtins(level.state()) for level in levels}


def _event(request: Request, ts_ns: int, attributes: Mapping[str, Any], **fields: Any) -> Event:
    context = request.context
    known = {name: getattr(context, name) for name in ("organisation", "key") if getattr(context, name)}
    return Event(
        ts_ns=ts_ns,
        event="limit",
        request_id=context.request_id,
        tenant=context.tenant,
        route=context.route,
        model=context.model,
        attributes={**attributes, **known},
        **fields,
    )


def _violation(decision: Decision, demand: Demand, value: int | None, wait: int | None) -> Violation:
    context, limit = decision.request.context, demand.limit
    scope = {name: getattr(context, name) for name in limit.scope}
    whose = " for " + ", ".join(f"{name} {value or '(unknown)'}" for name, value in scope.items()) if scope else ""
    remaining = None
    if value is not None:
        remaining = Level(limit, value, decision.now_ns, demand.resets_in_ns).state().remaining
    if remaining is None:
        told = f"cannot be counted, {decision.degraded}"
    elif wait is None:
        told = f"{demand.cost} {limit.unit} asked, never more than {limit.capacity} at once"
    elif limit.lever == "concurrency":
        told = f"all {limit.amount} slots are held, the next lease ends in {_seconds(wait)}"
    else:
        then = "resets in" if limit.calendar is not None else "admissible in"
        told = f"{remaining} of {limit.spelled()} left, {demand.cost} asked, {then} {_seconds(wait)}"
    return Violation(
        limit=limit.id,
        lever=limit.lever,
        scope=scope,
        cost=demand.cost,
        remaining=remaining,
        retry_after_ns=wait,
        reason=f"{limit.id}{whose}: {told}",
    )


def _seconds(wait_ns: int) -> str:
    """Return a wait for people, rounded up to the millisecond so that it is never too short."""
    return f"{-(-wait_ns // 1_000_000) / 1000:.3f}".rstrip("0").rstrip(".") + " s"
