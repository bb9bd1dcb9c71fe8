"""All signals of one window, together: the value that measures read and that SQL has to reproduce."""

from __future__ import annotations

import msgspec

from opsloop.dashboard.cost import Cost, cost
from opsloop.dashboard.errors import Errors, errors
from opsloop.dashboard.latency import Latencies, latencies
from opsloop.dashboard.quality import Quality, quality
from opsloop.dashboard.saturation import Saturation, saturation
from opsloop.dashboard.traffic import Traffic, traffic
from opsloop.dashboard.window import Window

__all__ = ["Signals", "signals"]


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """Six signals of one window ``(start_ns, end_ns]``."""

    start_ns: int
    end_ns: int
    latency: Latencies
    traffic: Traffic
    errors: Errors
    saturation: Saturation
    quality: Quality
    cost: Cost


def signals(window: Window, *, slots: int | None = None) -> Signals:
    """Work out every signal of a window; ``slots`` is how many requests may run at once.

    >>> signals(Window.of([], start_ns=0, end_ns=10)).latency.served.p95 is None
    True
    """
    return Signals(
        start_ns=window.start_ns,
        end_ns=window.end_ns,
        latency=latencies(window),
        traffic=traffic(window),
        errors=errors(window),
        saturation=saturation(window, slots=slots),
        quality=quality(window),
        cost=cost(window),
    )
