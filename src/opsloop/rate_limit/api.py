"""What the rate limit answers over HTTP and on the command line."""

from __future__ import annotations

import tomllib
from typing import Any, Final

import msgspec

from opsloop.clock import Clock
from opsloop.endpoint import WINDOW_PARAMETERS, Arguments, Endpoint, Parameter, window_of
from opsloop.errors import ConfigError, InputError, PayloadError
from opsloop.event import Event
from opsloop.filter import Compare, Op, Or, equals
from opsloop.rate_limit.desk import desk, desk_endpoints
from opsloop.rate_limit.policy import Policy, policy_from_settings
from opsloop.rate_limit.redis_url import address
from opsloop.rate_limit.simulate import Report, simulate
from opsloop.rate_limit.sql import usage_in
from opsloop.rate_limit.usage import Usage, usage
from opsloop.settings import LimitSettings, Settings
from opsloop.stream import Database, Stream

__all__ = ["Explanation", "Limits", "endpoints"]

REPLAYED: Final = Or(tuple(Compare("event", Op.EQ, kind) for kind in ("request", "llm", "embed", "limit")))
WRITE_LIMITS: Final = 'send [[limit]] tables as TOML, or {"limit": [...]} as JSON; see docs/rate_limit.md'


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The policy as it is configured, and how it was used."""

    start_ns: int
    end_ns: int
    policy: tuple[LimitSettings, ...]
    counted_in: str
    """Where the server counts them for those who ask it: memory, or a Redis by its address."""
    usage: Usage


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Every decision about one request, in order."""

    request_id: str
    reason: str
    decisions: tuple[dict[str, Any], ...]


def endpoints(database: Database, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return the operations of the room; raise :class:`ConfigError` for limits that contradict themselves."""
    limiter = desk(settings, clock=clock, sink=database)
    counted_in = repr(address(settings.server.limits)) if settings.server.limits else "memory"

    def limits(arguments: Arguments, _: bytes) -> Limits:
        start_ns, end_ns = window_of(arguments, clock=clock)
        found = _usage(database, start_ns, end_ns)
        return Limits(start_ns=start_ns, end_ns=end_ns, policy=settings.limit, counted_in=counted_in, usage=found)

    def try_policy(arguments: Arguments, body: bytes) -> Report:
        policy = _policy(body)
        start_ns, end_ns = window_of(arguments, clock=clock)
        return simulate(policy, database.query(REPLAYED, start_ns=start_ns, end_ns=end_ns))

    def explain(arguments: Arguments, _: bytes) -> Explanation:
        request_id = arguments.get("request_id", "")
        if not request_id:
            raise InputError("request_id is missing", fix="name the request: ?request_id=req-…")
        found = database.query(equals(event="limit", request_id=request_id))
        return Explanation(
            request_id=request_id,
            reason=_summary(request_id, found),
            decisions=tuple({"ts_ns": event.ts_ns, "tenant": event.tenant, **event.attributes} for event in found),
        )

    return (
        *desk_endpoints(limiter),
        Endpoint(
            path="/api/limits",
            summary="The limits as configured, and how they were used in a window",
            handler=limits,
            parameters=WINDOW_PARAMETERS,
        ),
        Endpoint(
            path="/api/limits/simulate",
            method="POST",
            summary="Replay recorded traffic against other limits: who would have been rejected",
            handler=try_policy,
            parameters=WINDOW_PARAMETERS,
        ),
        Endpoint(
            path="/api/limits/explain",
            summary="Why one request was admitted or rejected",
            handler=explain,
            parameters=(Parameter("request_id", "the request", required=True),),
        ),
    )


def _usage(database: Stream, start_ns: int, end_ns: int) -> Usage:
    """Ask the store where it answers SQL; a stream in memory is counted by the definition."""
    if isinstance(database, Database):
        return usage_in(database, start_ns=start_ns, end_ns=end_ns)
    events = database.query(equals(event="limit"), start_ns=start_ns, end_ns=end_ns)
    return usage(events, start_ns=start_ns, end_ns=end_ns)


def _policy(body: bytes) -> Policy:
    """Read a policy that was sent, and blame the sender for what is wrong with it."""
    tables = _decoded(body)
    limits = tables.get("limit") if isinstance(tables, dict) else tables
    if limits is None:
        raise PayloadError("the body holds no limit", fix=WRITE_LIMITS)
    try:
        return policy_from_settings(msgspec.convert(limits, tuple[LimitSettings, ...], strict=False))
    except msgspec.ValidationError as cause:
        raise PayloadError(f"limit: {cause}", fix=WRITE_LIMITS) from cause
    except ConfigError as cause:
        raise InputError(cause.message, fix=cause.fix) from cause


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # then it has to be TOML
    try:
        return tomllib.loads(body.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise PayloadError(f"the body is neither JSON nor TOML: {cause}", fix=WRITE_LIMITS) from cause


def _summary(request_id: str, events: list[Event]) -> str:
    admits = [event for event in events if event.attributes.get("phase") != "settle"]
    if not admits:
        return f"no limit decision was recorded for {request_id}"
    refused = [event for event in admits if event.attributes.get("allowed") is not True]
    if not refused:
        return f"admitted {len(admits)} times, never rejected{_waited(admits)}{_shadowed(admits)}"
    last = refused[-1]
    reason = last.attributes.get("reason") or last.message
    return f"rejected {len(refused)} of {len(admits)} times, the last by {reason}{_shadowed(admits)}"


def _waited(admits: list[Event]) -> str:
    waits = [wait for event in admits if isinstance(wait := event.attributes.get("waited_seconds"), int | float)]
    return f", after waiting {max(waits):.3f} s" if waits else ""


def _shadowed(admits: list[Event]) -> str:
    """Return what the shadow limits would have refused."""
    shadows = [shadow for event in admits if isinstance(shadow := event.attributes.get("shadow"), dict)]
    refused = [shadow for shadow in shadows if shadow.get("allowed") is not True]
    return f"; shadow limits would have rejected {len(refused)}, {refused[-1].get('reason')}" if refused else ""
