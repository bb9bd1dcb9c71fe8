"""Who asks what and when: a Poisson process whose rate follows the hours of the day and the days of the week.

Time is cut into minute slots. A slot's arrivals follow from (seed, slot) alone, and each arrival brings its own
:class:`Luck`: every chance that will be taken on its way is drawn before anything is decided, in a fixed order. So a
fault changes what becomes of a request and never which requests there are.

The rate at local hour h of a working day is ``peak · (0.35 + 0.65 · (0.5 - 0.5 cos(2π (h - 3) / 24)) ** 1.5)``: lowest
at 3, highest at 15; Saturday and Sunday have 0.75 of it. In a slot of rate λ the gaps are exponential with mean 1/λ.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from opsloop.clock import NANOSECONDS, seeded
from opsloop.errors import ConfigError
from opsloop.sim.dice import Dice
from opsloop.sim.faults import Fault
from opsloop.sim.knowledge import ARTICLES
from opsloop.sim.questions import FOLLOW_UPS, OFF_TOPIC, QUESTIONS, UNSAFE

__all__ = [
    "MODELS",
    "ROUTES",
    "SLOT_NS",
    "TENANTS",
    "Arrival",
    "Luck",
    "Model",
    "Talk",
    "arrivals",
    "load_at",
    "time_zone",
]

SLOT_NS: Final = 60 * NANOSECONDS
TENANTS: Final[Mapping[str, float]] = {
    "acme": 0.36,
    "globex": 0.21,
    "initech": 0.13,
    "umbrella": 0.10,
    "hooli": 0.08,
    "stark": 0.06,
    "wayne": 0.04,
    "wonka": 0.02,
}
"""Each tenant's share of the requests: a few large ones and a tail."""
ROUTES: Final[Mapping[str, float]] = {"support.answer": 0.82, "support.search": 0.10, "support.summary": 0.08}
USERS_PER_SHARE: Final = 300
FOLLOW_UP_SHARE: Final = 0.35
OFF_TOPIC_SHARE: Final = 0.015
UNSAFE_SHARE: Final = 0.003
TALK_SECONDS: Final = 600
"""A conversation that rested this long is over."""
TALKS_KEPT: Final = 6
_NOISES: Final = 9


class Model(msgspec.Struct, frozen=True):
    """One model: its share of the calls, its speed (medians) and its price in micro-USD per token."""

    name: str
    provider: str
    share: float
    first_token_us: int
    token_us: int
    input_price: float
    output_price: float


MODELS: Final[Mapping[str, Model]] = {
    model.name: model
    for model in (
        Model("gpt-4.1-mini", "openai", 0.42, 240_000, 6_400, 0.40, 1.60),
        Model("claude-haiku-4-5", "anthropic", 0.26, 270_000, 6_200, 1.00, 5.00),
        Model("gemini-2.5-flash", "gcp.gemini", 0.18, 220_000, 5_600, 0.30, 2.50),
        Model("llama-3.3-70b", "vllm", 0.14, 200_000, 7_600, 0.20, 0.20),
    )
}


class Luck(msgspec.Struct, frozen=True):
    """Every chance of one request, uniform on [0, 1), and its noise, standard normal."""

    crash: float
    retrieve: float
    refused: tuple[float, float, float]
    timeout: float
    invent: float
    malform: float
    length: float
    log: float
    noise: tuple[float, ...]


class Talk(msgspec.Struct, frozen=True):
    """A conversation that may be taken up again."""

    session_id: str
    user_id: str
    article_id: str
    ts_ns: int


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it comes in."""

    ts_ns: int
    key: str
    """Names it in the world: seed, slot and number; the seed of all its chances."""
    request_id: str
    trace_id: str
    root: int
    """The number from which its span ids are counted."""
    tenant: str
    user_id: str
    session_id: str
    route: str
    model: str
    question: str
    luck: Luck


def time_zone(name: str) -> tzinfo:
    """Return the zone of an IANA name; raises :class:`ConfigError` for one that this machine does not know."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as cause:
        raise ConfigError(f"unknown time zone {name!r}", fix="use an IANA name such as Europe/Berlin") from cause


def load_at(ts_ns: int, zone: tzinfo = UTC) -> float:
    """Return the rate at a moment as a share of the peak: lowest at 3 in the night, highest at 15, less on weekends.

    >>> from opsloop.clock import parse_time
    >>> load_at(parse_time("2026-01-05T15:00:00Z")), load_at(parse_time("2026-01-05T03:00:00Z"))
    (1.0, 0.35)
    """
    local = datetime.fromtimestamp(ts_ns / NANOSECONDS, tz=zone)
    hour = local.hour + local.minute / 60
    shape = 0.35 + 0.65 * math.pow(0.5 - 0.5 * math.cos(2 * math.pi * (hour - 3) / 24), 1.5)
    return shape if local.weekday() < 5 else 0.75 * shape


