"""A window by dimension: the same few numbers for each service, route, tenant, release or model.

Rule
    A *row* is one value of the dimension. By model it counts model calls, else requests. Failures keep their stories
    apart: ``rejected`` is our own 429 and in no ratio, ``upstream`` a failure whose ``error_type`` says that the
    provider refused, ``server_errors`` the 5xx. ``ratio = failed / n`` over what was let in, and quantiles are exact.
    Rows are ordered by n; the largest :data:`MOST_ROWS` are shown, and how many are left out is said.
Limits
    A row with fewer than 200 durations is marked: few lie beyond its p95. An absent value is a row of its own, ``""``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from opsloop.dashboard.errors import ratio
from opsloop.dashboard.latency import latency, rough
from opsloop.dashboard.window import Window, rejected
from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import Statement

__all__ = ["DIMENSIONS", "MOST_ROWS", "Breakdown", "Row", "breakdown", "breakdown_from_rows", "breakdown_statement"]

DIMENSIONS: Final = ("service", "route", "tenant", "release", "model")
MOST_ROWS: Final = 50
UPSTREAM: Final = "upstream_"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One value of the dimension."""

    key: str
    n: int
    """Requests that were let in, or model calls."""
    rejected: int
    """Requests that our own limiter turned away: not in n."""
    failed: int
    upstream: int
    """Failures for which the provider is named."""
    server_errors: int
    """Failures that ended with a 5xx, the provider's among them."""
    error_ratio: float | None
    latency_us_p50: float | None
    latency_us_p95: float | None
    few: bool
    """Whether its p95 rests on too few durations to be relied on."""


class Breakdown(msgspec.Struct, frozen=True, kw_only=True):
    """A window's rows, largest first."""

    dimension: str
    counted: str
    """What n counts: ``requests`` or ``model calls``."""
    rows: tuple[Row, ...]
    left_out: int
    """How many rows are smaller than those shown."""


def breakdown(window: Window, dimension: str) -> Breakdown:
    """Return a window's rows by one of :data:`DIMENSIONS`. Raises :class:`InputError` for another.

    >>> seen = [Event(ts_ns=1, event="request", route="/chat", error=True), Event(ts_ns=1, event="request")]
    >>> [(row.key, row.n, row.failed) for row in breakdown(Window.of(seen, start_ns=0, end_ns=1), "route").rows]
    [('', 1, 0), ('/chat', 1, 1)]
    """
    groups: dict[str, list[Event]] = {}
    for event in window.calls if _counted(dimension) == "model calls" else window.requests:
        groups.setdefault(getattr(event, dimension), []).append(event)
    return _ordered(dimension, (_row(key, events) for key, events in groups.items()))


def breakdown_statement(dimension: str, *, start_ns: int, end_ns: int) -> Statement:
    """Return the statement of the same rows; the largest, and the number of all."""
    kinds = "'llm', 'embed'" if _counted(dimension) == "model calls" else "'request'"
    sql = (
        f"SELECT {dimension} AS key, countIf(served), countIf(NOT served), countIf(failed),"
        f" countIf(failed AND startsWith(error_type, '{UPSTREAM}')),"
        " countIf(failed AND ifNull(status_code >= 500, false)), countIf(served AND isNotNull(duration_us)),"
        " quantilesExactInclusiveIf(0.5, 0.95)(duration_us, served AND isNotNull(duration_us)), count() OVER ()"
        f" FROM (SELECT *, event != 'request' OR error_type != 'rate_limited' AS served, served AND error AS failed"
        f" FROM events WHERE ts_ns > {{start_ns:Int64}} AND ts_ns <= {{end_ns:Int64}} AND event IN ({kinds}))"
        f" GROUP BY key ORDER BY countIf(served) DESC, key LIMIT {MOST_ROWS}"
    )
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns})


def breakdown_from_rows(rows: Iterable[Sequence[Any]], dimension: str) -> Breakdown:
    """Return the breakdown that :func:`breakdown_statement` read."""
    found, every = [], 0
    for key, n, turned_away, failed, upstream, server_errors, timed, (p50, p95), count in rows:
        every = count
        found.append(
            Row(
                key=key,
                n=n,
                rejected=turned_away,
                failed=failed,
                upstream=upstream,
                server_errors=server_errors,
                error_ratio=ratio(failed, n),
                latency_us_p50=p50 if timed else None,
                latency_us_p95=p95 if timed else None,
                few=rough(timed, 0.95),
            )
        )
    return msgspec.structs.replace(_ordered(dimension, found), left_out=every - len(found))


def _counted(dimension: str) -> str:
    if dimension not in DIMENSIONS:
        raise InputError(f"there is no dimension {dimension!r}", fix=f"use one of {', '.join(DIMENSIONS)}")
    return "model calls" if dimension == "model" else "requests"


def _row(key: str, events: Sequence[Event]) -> Row:
    served = [event for event in events if event.event != "request" or not rejected(event)]
    failed = [event for event in served if event.error]
    took = latency(event.duration_us for event in served)
    return Row(
        key=key,
        n=len(served),
        rejected=len(events) - len(served),
        failed=len(failed),
        upstream=sum(event.error_type.startswith(UPSTREAM) for event in failed),
        server_errors=sum((event.status_code or 0) >= 500 for event in failed),
        error_ratio=ratio(len(failed), len(served)),
        latency_us_p50=took.p50,
        latency_us_p95=took.p95,
        few=rough(took.n, 0.95),
    )


def _ordered(dimension: str, rows: Iterable[Row]) -> Breakdown:
    found = sorted(rows, key=lambda row: (-row.n, row.key))
    return Breakdown(
        dimension=dimension,
        counted=_counted(dimension),
        rows=tuple(found[:MOST_ROWS]),
        left_out=max(0, len(found) - MOST_ROWS),
    )
