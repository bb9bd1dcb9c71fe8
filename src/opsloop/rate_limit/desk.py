"""Decisions over HTTP: whoever cannot hold a limiter asks a server, and all of its replicas count as one.

A desk is a limiter by the settings' policy over the store that they name. A refusal is an answer like others; its
``status_code`` says what the caller may tell its own. Every decision is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from opsloop.clock import Clock
from opsloop.endpoint import Arguments, Endpoint, Parameter
from opsloop.errors import InputError, PayloadError
from opsloop.rate_limit.context import PARTS, UNITS, Context
from opsloop.rate_limit.decision import Decision, Receipt, Violation
from opsloop.rate_limit.limit import LimitState
from opsloop.rate_limit.limiter import Limiter
from opsloop.rate_limit.place import store_at
from opsloop.rate_limit.policy import policy_from_settings
from opsloop.settings import Settings
from opsloop.stream import Sink

__all__ = ["Answer", "Asked", "Ended", "Named", "answer_of", "desk", "desk_endpoints"]

T = TypeVar("T")
WHO: Final = (*PARTS, "request_id")


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of an admission."""

    context: Context = Context()
    estimate: dict[str, int] = {}
    reservation: str = ""


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of what ends or prolongs a reservation."""

    reservation: str
    actual: dict[str, int] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, as it is told."""

    allowed: bool
    status: str
    status_code: int
    reservation: str
    """What settle, renew and release go by; any replica takes it."""
    reason: str
    retry_after_seconds: float | None
    limits: dict[str, LimitState]
    violated: tuple[Violation, ...]
    degraded: str


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt, as it is told."""

    reservation: str
    status: str
    reason: str


def desk(settings: Settings, *, clock: Clock | None = None, sink: Sink | None = None) -> Limiter:
    """Return a limiter by the settings; raise :class:`ConfigError` for a policy or a store that cannot be."""
    policy = policy_from_settings(settings.limit)
    return Limiter(policy, store=store_at(settings.server.limits, clock=clock), clock=clock, sink=sink)


def answer_of(decision: Decision) -> Answer:
    """Return a decision as it is told."""
    return Answer(
        allowed=decision.allowed,
        status=decision.status,
        status_code=decision.status_code,
        reservation=decision.reservation,
        reason=decision.reason,
        retry_after_seconds=decision.retry_after_seconds,
        limits=decision.limits,
        violated=decision.violated,
        degraded=decision.degraded,
    )


def desk_endpoints(limiter: Limiter) -> tuple[Endpoint, ...]:
    """Return the operations on a limiter."""

    def admit(_: Arguments, body: bytes) -> Answer:
        asked = _read(body, Asked)
        return answer_of(limiter.admit(asked.context, asked.estimate, reservation=asked.reservation))

    def peek(arguments: Arguments, _: bytes) -> Answer:
        context = Context(**{name: arguments[name] for name in WHO if name in arguments})
        return answer_of(limiter.peek(context, {unit: _whole(arguments, unit) for unit in UNITS if unit in arguments}))

    def settle(_: Arguments, body: bytes) -> Ended:
        named = _read(body, Named)
        return _ended(limiter.settle(named.reservation, named.actual))

    def ending(end: Callable[[str], Receipt]) -> Callable[[Arguments, bytes], Ended]:
        return lambda _, body: _ended(end(_read(body, Named).reservation))

    def post(name: str, summary: str, handler: Callable[[Arguments, bytes], Any]) -> Endpoint:
        return Endpoint(path=f"/api/limits/{name}", method="POST", summary=summary, handler=handler, scope="ingest")

    who = tuple(Parameter(name, f"{name} of the request") for name in WHO)
    amounts = tuple(Parameter(unit, f"{unit} that it would take", "integer") for unit in UNITS)
    return (
        Endpoint(
            path="/api/limits/peek",
            summary="What an admission would be answered now; nothing is reserved",
            handler=peek,
            parameters=(*who, *amounts),
        ),
        post("admit", "Admit a request on all of its limits or on none, and reserve its estimate", admit),
        post("settle", "Replace an estimate by what the request really cost, once", settle),
        post("renew", "Prolong the slots of a request that is still running", ending(limiter.renew)),
        post("release", "Give the slots of a request back", ending(limiter.release)),
    )


def _ended(receipt: Receipt) -> Ended:
    return Ended(reservation=receipt.reservation, status=receipt.status, reason=receipt.reason)


def _read(body: bytes, form: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise PayloadError(f"the body is no {form.__name__}: {cause}", fix="see docs/rate_limit.md") from cause


def _whole(arguments: Arguments, unit: str) -> int:
    try:
        return int(arguments[unit])
    except ValueError:
        raise InputError(f"{unit} is {arguments[unit]!r}", fix="give a whole number, 0 or more") from None
