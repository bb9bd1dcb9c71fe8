"""Cost: what the model calls of a window cost, and what that is per request."""

from __future__ import annotations

import msgspec

from opsloop.dashboard.window import Window

__all__ = ["Cost", "cost"]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a window in millionths of a US dollar."""

    microusd: int | None = None
    """``None`` when no cost was reported: an unpriced call is not free."""
    priced: int = 0
    """Events with a cost."""
    requests: int = 0
    """Served requests."""

    @property
    def microusd_per_request(self) -> float | None:
        """Cost over served requests; ``None`` without a cost or a request."""
        return self.microusd / self.requests if self.microusd is not None and self.requests else None


def cost(window: Window) -> Cost:
    """Add up the cost of a window, over model calls or, where there are none, over request lines.

    >>> from opsloop.event import Event
    >>> seen = [Event(ts_ns=1, event="request", cost_microusd=9), Event(ts_ns=1, event="llm", cost_microusd=9)]
    >>> cost(Window.of(seen, start_ns=0, end_ns=10)).microusd
    9
    """
    prices = [event.cost_microusd for event in window.billed if event.cost_microusd is not None]
    return Cost(microusd=sum(prices) if prices else None, priced=len(prices), requests=len(window.served))
