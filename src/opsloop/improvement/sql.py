"""SQL: the counts of the flywheel that run over all traffic.

The definitions are in ``flywheel.py``; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opsloop.filter import Statement
from opsloop.improvement.flywheel import EPOCH_OFFSET_NS, WEEK_NS

__all__ = ["weekly_requests_from_rows", "weekly_requests_statement"]


def weekly_requests_statement(*, start_ns: int, end_ns: int) -> Statement:
    """Return the statement for the requests per ISO week of ``start_ns < ts_ns <= end_ns``."""
    return Statement(
        "SELECT intDiv(ts_ns + {offset:Int64}, {week:Int64}) AS week, count()"
        " FROM events WHERE event = 'request' AND ts_ns > {start_ns:Int64} AND ts_ns <= {end_ns:Int64}"
        " GROUP BY week ORDER BY week",
        {"offset": EPOCH_OFFSET_NS, "week": WEEK_NS, "start_ns": start_ns, "end_ns": end_ns},
    )


def weekly_requests_from_rows(rows: Iterable[tuple[Any, ...]]) -> dict[int, int]:
    """Return {week index: requests} from the statement's rows."""
    return {int(week): int(count) for week, count in rows}
