"""Saturation: how full the fullest resource is, and which one that is.

Resource and its level
    ====================  ==========================================================================================
    a gauge's name        the *latest* ``value / limit`` of each service, model and series, and of these the largest
    ``limit <id>``        the 95th percentile of ``used_ratio`` over the admission decisions of the window
    ``slots``             the 95th percentile of the requests' ``in_flight``, over the slots that were handed in
    ====================  ==========================================================================================
Rule
    ``ratio = max(level)``. A gauge is a sampled level, so its latest value counts; limits and slots are seen once per
    request, and "19 requests in 20 found at most this much in use" holds still where a maximum would jump with one.
Two conditions
    A full cache alone is efficient, not sick, and a queue before a half-empty one waits for something else. A gauge
    that names in ``queue`` the gauges, parted by spaces, that count who waits is short while its level is above 0.9
    **and** the first of them that its service, model and series reported in the window is above 0; its level is 0
    otherwise. Without any of them nothing is known, and the gauge says nothing.
Limits
    A gauge without a limit says nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec

from opsloop.dashboard.window import Window, number
from opsloop.event import flatten
from opsloop.quantile import quantile

__all__ = ["FULL", "LARGEST", "LEVEL", "SLOTS", "Gauge", "Saturation", "Series", "fullest", "saturation", "short"]

LEVEL: Final = 0.95
"""The quantile of what admission decisions and requests saw in use."""
FULL: Final = 0.9
"""Above this a resource with a queue is what the queue waits for."""
LARGEST: Final = 1e9
"""A level outside [0, this] is no measurement and is left out."""

SLOTS: Final = "slots"
"""The resource that ``in_flight`` uses."""

_HEAD, _TAIL = "limits.", ".used_ratio"


Series: TypeAlias = tuple[str, str, str, str]
"""What tells one gauge from another: name, service, model and series."""


class Gauge(NamedTuple):
    """A gauge's latest level, what has to be waiting for it to matter, and how often it was seen."""

    level: float
    queue: str
    n: int


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
    gauges: dict[Series, Gauge] = {}
    values: dict[Series, float] = {}
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for event in window.of_kind("gauge", "limit", "request"):
        leaves = flatten(event.attributes)
        if event.event == "gauge":
            series = (leaves.get("name", ""), event.service, event.model, leaves.get("series", ""))
            value, limit = number(leaves.get("value")), number(leaves.get("limit"))
            if value is not None and 0 <= value <= LARGEST:
                values[series] = value
            if value is not None and limit and 0 <= value / limit <= LARGEST:
                seen = gauges[series].n if series in gauges else 0
                gauges[series] = Gauge(value / limit, leaves.get("queue", ""), seen + 1)
        elif event.event == "limit":
            for path, leaf in leaves.items():
                used = number(leaf)
                if used is not None and 0 <= used <= LARGEST and _is_used_ratio(path):
                    shares[f"limit {path[len(_HEAD) : -len(_TAIL)]}"].append(used)
        elif slots and (running := number(leaves.get("in_flight"))) is not None and 0 <= running <= LARGEST:
            shares[SLOTS].append(running)
    levels = list(short(gauges, values))
    for resource, observed in shares.items():
        level = quantile(sorted(observed), LEVEL)
        levels.append((resource, level / slots if slots and resource == SLOTS else level, len(observed)))
    return fullest(levels)


def short(gauges: Mapping[Series, Gauge], values: Mapping[Series, float]) -> Iterator[tuple[str, float, int]]:
    """Yield the (resource, level, observations) that gauges mean, given the latest value of every gauge.

    >>> cache = {("cache", "vllm", "", ""): Gauge(level=0.97, queue="by_reason waiting", n=4)}
    >>> for waiting in ({}, {("waiting", "vllm", "", ""): 0.0}, {("waiting", "vllm", "", ""): 3.0}):
    ...     print(list(short(cache, waiting)))
    []
    [('cache', 0.0, 4)]
    [('cache', 0.97, 4)]
    """
    for (name, service, model, series), gauge in gauges.items():
        if not gauge.queue:
            yield name, gauge.level, gauge.n
            continue
        queues = ((queue, service, model, series) for queue in gauge.queue.split(" "))
        waiting = next((values[queue] for queue in queues if queue in values), None)
        if waiting is not None:
            yield name, gauge.level if waiting > 0 and gauge.level > FULL else 0.0, gauge.n


def fullest(levels: Iterable[tuple[str, float, int]]) -> Saturation:
    """Return the saturation that (resource, level, observations) mean; of a resource's levels the largest counts.

    >>> fullest([("a", 0.5, 1), ("b", 0.9, 1), ("a", 0.7, 1)]).by_resource
    {'a': 0.7, 'b': 0.9}
    """
    by_resource: dict[str, float] = {}
    n = 0
    for resource, level, observations in sorted(levels):
        by_resource[resource] = max(level, by_resource.get(resource, level))
        n += observations
    if not by_resource:
        return Saturation()
    resource = min(by_resource, key=lambda name: (-by_resource[name], name))
    return Saturation(ratio=by_resource[resource], resource=resource, n=n, by_resource=by_resource)


def _is_used_ratio(path: str) -> bool:
    return path.startswith(_HEAD) and path.endswith(_TAIL) and len(path) > len(_HEAD) + len(_TAIL)