def arrivals(
    seed: int,
    slot: int,
    *,
    rate_per_minute: float,
    talks: dict[str, tuple[Talk, ...]],
    faults: Sequence[Fault] = (),
    zone: tzinfo = UTC,
) -> list[Arrival]:
    """Return the requests that come in during a minute slot, in time order.

    ``talks`` holds each tenant's open conversations and is brought up to date. A ``tenant_spike`` adds requests of its
    own and changes none of the others.
    """
    start_ns = slot * SLOT_NS
    rate = rate_per_minute * load_at(start_ns + SLOT_NS // 2, zone)
    found = [
        _arrival(f"{seed}:{slot}:{number}", ts_ns, "", talks)
        for number, ts_ns in enumerate(_times(f"{seed}:{slot}", rate, start_ns))
    ]
    for spike in faults:
        if spike.kind == "tenant_spike":
            key = f"{seed}:{slot}:{spike.target}:{spike.start_ns}"
            extra = rate * TENANTS[spike.target] * (spike.strength - 1)
            found += [
                _arrival(f"{key}:{number}", ts_ns, spike.target, {})
                for number, ts_ns in enumerate(_times(key, extra, start_ns))
                if spike.acts_at(ts_ns)
            ]
    found.sort(key=lambda arrival: arrival.ts_ns)
    return found


def _times(key: str, rate: float, start_ns: int) -> Iterator[int]:
    """Yield the arrival times of a Poisson process of ``rate`` per slot inside one slot."""
    dice = seeded(key)
    elapsed = 0.0
    while rate > 0:
        elapsed += dice.expovariate(rate) * SLOT_NS
        if elapsed >= SLOT_NS:
            return
        yield start_ns + int(elapsed)


def _arrival(key: str, ts_ns: int, tenant: str, talks: dict[str, tuple[Talk, ...]]) -> Arrival:
    """Draw one request; a ``tenant`` that is given is kept."""
    dice = seeded(key)
    request_id = f"req-{dice.getrandbits(64):016x}"
    trace_id = f"{dice.getrandbits(128) | 1:032x}"
    root = dice.getrandbits(64)
    drawn = _pick(dice, _TENANT_WHEEL)
    tenant = tenant or drawn
    talk, question = _conversation(dice, tenant, ts_ns, talks)
    return Arrival(
        ts_ns=ts_ns,
        key=key,
        request_id=request_id,
        trace_id=trace_id,
        root=root,
        tenant=tenant,
        user_id=talk.user_id,
        session_id=talk.session_id,
        route=_pick(dice, _ROUTE_WHEEL),
        model=_pick(dice, _MODEL_WHEEL),
        question=question,
        luck=_luck(dice),
    )


def _conversation(dice: Dice, tenant: str, ts_ns: int, talks: dict[str, tuple[Talk, ...]]) -> tuple[Talk, str]:
    """Take up an open conversation of the tenant with a follow-up, or begin one; note it in ``talks``."""
    goes_on, which, kind = dice.random(), dice.random(), dice.random()
    user = f"{tenant}-u{int(dice.random() ** 2 * TENANTS[tenant] * USERS_PER_SHARE):03d}"
    session_id = f"s-{dice.getrandbits(40):010x}"
    if kind < UNSAFE_SHARE + OFF_TOPIC_SHARE:
        pool = UNSAFE if kind < UNSAFE_SHARE else OFF_TOPIC
        return Talk(session_id, user, "", ts_ns), pool[int(which * len(pool))]
    recent = tuple(talk for talk in talks.get(tenant, ()) if ts_ns - talk.ts_ns < TALK_SECONDS * NANOSECONDS)
    if recent and goes_on < FOLLOW_UP_SHARE:
        taken = recent[int(which * len(recent))]
        talk = msgspec.structs.replace(taken, ts_ns=ts_ns)
        recent = tuple(other for other in recent if other is not taken)
        pool = FOLLOW_UPS[talk.article_id] + QUESTIONS[talk.article_id]
        question = pool[int(kind * 997) % len(pool)]
    else:
        talk = Talk(session_id, user, ARTICLES[int(which * len(ARTICLES))].id, ts_ns)
        pool = QUESTIONS[talk.article_id]
        question = pool[int(kind * 997) % len(pool)]
    talks[tenant] = (*recent, talk)[-TALKS_KEPT:]
    return talk, question


def _luck(dice: Dice) -> Luck:
    chance, gauss = dice.random, dice.gauss
    return Luck(
        crash=chance(),
        retrieve=chance(),
        refused=(chance(), chance(), chance()),
        timeout=chance(),
        invent=chance(),
        malform=chance(),
        length=chance(),
        log=chance(),
        noise=tuple(gauss(0.0, 1.0) for _ in range(_NOISES)),
    )


_Wheel = tuple[list[float], list[str]]


def _wheel(shares: Mapping[str, float]) -> _Wheel:
    return list(itertools.accumulate(shares.values())), list(shares)


_TENANT_WHEEL: Final = _wheel(TENANTS)
_ROUTE_WHEEL: Final = _wheel(ROUTES)
_MODEL_WHEEL: Final = _wheel({name: model.share for name, model in MODELS.items()})


def _pick(dice: Dice, wheel: _Wheel) -> str:
    edges, names = wheel
    return names[min(bisect.bisect_right(edges, dice.random() * edges[-1]), len(names) - 1)]
