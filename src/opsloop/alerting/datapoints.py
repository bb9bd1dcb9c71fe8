"""M of n: judge the newest evaluations together, with a say for the missing ones.

This is CloudWatch's "datapoints to alarm" with its rules for missing data, over an evaluation range of a few points
more than n (AWS, "Configuring how CloudWatch alarms treat missing data").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from opsloop.verdict import Verdict

__all__ = ["EXTRA_POINTS", "Missing", "m_of_n"]

EXTRA_POINTS: Final = 2
"""How many points beyond n are looked at, so that real points stand in for missing ones."""

Missing = Literal["missing", "ignore", "breaching", "not_breaching"]
"""How missing points are treated when fewer than n real ones are there."""


def m_of_n(points: Sequence[bool | None], *, m: int, n: int, missing: Missing = "ignore") -> Verdict | None:
    """Return the verdict of the newest n points, oldest first; ``None`` means: keep the state.

    A point is true when breaching, false when fine, ``None`` when missing.

    1. With n real points in the range, the newest n real ones are judged and ``missing`` is not used.
    2. Else ``n - real`` points are filled in by the setting, and counted.
    3. When too few breach but nothing real is fine, and the oldest breaching point is at least m points old, the alarm
       is on its way: it fires under ``missing``. Under ``ignore`` the state is kept.

    >>> m_of_n([False, None, True, None, True], m=2, n=3)
    <Verdict.BREACH: 'BREACH'>
    """
    real = [point for point in points if point is not None]
    breaching = sum(real[-n:])
    if len(real) >= n:
        return Verdict.BREACH if breaching >= m else Verdict.OK
    if missing in {"breaching", "not_breaching"}:
        filled = breaching + (n - len(real) if missing == "breaching" else 0)
        return Verdict.BREACH if filled >= m else Verdict.OK
    if breaching >= m:
        return Verdict.BREACH
    if not real:
        return Verdict.INSUFFICIENT if missing == "missing" else None
    if all(real):
        early = len(points) - list(points).index(True) >= m
        if missing == "ignore":
            return None
        return Verdict.BREACH if early else Verdict.INSUFFICIENT
    return Verdict.OK
