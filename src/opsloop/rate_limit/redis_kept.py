"""A reservation as Redis keeps it: what it was about, so that any process can settle it, and what was answered."""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

from opsloop.rate_limit.context import Context
from opsloop.rate_limit.decision import Demand, Request
from opsloop.rate_limit.failure import LoneError
from opsloop.rate_limit.gcra import Rate
from opsloop.rate_limit.limit import Lever, Limit
from opsloop.rate_limit.policy import rest_ns
from opsloop.rate_limit.redis_script import Answer
from opsloop.rate_limit.rolling import Window

__all__ = ["Kept", "described", "limits_told", "places_told"]

REMEMBERED: Final = 1024
DATED: Final = 3
"""Parts of a key that names a period."""
HEADER: Final = struct.Struct("<BdI")
_encode = msgspec.json.Encoder().encode


class _Limit(msgspec.Struct, frozen=True, array_like=True):
    """A limit as a reservation remembers it, so that another process with another policy can settle it."""

    id: str
    lever: Lever
    amount: int
    unit: str
    per: str
    scope: tuple[str, ...]
    root: str
    lease_ns: int
    gain: int
    weight: int
    burst: int
    """0 where there is no bucket."""
    rolling: int = 0
    """How many periods a rolling quota spans; 0 where it does not roll."""
    slice_ns: int = 0

    @classmethod
    def of(cls, limit: Limit) -> _Limit:
        rate = limit.bucket or Rate(0, 0, 0)
        burst = limit.capacity if limit.bucket else 0
        return cls(
            id=limit.id,
            lever=limit.lever,
            amount=limit.amount,
            unit=limit.unit,
            per=limit.per,
            scope=limit.scope,
            root=limit.root,
            lease_ns=limit.lease_ns,
            gain=rate.gain,
            weight=rate.weight,
            burst=burst,
            rolling=limit.window.count if limit.window else 0,
            slice_ns=limit.window.slice_ns if limit.window else 0,
        )


@functools.lru_cache(maxsize=REMEMBERED)
def _limit(told: _Limit) -> Limit:
    """Return the limit that was told of: the same object for the same words, so that its layout is found again."""
    read = operator.attrgetter(*told.scope or ("tenant",))
    return Limit(
        id=told.id,
        lever=told.lever,
        amount=told.amount,
        unit=told.unit,
        per=told.per,
        scope=told.scope,
        when=(),
        root=told.root,
        read=cast("Callable[[Context], Any]", read),
        bucket=Rate(told.gain, told.weight, told.burst * told.weight) if told.burst else None,
        window=Window(told.rolling, told.slice_ns) if told.rolling else None,
        lease_ns=told.lease_ns,
        settles=True,
    )


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a limit counts a caller."""

    key: list[Any]
    ends_ns: int
    """When a quota's period ends; 0 for what has none."""


class _Request(msgspec.Struct, frozen=True, array_like=True):
    """A request as a reservation remembers it."""

    context: Context
    estimate: dict[str, int]
    costs: tuple[int, ...]
    ts_ns: int
    reservation: str
    remember: bool
    limits: tuple[_Limit, ...]
    places: tuple[_Place, ...]


class Kept(msgspec.Struct, frozen=True):
    """A reservation that was found in Redis."""

    request: Request
    answer: Answer

    @classmethod
    def read(cls, raw: bytes) -> Kept:
        """Read what the scripts keep: a header, the description as JSON, the answer as msgpack.

        Raises :class:`StoreError` for what another version of this package kept.
        """
        try:
            _, _, length = HEADER.unpack_from(raw)
            middle = HEADER.size + length
            told = msgspec.json.decode(raw[HEADER.size : middle], type=_Request)
            parts = zip(told.limits, told.places, told.costs, strict=True)
            demands = tuple(_demand(limit, place, cost, told.ts_ns) for limit, place, cost in parts)
            answer = msgspec.msgpack.decode(raw[middle:], type=Answer)
        except (msgspec.DecodeError, struct.error, ValueError) as cause:
            raise LoneError(
                f"a reservation is kept as another version of opsloop keeps them: {cause}",
                fix="end it with that version, or let it run out an hour after it was admitted",
            ) from cause
        request = Request(told.context, told.estimate, demands, told.ts_ns, told.reservation, told.remember)
        return cls(request, answer)


def described(request: Request, costs: Sequence[int], limits: msgspec.Raw, places: msgspec.Raw) -> bytes:
    """Describe a request, for whoever settles it; ``limits`` and ``places`` are what was told before."""
    about = (request.context, dict(request.estimate), costs, request.ts_ns, request.reservation, request.remember)
    return _encode((*about, limits, places))


def limits_told(limits: Sequence[Limit]) -> msgspec.Raw:
    """Return the part of a description that is the same for all requests on the same limits."""
    return msgspec.Raw(_encode([_Limit.of(limit) for limit in limits]))


def places_told(request: Request) -> msgspec.Raw:
    """Return the part that is the same for all requests of a caller on the same limits, until a period ends."""
    return msgspec.Raw(_encode([_Place(list(demand.key), _ends_ns(demand, request)) for demand in request.demands]))


def _ends_ns(demand: Demand, request: Request) -> int:
    return request.ts_ns + demand.resets_in_ns if len(demand.key) == DATED else 0


def _demand(told: _Limit, place: _Place, cost: int, ts_ns: int) -> Demand:
    limit = _limit(told)
    root, values, *rest = place.key
    key = (root, tuple(values) if isinstance(values, list) else values, *rest)
    return Demand(limit, key, cost, place.ends_ns - ts_ns if place.ends_ns else rest_ns(limit))
