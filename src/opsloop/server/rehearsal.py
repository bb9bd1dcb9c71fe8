"""Rehearsal: the loop's turns over a stretch of history, as if the server had been running then.

Every worker takes its time from the clock that it is handed, so yesterday can be judged today: the same breaches,
pages and incidents come out as would have. Instants are dense where something happened and sparse where nothing did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from opsloop.clock import NANOSECONDS, ManualClock
from opsloop.server.workers import Workers
from opsloop.settings import Settings
from opsloop.store import ClickHouseStream

__all__ = ["instants", "rehearse"]

BEFORE_SECONDS = 300.0
AFTER_SECONDS = 1200.0
"""A busy stretch is watched from a little before it to well after it: long enough for an alert to be resolved."""
MOST_PER_STRETCH = 40


def instants(
    start_ns: int,
    end_ns: int,
    busy: Iterable[tuple[int, int]],
    *,
    dense_seconds: float = 60.0,
    sparse_seconds: float = 3600.0,
) -> list[int]:
    """Return the instants to evaluate: every ``dense_seconds`` around the ``busy`` stretches, else ``sparse_seconds``.

    A stretch of many hours is looked at some forty times, however dense that is.

    >>> minute = 60 * 10**9
    >>> [at // minute for at in instants(0, 120 * minute, [(50 * minute, 51 * minute)], dense_seconds=600)]
    [50, 60, 70, 120]
    """
    sparse = round(sparse_seconds * NANOSECONDS)
    found = set(range(start_ns + sparse, end_ns + 1, sparse))
    for begin, end in busy:
        low = max(begin - round(BEFORE_SECONDS * NANOSECONDS), start_ns)
        high = min(end + round(AFTER_SECONDS * NANOSECONDS), end_ns)
        dense = max(round(dense_seconds * NANOSECONDS), (high - low) // MOST_PER_STRETCH)
        found.update(range(low - (low - start_ns) % dense + dense, high + 1, dense))
    return sorted(found)


def rehearse(
    database: ClickHouseStream,
    settings: Settings,
    moments: Sequence[int],
    *,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Take one turn of the loop at each moment, in order; return how many turns were taken."""
    clock = ManualClock(moments[0] if moments else 0)
    workers = Workers(database, settings, clock)
    for number, moment in enumerate(moments):
        if stopped():
            return number
        clock.set_time(moment)
        workers.tick()
        progress(number + 1)
    return len(moments)
