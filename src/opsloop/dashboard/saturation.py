"""Saturation: how full the fullest resource is, and which one that is.

Resource and its level
    ====================  ==========================================================================================
    a gauge's name        the *latest* ``value / limit`` of each service and model, and of these the largest
    ``limit <id>``        the 95th percentile of ``used_ratio`` over the admission decisions of the window
    ``slots``             the 95th percentile of the requests' ``in_flight``, over the slots that were handed in
    ====================  ==========================================================================================
Rule
    ``ratio = max(level)``. A gauge is a sampled level, so its latest value counts; limits and slots are seen once per
    request, and "19 requests in 20 found at most this much in use" holds still where a maximum would jump with one.
Limits
    A gauge without a limit says nothing here: a full cache alone is efficient, not sick.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import msgspec

from opsloop.dashboard.latency import quantile
from opsloop.dashboard.window import Window, number
from opsloop.event import flatten

__all__ = ["LARGEST", "LEVEL", "SLOTS", "Saturation", "fullest", "saturation"]

LEVEL: Final = 0.95
"""The quantile of what admission decisions and requests saw in use."""
LARGEST: Final = 1e9
"""A level outside [0, this] is no measurement and is left out."""

SLOTS: Final = "slots"
"""The resource that ``in_flight`` uses."""

_HEAD, _TAIL = "limits.", ".used_ratio"


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """The levels of a window's resources."""

    ratio: float | None = None
    """The level of the fullest resource, used over limit; ``None`` when none reported."""
    resource: str = ""
    """Which one that is; of equals the first in the alphabet."""
    n: int = 0
    """Observations that the levels rest on."""
    by_resource: dict[str, float] = {}


def saturation(window: Window, *, slots: int | None = None) -> Saturation:
    """Work out how full each resource of a window is; ``slots`` is how many requests may run at once, if that is known.

    >>> from opsloop.event import Event
    >>> seen = [Event(ts_ns=1, event="gauge", attributes={"name": "queue", "value": 45, "limit": 50})]
    >>> found = saturation(Window.of(seen, start_ns=0, end_ns=10))
    >>> found.resource, found.ratio
    ('queue', 0.9)
    """
    gauges: dict[tuple[str, str, str], float] = {}
    shares: defaultdict[str, list[float]] = defaultdict(list)
    n = 0
    for event in window.of_kind("gauge", "limit", "request"):
        leaves = flatten(event.attributes)
        if event.event == "gauge":
            value, limit = number(leaves.get("value")), number(leaves.get("limit"))
            if value is not None and limit and 0 <= value / limit <= LARGEST:
                gauges[leaves.get("name", ""), event.service, event.model] = value / limit
                n += 1
        elif event.event == "limit":
            for path, leaf in leaves.items():
                used = number(leaf)
                if used is not None and 0 <= used <= LARGEST and _is_used_ratio(path):
                    shares[f"limit {path[len(_HEAD) : -len(_TAIL)]}"].append(used)
        elif slots and (running := number(leaves.get("in_flight"))) is not None and 0 <= running <= LARGEST:
            shares[SLOTS].append(running)
    levels = [(name, level) for (name, _, _), level in gauges.items()]
    for resource, seen in shares.items():
        level = quantile(sorted(seen), LEVEL)
        levels.append((resource, level / slots if slots and resource == SLOTS else level))
    return fullest(levels, n=n + sum(map(len, shares.values())))


def fullest(levels: list[tuple[str, float]], *, n: int) -> Saturation:
    """Return the saturation that (resource, level) pairs mean; a resource that comes twice has its larger level.

    >>> fullest([("a", 0.5), ("b", 0.9), ("a", 0.7)], n=3).by_resource
    {'a': 0.7, 'b': 0.9}
    """
    by_resource: dict[str, float] = {}
    for resource, level in sorted(levels):
        by_resource[resource] = max(level, by_resource.get(resource, level))
    if not by_resource:
        return Saturation()
    resource = min(by_resource, key=lambda name: (-by_resource[name], name))
    return Saturation(ratio=by_resource[resource], resource=resource, n=n, by_resource=by_resource)


def _is_used_ratio(path: str) -> bool:
    return path.startswith(_HEAD) and path.endswith(_TAIL) and len(path) > len(_HEAD) + len(_TAIL)
