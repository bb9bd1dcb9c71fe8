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

MARGIN_SECONDS = 900.0


def instants(
    start_ns: int,
    end_ns: int,
    busy: Iterable[tuple[int, int]],
    *,
    dense_seconds: float = 60.0,
    sparse_seconds: float = 1800.0,
) -> list[int]:
    """Return the instants to evaluate: every ``dense_seconds`` around the ``busy`` stretches, else ``sparse_seconds``.

    >>> minute = 60 * 10**9
    >>> [at // minute for at in instants(0, 120 * minute, [(50 * minute, 51 * minute)], dense_seconds=900)]
    [30, 45, 60, 75, 90, 120]
    """
    dense, sparse = round(dense_seconds * NANOSECONDS), round(sparse_seconds * NANOSECONDS)
    margin = round(MARGIN_SECONDS * NANOSECONDS)
    found = set(range(start_ns + sparse, end_ns + 1, sparse))
    for begin, end in busy:
        low, high = max(begin - margin, start_ns), min(end + 2 * margin, end_ns)
        first = low - (low - start_ns) % dense + dense
        found.update(range(first, high + 1, dense))
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
