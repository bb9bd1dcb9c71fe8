"""Absence: nothing was measured for so long that the silence itself is news.

Rule
    An objective with ``absent_seconds`` has a second reading, ``absent-ID``: in breach when nothing that it counts was
    seen in ``(now - absent_seconds, now]``. All absences are one signal, *traffic*: latency, errors and quality fall
    silent together, and one silence is one vote.
    Whether other events still arrive tells an idle service from a broken pipe, and stands in the reason. A store that
    never received anything is ``NO_DATA``: it was not even begun.
Limits
    The objective's own verdict stays ``NO_DATA``: silence is neither met nor breached there, and an alert that fires is
    kept while its signals are silent.
"""

from __future__ import annotations

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.amount import span
from opsloop.dashboard.window import JUDGEMENTS, OWN_SERVICE
from opsloop.filter import Statement
from opsloop.settings import ObjectiveSettings, SloSettings
from opsloop.verdict import Reading, Verdict

__all__ = ["absence", "received_statement"]


def absence(
    objective: ObjectiveSettings | SloSettings, *, counted: str, n: int, received: int, ever: bool, end_ns: int
) -> Reading:
    """Return the reading ``absent-ID`` of the objective's ``absent_seconds`` that end at ``end_ns``.

    ``n`` is what the objective counted there, ``received`` all events of the application, ``ever`` whether there was
    any up to then.

    >>> up = SloSettings(id="up", absent_seconds=600)
    >>> silent = absence(up, counted="requests", n=0, received=7, ever=True, end_ns=0)
    >>> silent.verdict, silent.reason
    (<Verdict.BREACH: 'BREACH'>, 'no requests in 10 m, though 7 other events arrived')
    """
    seconds = objective.absent_seconds or 0.0
    period = span(seconds)
    if n:
        verdict, reason = Verdict.OK, f"{n} {counted} in {period}"
    elif received:
        verdict, reason = Verdict.BREACH, f"no {counted} in {period}, though {received} other events arrived"
    elif ever:
        verdict, reason = Verdict.BREACH, f"no {counted} in {period}, nor anything else: nothing is being received"
    else:
        verdict, reason = Verdict.NO_DATA, "nothing was ever received"
    return Reading(
        id=f"absent-{objective.id}",
        group="traffic",
        verdict=verdict,
        value=float(n),
        threshold=0.0,
        unit="events",
        n=n,
        window_start_ns=end_ns - round(seconds * NANOSECONDS),
        window_end_ns=end_ns,
        reason=reason,
        labels=objective.labels,
    )


def received_statement(*, start_ns: int, end_ns: int) -> Statement:
    """Return the statement of how many events the application sent in a window, and whether it ever sent one."""
    kinds = ", ".join(f"'{kind}'" for kind in sorted(JUDGEMENTS))
    sent = f"event NOT IN ({kinds}) AND service != '{OWN_SERVICE}' AND ts_ns <= {{end_ns:Int64}}"
    sql = (
        f"SELECT (SELECT count() FROM events WHERE {sent} AND ts_ns > {{start_ns:Int64}}),"
        f" (SELECT count() FROM (SELECT 1 FROM events WHERE {sent} LIMIT 1))"
    )
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns})
