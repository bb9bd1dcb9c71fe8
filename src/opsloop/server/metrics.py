"""The server's own counters in the Prometheus text format, so that it can be watched like anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsloop.server.runtime import Runtime

__all__ = ["exposition"]


def exposition(runtime: Runtime) -> str:
    """Return the counters and gauges of a running server."""
    commits = runtime.commits
    turns = runtime.workers.turns if runtime.workers else 0
    failures = runtime.workers.failures if runtime.workers else {}
    samples = [
        (
            "opsloop_events_accepted_total",
            "counter",
            "Events committed for senders.",
            runtime.counters["events_accepted"],
        ),
        (
            "opsloop_events_rejected_total",
            "counter",
            "Records that can never be stored.",
            runtime.counters["events_rejected"],
        ),
        ("opsloop_bodies_refused_total", "counter", "Bodies refused whole.", runtime.counters["bodies_refused"]),
        ("opsloop_commits_total", "counter", "Group commits.", commits.commits),
        ("opsloop_commits_failed_total", "counter", "Group commits that failed.", commits.failed_commits),
        ("opsloop_commit_waiting_rows", "gauge", "Rows that wait for their commit.", commits.waiting_rows),
        ("opsloop_evaluations_total", "counter", "Turns of the background evaluation.", turns),
        ("opsloop_live_tabs", "gauge", "Open live streams.", runtime.live.tabs),
    ]
    lines = []
    for name, kind, text, value in samples:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
    lines += [
        "# HELP opsloop_worker_failures_total Failed turns by room.",
        "# TYPE opsloop_worker_failures_total counter",
    ]
    lines += [f'opsloop_worker_failures_total{{room="{room}"}} {n}' for room, n in sorted(failures.items())]
    return "\n".join(lines) + "\n"
