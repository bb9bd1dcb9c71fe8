"""A window beside an earlier one: the same hours a day or a week ago, or the time before and after a deploy.

Rule
    Both windows are equally long, nothing is in both. Around a deploy at t they are ``(t - w, t]`` and ``(t, t + w]``,
    shortened on both sides to what has passed since. A change is ``after / before - 1``; it is unknown where either
    side is, or where nothing was before.
Limits
    A comparison shows, it does not judge: it has no verdict. Whether it is chance is for the objectives and drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS, utc
from opsloop.dashboard.amount import amount
from opsloop.dashboard.measure import measure
from opsloop.dashboard.signals import Signals
from opsloop.errors import InputError

__all__ = ["COMPARISONS", "Change", "Comparison", "around", "changes", "compared", "earlier"]

Way = Literal["1d", "1w", "deploy"]
COMPARISONS: Final[tuple[Way, ...]] = ("1d", "1w", "deploy")
_BACK_NS: Final = {"1d": 86_400 * NANOSECONDS, "1w": 604_800 * NANOSECONDS}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One measure, before and after."""

    measure: str
    title: str
    unit: str
    before: float | None
    after: float | None
    n_before: int
    n_after: int
    ratio: float | None
    """``after / before - 1``; ``None`` where that says nothing."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two windows, measure by measure."""

    way: str
    before_start_ns: int
    before_end_ns: int
    after_start_ns: int
    after_end_ns: int
    sentence: str
    changes: tuple[Change, ...]


def earlier(way: str, *, start_ns: int, end_ns: int) -> tuple[int, int]:
    """Return the window a day or a week before. Raises :class:`InputError` for another way to compare.

    >>> earlier("1d", start_ns=86_400 * 10**9, end_ns=86_401 * 10**9)
    (0, 1000000000)
    """
    if way not in _BACK_NS:
        raise InputError(f"there is no comparison {way!r}", fix=f"use one of {', '.join(COMPARISONS)}")
    back_ns = _BACK_NS[way]
    if end_ns - start_ns > back_ns:
        raise InputError(f"the window is longer than {way}: it would overlap itself", fix="shorten it, or use 1w")
    return start_ns - back_ns, end_ns - back_ns


def around(deploy_ns: int, *, start_ns: int, end_ns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the windows before and after a deploy, each as long as the window or as the time since, if that is less.

    >>> around(70, start_ns=0, end_ns=100)
    ((40, 70), (70, 100))
    """
    length = min(end_ns - start_ns, end_ns - deploy_ns)
    if length <= 0:
        raise InputError("the deploy is not before the window's end", fix="ask again when some time has passed")
    return (deploy_ns - length, deploy_ns), (deploy_ns, deploy_ns + length)


def changes(names: Sequence[str], before: Signals, after: Signals) -> tuple[Change, ...]:
    """Return what each measure was and is."""
    found = []
    for name in names:
        what = measure(name)
        old, new = what.read(before), what.read(after)
        known = old.value is not None and new.value is not None and old.value > 0
        found.append(
            Change(
                measure=name,
                title=what.title,
                unit=what.unit,
                before=old.value,
                after=new.value,
                n_before=old.n,
                n_after=new.n,
                ratio=new.value / old.value - 1 if known and new.value is not None and old.value else None,
            )
        )
    return tuple(found)


def compared(way: str, names: Sequence[str], before: Signals, after: Signals, *, release: str = "") -> Comparison:
    """Return the comparison of two windows; its sentence names the largest change of a measure that people feel."""
    found = changes(names, before, after)
    when = f"the deploy{f' of {release}' if release else ''} at {utc(before.end_ns)[:19]}Z"
    against = when if way == "deploy" else {"1d": "a day ago", "1w": "a week ago"}[way]
    moved = [each for each in found if each.ratio is not None]
    text = f"Nothing can be compared with {against}."
    if moved:
        largest = max(moved, key=lambda each: abs(each.ratio or 0.0))
        values = f"{amount(largest.before, largest.unit)} to {amount(largest.after, largest.unit)}"
        text = f"Compared with {against}, {largest.title} changed most: {values} ({largest.ratio:+.0%})."
    return Comparison(
        way=way,
        before_start_ns=before.start_ns,
        before_end_ns=before.end_ns,
        after_start_ns=after.start_ns,
        after_end_ns=after.end_ns,
        sentence=text,
        changes=found,
    )
