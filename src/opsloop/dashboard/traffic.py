"""Traffic: requests and tokens per second. A drop is a signal too.

Whether 0 requests is a fact or a silence depends on whether anything was received at all: a rate rests on *every* event
that the application sent in the window, and without any it is unknown, not zero.
"""

from __future__ import annotations

import msgspec

from opsloop.dashboard.window import Window

__all__ = ["Traffic", "traffic"]


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived in a window."""

    seconds: float
    """How long the window is."""
    events: int = 0
    """Events that the application sent, of any kind: the proof that the stream is alive."""
    requests: int = 0
    """Requests, the rejected ones too."""
    metered: int = 0
    """Events with a token count that was added up: model calls, or request lines where there are no calls."""
    input_tokens: int | None = None
    """Tokens read; ``None`` when none were reported."""
    output_tokens: int | None = None
    """Tokens written; ``None`` when none were reported."""

    @property
    def requests_per_second(self) -> float | None:
        """Requests per second; ``None`` when nothing at all was received."""
        return self.requests / self.seconds if self.events else None

    @property
    def tokens(self) -> int | None:
        """Tokens read and written together."""
        return (self.input_tokens or 0) + (self.output_tokens or 0) if self.metered else None

    def per_second(self, amount: int | None) -> float | None:
        """Return ``amount`` per second; unknown stays unknown."""
        return None if amount is None else amount / self.seconds


def traffic(window: Window) -> Traffic:
    """Work out the traffic of a window.

    >>> from opsloop.event import Event
    >>> seen = [Event(ts_ns=1, event="request"), Event(ts_ns=2, event="llm", input_tokens=30, output_tokens=10)]
    >>> found = traffic(Window.of(seen, start_ns=0, end_ns=10_000_000_000))
    >>> found.requests_per_second, found.per_second(found.tokens)
    (0.1, 4.0)
    """
    read = [event.input_tokens for event in window.billed if event.input_tokens is not None]
    written = [event.output_tokens for event in window.billed if event.output_tokens is not None]
    return Traffic(
        seconds=window.seconds,
        events=window.received,
        requests=len(window.requests),
        metered=sum(not event.input_tokens is event.output_tokens is None for event in window.billed),
        input_tokens=sum(read) if read else None,
        output_tokens=sum(written) if written else None,
    )
