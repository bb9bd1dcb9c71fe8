"""``/metrics``: the server's own counters and the service's signals, so that both can be watched like anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from opsloop.errors import StoreError
from opsloop.integrations.exposition import Family, Sample, render
from opsloop.store.damage import parts_set_aside

if TYPE_CHECKING:
    from opsloop.server.runtime import Runtime

__all__ = ["exposition"]


def exposition(runtime: Runtime, *, openmetrics: bool = False) -> str:
    """Return everything that a scrape shows; when the store does not answer, the gauges read from it are left out."""
    try:
        gauges = runtime.signal_gauges.families()
        damaged = len(parts_set_aside(runtime.database))
        gauges = [*gauges, _family("opsloop_store_damaged_parts", "gauge", "Parts that cannot be read.", damaged)]
    except StoreError:
        gauges = []
    up = _family("opsloop_store_up", "gauge", "Whether the store answered.", int(bool(gauges)))
    families = [*_own(runtime), up, *runtime.signal_counters.families(), *gauges]
    return render(families, openmetrics=openmetrics)


def _family(name: str, kind: Literal["counter", "gauge"], text: str, value: float) -> Family:
    return Family(name, kind, text, (Sample(value),))


def _own(runtime: Runtime) -> list[Family]:
    """Return the counters and gauges of the server itself."""
    commits, workers, counters = runtime.commits, runtime.workers, runtime.counters
    failures = workers.failures if workers else {}
    return [
        _family("opsloop_events_accepted", "counter", "Events committed for senders.", counters["events_accepted"]),
        _family("opsloop_events_rejected", "counter", "Records that can never be stored.", counters["events_rejected"]),
        _family("opsloop_bodies_refused", "counter", "Bodies refused whole.", counters["bodies_refused"]),
        _family("opsloop_commits", "counter", "Group commits.", commits.commits),
        _family("opsloop_commits_failed", "counter", "Group commits that failed.", commits.failed_commits),
        _family("opsloop_commit_waiting_rows", "gauge", "Rows that wait for their commit.", commits.waiting_rows),
        _family("opsloop_evaluations", "counter", "Turns of the evaluation.", workers.turns if workers else 0),
        _family("opsloop_live_tabs", "gauge", "Open live streams.", runtime.live.tabs),
        Family(
            "opsloop_worker_failures",
            "counter",
            "Failed turns by room.",
            tuple(Sample(n, {"room": room}) for room, n in sorted(failures.items())),
        ),
    ]
