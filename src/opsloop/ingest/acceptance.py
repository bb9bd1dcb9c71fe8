"""Which times a store takes: nothing older than it keeps, nothing from a future that no clock skew explains."""

from __future__ import annotations

from opsloop.clock import NANOSECONDS, utc
from opsloop.ingest.batch import Batch
from opsloop.settings import Settings

__all__ = ["accept", "accepted_range"]

FUTURE_SECONDS = 3600
DAY_NS = 86_400 * NANOSECONDS


def accept(batch: Batch, *, now_ns: int, settings: Settings) -> Batch:
    """Return the batch without the events whose time cannot be kept, each of them counted as rejected.

    An event more than an hour ahead is a wrong clock or a wrong unit; one older than its retention would be dropped
    at the next clean-up.

    >>> from opsloop.event import Event
    >>> batch = accept(Batch(events=[Event(ts_ns=5, event="log")]), now_ns=10**18, settings=Settings())
    >>> batch.reason()
    'an event of 1970-01-01T00:00:00.000Z is older than the 90 days that are kept'
    """
    oldest_ns, newest_ns = accepted_range(now_ns=now_ns, settings=settings)
    if all(oldest_ns <= event.ts_ns <= newest_ns for event in batch.events):
        return batch
    kept = Batch(rows=batch.rows, rejected=batch.rejected, reasons=list(batch.reasons))
    for event in batch.events:
        if event.ts_ns > newest_ns:
            kept.reject(f"an event of {_moment(event.ts_ns)} is more than an hour in the future: check clock and unit")
        elif event.ts_ns < now_ns - (days := settings.days_kept(event)) * DAY_NS:
            kept.reject(f"an event of {utc(event.ts_ns)} is older than the {days} days that are kept")
        else:
            kept.events.append(event)
    return kept


def accepted_range(*, now_ns: int, settings: Settings) -> tuple[int, int]:
    """Return the oldest and the newest time at which an event of any kind is accepted, both included."""
    return now_ns - settings.shortest_days * DAY_NS, now_ns + FUTURE_SECONDS * NANOSECONDS


def _moment(ts_ns: int) -> str:
    try:
        return utc(ts_ns)
    except (ValueError, OverflowError):
        return f"{ts_ns} ns"
