"""Errors: what failed, at which stage, of which type, with three stories kept apart.

* A request that *failed* (``error``), among them those that ended with a 5xx.
* A request that our own limiter *rejected*: not the service's failure, and no part of the error ratio's total either,
  or else shedding load would dilute the failures among the requests that were let in.
* A model call that the provider refused with a 429 (``upstream_429``): a quota to raise there, not a limit of ours.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from opsloop.dashboard.window import Window, stage
from opsloop.event import flatten

__all__ = ["Errors", "errors", "ratio"]


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """The failures of a window, as counts: ratios are made from them when they are read."""

    requests: int = 0
    rejected: int = 0
    """Requests that our own limiter turned away."""
    failed: int = 0
    """Served requests that failed."""
    server_errors: int = 0
    """Served requests that ended with a 5xx."""
    calls: int = 0
    """Model calls."""
    failed_calls: int = 0
    upstream_429: int = 0
    """Model calls that the provider refused with a 429."""
    truncated: int = 0
    """Model calls that ended at the length limit."""
    finished: int = 0
    """Model calls whose reason for ending is known."""
    retrievals: int = 0
    failed_retrievals: int = 0
    listed: int = 0
    """Retrievals that did not fail and say what they found."""
    empty: int = 0
    """Of these, the ones that found nothing."""
    tools: int = 0
    failed_tools: int = 0
    by_stage: dict[str, int] = {}
    """Failed events of each stage."""
    by_type: dict[str, int] = {}
    """Failed requests of each ``error_type``; an unnamed one under the empty text."""

    @property
    def served(self) -> int:
        """Requests that were let in."""
        return self.requests - self.rejected


def errors(window: Window) -> Errors:
    """Count the failures of a window.

    >>> from opsloop.event import Event
    >>> seen = [Event(ts_ns=1, event="request", error=True, error_type="timeout"), Event(ts_ns=2, event="request")]
    >>> found = errors(Window.of(seen, start_ns=0, end_ns=10))
    >>> found.failed, found.served, found.by_type
    (1, 2, {'timeout': 1})
    """
    failed = [event for event in window.served if event.error]
    retrievals, tools = window.of_stage("retrieve"), window.of_stage("tool")
    documents = [flatten(event.attributes).get("documents") for event in retrievals if not event.error]
    finishes = [flatten(event.attributes).get("finish_reason") for event in window.calls]
    return Errors(
        requests=len(window.requests),
        rejected=len(window.requests) - len(window.served),
        failed=len(failed),
        server_errors=sum((event.status_code or 0) >= 500 for event in window.served),
        calls=len(window.calls),
        failed_calls=sum(event.error for event in window.calls),
        upstream_429=sum(event.error_type == "upstream_429" for event in window.calls),
        truncated=finishes.count("length"),
        finished=sum(reason is not None for reason in finishes),
        retrievals=len(retrievals),
        failed_retrievals=sum(event.error for event in retrievals),
        listed=sum(found is not None for found in documents),
        empty=documents.count("[]"),
        tools=len(tools),
        failed_tools=sum(event.error for event in tools),
        by_stage=dict(Counter(stage(event) for event in window.events if event.error and stage(event))),
        by_type=dict(Counter(event.error_type for event in failed)),
    )


def ratio(part: int, whole: int) -> float | None:
    """Return ``part / whole``, or ``None`` of nothing: a window without traffic has no error rate.

    >>> ratio(1, 4), ratio(0, 0)
    (0.25, None)
    """
    return part / whole if whole else None
