"""How the limits were used in a window, from the ``limit`` events in it: the definition, over events."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from opsloop.event import Event

__all__ = ["Interval", "LimitUsage", "Refusal", "TenantCount", "Usage", "bounds", "refusal_of", "usage"]

TOP_TENANTS: Final = 5
RECENT: Final = 20


class TenantCount(msgspec.Struct, frozen=True):
    """One tenant's rejections."""

    tenant: str
    rejected: int


class LimitUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One limit in the window. A shadow limit's rejections are those that it would have made."""

    limit: str
    decisions: int
    rejected: int
    used_ratio: float | None
    """As the latest decision or settlement left it, for whomever that was about; ``None`` when there was none."""
    used_ratio_max: float | None
    top_rejected: tuple[TenantCount, ...]


class Interval(msgspec.Struct, frozen=True):
    """Decisions in (start, end]."""

    start_ns: int
    end_ns: int
    allowed: int
    rejected: int


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One rejected request."""

    ts_ns: int
    request_id: str
    tenant: str
    route: str
    model: str
    violated: tuple[str, ...]
    retry_after_seconds: float | None
    reason: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """All limits in the window."""

    decisions: int
    rejected: int
    limits: tuple[LimitUsage, ...]
    series: tuple[Interval, ...]
    recent: tuple[Refusal, ...]
    """The latest rejections, latest first."""


def usage(events: Iterable[Event], *, start_ns: int, end_ns: int, intervals: int = 60) -> Usage:
    """Count what ``limit`` events say in ``(start_ns, end_ns]``, in ``intervals`` equal parts of it.

    >>> refused = {"phase": "admit", "allowed": False, "violated": ["rpm"], "limits": {"rpm": {"used_ratio": 1.0}}}
    >>> event = Event(ts_ns=5, event="limit", tenant="acme", attributes=refused)
    >>> usage([event], start_ns=0, end_ns=10, intervals=2).limits[0].top_rejected
    (TenantCount(tenant='acme', rejected=1),)
    """
    inside = [event for event in events if event.event == "limit" and start_ns < event.ts_ns <= end_ns]
    inside.sort(key=lambda event: event.ts_ns)
    admits = [event for event in inside if event.attributes.get("phase") != "settle"]
    refused = [event for event in admits if event.attributes.get("allowed") is not True]
    return Usage(
        decisions=len(admits),
        rejected=len(refused),
        limits=_by_limit(inside),
        series=_series(admits, start_ns, end_ns, intervals),
        recent=tuple(refusal_of(event) for event in reversed(refused[-RECENT:])),
    )


def bounds(start_ns: int, end_ns: int, intervals: int) -> tuple[tuple[int, int], ...]:
    """Return (start, end] of each of at most ``intervals`` equal parts of a window.

    >>> bounds(0, 10, 3)
    ((0, 4), (4, 8), (8, 10))
    """
    width = -(-(end_ns - start_ns) // intervals)
    return tuple((start, min(end_ns, start + width)) for start in range(start_ns, end_ns, width))


def _by_limit(events: list[Event]) -> tuple[LimitUsage, ...]:
    decisions: Counter[str] = Counter()
    rejected: dict[str, Counter[str]] = defaultdict(Counter)
    ratios: dict[str, list[float]] = defaultdict(list)
    for event in events:
        for part in _parts(event):
            states = part.get("limits")
            known = states if isinstance(states, dict) else {}
            for name, state in known.items():
                ratio = state.get("used_ratio") if isinstance(state, dict) else None
                if isinstance(ratio, int | float) and not isinstance(ratio, bool):
                    ratios[name].append(float(ratio))
            if event.attributes.get("phase") != "settle":
                decisions.update(known.keys())
                for name in _violated(part):
                    rejected[name][event.tenant] += 1
    return tuple(
        LimitUsage(
            limit=name,
            decisions=decisions[name],
            rejected=rejected[name].total(),
            used_ratio=ratios[name][-1] if ratios[name] else None,
            used_ratio_max=max(ratios[name], default=None),
            top_rejected=tuple(
                TenantCount(tenant, count)
                for tenant, count in sorted(rejected[name].items(), key=lambda item: (-item[1], item[0]))[:TOP_TENANTS]
            ),
        )
        for name in sorted({*decisions, *rejected, *ratios})
    )


def _series(events: list[Event], start_ns: int, end_ns: int, intervals: int) -> tuple[Interval, ...]:
    edges = bounds(start_ns, end_ns, intervals)
    width = -(-(end_ns - start_ns) // intervals)
    counts: Counter[tuple[int, bool]] = Counter(
        ((event.ts_ns - start_ns - 1) // width, event.attributes.get("allowed") is True) for event in events
    )
    return tuple(Interval(*edge, counts[number, True], counts[number, False]) for number, edge in enumerate(edges))


def refusal_of(event: Event) -> Refusal:
    """Return what a rejecting ``limit`` event tells."""
    attributes = event.attributes
    return Refusal(
        ts_ns=event.ts_ns,
        request_id=event.request_id,
        tenant=event.tenant,
        route=event.route,
        model=event.model,
        violated=_violated(attributes),
        retry_after_seconds=_number(attributes.get("retry_after_seconds")),
        reason=str(attributes.get("reason") or event.message),
    )


def _parts(event: Event) -> tuple[Mapping[str, Any], ...]:
    """Return the attributes of a decision, and what the shadow limits said."""
    shadow = event.attributes.get("shadow")
    return (event.attributes, shadow) if isinstance(shadow, dict) else (event.attributes,)


def _violated(part: Mapping[str, Any]) -> tuple[str, ...]:
    names = part.get("violated")
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
