"""What a client is told over HTTP, and what an upstream tells us: three dialects, written and read.

* **IETF** (draft-ietf-httpapi-ratelimit-headers-10): ``RateLimit-Policy`` and ``RateLimit``, structured-field lists
  (RFC 9651) with one item per limit.
* **OpenAI**: ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, resets such as ``6m0s``.
* **Anthropic**: ``anthropic-ratelimit-{requests,tokens,…}-{limit,remaining,reset}``, resets as RFC 3339 times.

The last two have room for one limit per unit: the tightest is told. Every refusal that waiting helps carries
``Retry-After`` in whole seconds, rounded up, so that obeying it is never too early.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS, parse_time, utc
from opsloop.errors import StoreError
from opsloop.event import Event
from opsloop.rate_limit.decision import Decision
from opsloop.rate_limit.limit import PERIOD_SECONDS, Limit, LimitState

__all__ = [
    "Dialect",
    "UpstreamLimit",
    "limit_headers",
    "parse_retry_after",
    "parse_upstream",
    "problem",
    "unavailable",
    "upstream_events",
]

Dialect = Literal["ietf", "openai", "anthropic"]
QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY: Final = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
CALENDAR_SECONDS: Final = {**PERIOD_SECONDS, "month": 2_592_000}
OPENAI_UNITS: Final = {"requests": "requests", "tokens": "tokens"}
ANTHROPIC_UNITS: Final = {**OPENAI_UNITS, "input_tokens": "input-tokens", "output_tokens": "output-tokens"}
_GO_DURATION: Final = re.compile(
    r"(?:(?P<h>[0-9.]+)h)?(?:(?P<m>[0-9.]+)m(?!s))?(?:(?P<s>[0-9.]+)s)?(?:(?P<ms>[0-9.]+)ms)?"
)
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_VENDOR: Final = re.compile(
    r"x-ratelimit-(?P<part>limit|remaining|reset)-(?P<unit>requests|tokens)"
    r"|anthropic-ratelimit-(?P<unit2>requests|tokens|input-tokens|output-tokens)-(?P<part2>limit|remaining|reset)"
)
_ITEM: Final = re.compile(r'\s*"(?P<name>(?:[^"\\]|\\.)*)"(?P<parameters>(?:;[^,;]*)*)\s*(?:,|$)')
Told = tuple[Limit, LimitState]


class UpstreamLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream says about one of its limits; ``None`` is what it did not say."""

    name: str
    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None


def limit_headers(
    decision: Decision, *, dialects: Iterable[Dialect] = ("ietf",), now_ns: int | None = None
) -> list[tuple[str, str]]:
    """Return the response headers that tell a decision, in the dialects asked for; ``Retry-After`` always.

    ``now_ns`` is the wall-clock time that Anthropic's reset times count from, the decision's own unless given.
    """
    told = [(level.limit, level.state()) for level in decision.levels]
    headers: list[tuple[str, str]] = []
    for dialect in dialects:
        if dialect == "ietf":
            headers += _ietf(told, decision)
        elif dialect == "openai":
            headers += _openai(told)
        else:
            headers += _anthropic(told, decision.request.ts_ns if now_ns is None else now_ns)
    if not decision.allowed and decision.retry_after_seconds is not None:
        headers.append(("retry-after", str(max(1, math.ceil(decision.retry_after_seconds)))))
    return headers


def problem(decision: Decision) -> dict[str, Any]:
    """Return the problem details (RFC 9457) of a refusal, with the names of the violated limits.

    >>> from opsloop.rate_limit import Context, Limiter, policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> policy = policy_from_settings([LimitSettings(id="tpm", lever="rate", amount=10, unit="tokens")])
    >>> problem(Limiter(policy).admit(Context(tenant="acme"), {"tokens": 11}))["status"]
    413
    """
    title, kind = {
        413: ("The request is larger than a limit allows", "about:blank"),
        503: ("The service is at its capacity", REDUCED_CAPACITY),
    }.get(decision.status_code, ("A limit is exceeded", QUOTA_EXCEEDED))
    if None in decision.values:
        title = "Limits cannot be checked"
    return {
        "type": kind,
        "title": title,
        "status": decision.status_code,
        "detail": decision.reason,
        "violated-policies": [violation.limit for violation in decision.violated],
    }


def unavailable(error: StoreError) -> dict[str, Any]:
    """Return the problem details of a 503 because the limits cannot be looked up."""
    return {
        "type": REDUCED_CAPACITY,
        "title": "Limits cannot be checked",
        "status": 503,
        "detail": str(error),
        "violated-policies": [],
    }


def parse_upstream(headers: Mapping[str, str], *, now_ns: int) -> tuple[UpstreamLimit, ...]:
    """Read the limits that a response's headers tell, in any of the three dialects; what cannot be read is left out.

    >>> parse_upstream({"X-RateLimit-Limit-Tokens": "9000", "x-ratelimit-reset-tokens": "6m0s"}, now_ns=0)
    (UpstreamLimit(name='tokens', limit=9000, remaining=None, reset_seconds=360.0),)
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in headers.items():
        lowered = name.lower()
        match = _VENDOR.fullmatch(lowered)
        if match:
            unit, part = match["unit"] or match["unit2"], match["part"] or match["part2"]
            read = _reset(value, now_ns) if part == "reset" else _whole(value)
            found.setdefault(unit, {})["reset_seconds" if part == "reset" else part] = read
        elif lowered in {"ratelimit", "ratelimit-policy"}:
            for item, parameters in _items(value):
                numbers = {key: _whole(text) for key, text in parameters.items()}
                names = {"r": "remaining", "t": "reset_seconds"} if lowered == "ratelimit" else {"q": "limit"}
                found.setdefault(item, {}).update({names[key]: numbers[key] for key in names if key in numbers})
    limits = (UpstreamLimit(name=name, **parts) for name, parts in sorted(found.items()))
    return tuple(limit for limit in limits if (limit.limit, limit.remaining, limit.reset_seconds) != (None,) * 3)


def parse_retry_after(value: str, *, now_ns: int) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, from a number or an HTTP date; ``None`` if it is neither.

    >>> parse_retry_after("120", now_ns=0), parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now_ns=0)
    (120.0, 60.0)
    """
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_ns / NANOSECONDS)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def upstream_events(limits: Iterable[UpstreamLimit], *, provider: str, now_ns: int, model: str = "") -> list[Event]:
    """Return a ``gauge`` event for each upstream limit whose use is known: how much of it is used, and of how much.

    >>> upstream_events([UpstreamLimit(name="tokens", limit=100, remaining=25)], provider="openai", now_ns=1)[
    ...     0
    ... ].attributes
    {'name': 'upstream.tokens', 'value': 75, 'limit': 100, 'unit': 'tokens'}
    """
    return [
        Event(
            ts_ns=now_ns,
            event="gauge",
            provider=provider,
            model=model,
            attributes={
                "name": f"upstream.{limit.name}",
                "value": max(0, limit.limit - limit.remaining),
                "limit": limit.limit,
                "unit": limit.name.replace("-", "_"),
            },
        )
        for limit in limits
        if limit.limit is not None and limit.remaining is not None
    ]


def _ietf(told: list[Told], decision: Decision) -> list[tuple[str, str]]:
    """Return policy and state of every limit; ``t`` of a violated one is its wait, so Retry-After is never earlier."""
    waits = {violation.limit: violation.retry_after_ns for violation in decision.violated}
    policies, states = [], []
    for limit, state in told:
        unit = "concurrent-requests" if limit.lever == "concurrency" else limit.unit.replace("_", "-")
        periods = 1 if limit.window is None else limit.window.count
        window = f";w={CALENDAR_SECONDS[limit.per] * periods}" if limit.per else ""
        named = f';qu="{unit}"' if unit in {"requests", "concurrent-requests"} else f';qu="opsloop-{unit}"'
        policies.append(f'"{limit.id}";q={limit.amount}{window}{named}')
        wait_ns = waits.get(limit.id)
        seconds = state.reset_seconds if wait_ns is None else wait_ns / NANOSECONDS
        states.append(f'"{limit.id}";r={state.remaining};t={math.ceil(seconds)}')
    return [("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(states))] if told else []


def _tightest(told: list[Told], units: Mapping[str, str]) -> list[tuple[str, Limit, LimitState]]:
    """Return for each unit the limit with the smallest share left."""
    best: dict[str, Told] = {}
    for limit, state in told:
        if limit.lever != "concurrency" and limit.unit in units:
            known = best.get(limit.unit)
            if known is None or state.used_ratio > known[1].used_ratio:
                best[limit.unit] = (limit, state)
    return [(units[unit], *best[unit]) for unit in units if unit in best]


def _openai(told: list[Told]) -> list[tuple[str, str]]:
    headers = []
    for unit, limit, state in _tightest(told, OPENAI_UNITS):
        headers.append((f"x-ratelimit-limit-{unit}", str(limit.amount)))
        headers.append((f"x-ratelimit-remaining-{unit}", str(state.remaining)))
        headers.append((f"x-ratelimit-reset-{unit}", _go_duration(state.reset_seconds)))
    return headers


def _anthropic(told: list[Told], now_ns: int) -> list[tuple[str, str]]:
    headers = []
    for unit, limit, state in _tightest(told, ANTHROPIC_UNITS):
        reset = math.ceil(now_ns / NANOSECONDS + state.reset_seconds)
        headers.append((f"anthropic-ratelimit-{unit}-limit", str(limit.amount)))
        headers.append((f"anthropic-ratelimit-{unit}-remaining", str(state.remaining)))
        headers.append((f"anthropic-ratelimit-{unit}-reset", utc(reset * NANOSECONDS).replace(".000Z", "Z")))
    return headers


def _go_duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: 360 is ``6m0s``, 0.012 is ``12ms``."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _reset(value: str, now_ns: int) -> float | None:
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    match = _GO_DURATION.fullmatch(text)
    if match and text:
        return _sum_duration(match)
    try:
        return max(0.0, (parse_time(text) - now_ns) / NANOSECONDS)
    except ValueError:
        return None


def _sum_duration(match: re.Match[str]) -> float | None:
    factors = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    try:
        return sum(float(match[unit]) * factor for unit, factor in factors.items() if match[unit])
    except ValueError:
        return None


def _whole(value: str) -> int | None:
    text = value.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _items(value: str) -> list[tuple[str, dict[str, str]]]:
    """Read a structured-field list of strings with parameters; return nothing when any of it is malformed."""
    found, position = [], 0
    while position < len(value):
        match = _ITEM.match(value, position)
        if match is None:
            return []
        pairs = (part.partition("=") for part in match["parameters"].split(";") if part)
        found.append((re.sub(r"\\(.)", r"\1", match["name"]), {key.strip(): text.strip() for key, _, text in pairs}))
        position = match.end()
    return found
