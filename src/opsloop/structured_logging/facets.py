"""What a page of logs shows beside its lines: how often each value occurs, and how many events there were when.

The definitions, in plain Python over events; ``sql.py`` has the fast form of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from opsloop.errors import InputError
from opsloop.event import SEVERITIES, Event
from opsloop.filter import ALL, And, Compare, Filter, Not, Or, matches

__all__ = ["FACETS", "Facet", "FacetValue", "Histogram", "apart", "facets", "histogram", "step_width_ns", "without"]

FACETS: Final = ("severity", "event", "tool", "service", "tenant", "model", "route", "error_type")
MAX_STEPS: Final = 1_000
_ERROR: Final = SEVERITIES.index("ERROR")


class FacetValue(msgspec.Struct, frozen=True):
    """One value and how many events have it."""

    value: str
    count: int


class Facet(msgspec.Struct, frozen=True):
    """The most frequent values of one field, the empty text left out."""

    field: str
    values: tuple[FacetValue, ...]


class Histogram(msgspec.Struct, frozen=True):
    """Counts per step of time; step i is (start_ns + i * step_ns, start_ns + (i + 1) * step_ns]."""

    start_ns: int
    end_ns: int
    step_ns: int
    total: tuple[int, ...]
    errors: tuple[int, ...]
    """Those that failed or are of severity ERROR or FATAL."""


def without(where: Filter, field: str) -> Filter:
    """Return a filter without the conditions on one field that stand at its top.

    A facet ignores its own condition: whoever has chosen one tenant still sees the others beside it.

    >>> from opsloop.filter import equals
    >>> without(equals(tenant="acme", error=True), "tenant") == equals(error=True)
    True
    """
    if isinstance(where, And):
        return And(tuple(part for part in where.parts if _fields(part) != {field}))
    return ALL if _fields(where) == {field} else where


def apart(where: Filter) -> tuple[Filter, dict[str, Filter]]:
    """Return the conditions that hold for every facet, and those that each facet has of its own and ignores.

    >>> from opsloop.filter import equals
    >>> common, own = apart(equals(tenant="acme", error=True))
    >>> common == equals(error=True), own == {"tenant": equals(tenant="acme")}
    (True, True)
    """
    parts = where.parts if isinstance(where, And) else (where,)
    own = {field: [part for part in parts if _fields(part) == {field}] for field in FACETS}
    common = And(tuple(part for part in parts if not any(part in held for held in own.values())))
    return common, {field: And(tuple(held)) for field, held in own.items() if held}


def _fields(where: Filter) -> set[str]:
    match where:
        case And(parts) | Or(parts):
            return set().union(*(_fields(part) for part in parts))
        case Not(part):
            return _fields(part)
        case Compare():
            return {where.field}


def facets(events: Iterable[Event], where: Filter = ALL, *, limit: int = 10) -> tuple[Facet, ...]:
    """Return the top values of each of :data:`FACETS`: most frequent first, ties in the order of their bytes.

    >>> facets([Event(ts_ns=0, event="log", tenant="acme")])[4]
    Facet(field='tenant', values=(FacetValue(value='acme', count=1),))
    """
    held = list(events)
    result = []
    for field in FACETS:
        condition = without(where, field)
        counts = Counter(str(getattr(event, field)) for event in held if matches(condition, event))
        ranked = sorted((-count, value.encode(), value) for value, count in counts.items() if value)
        result.append(Facet(field, tuple(FacetValue(value, -count) for count, _, value in ranked[:limit])))
    return tuple(result)


def step_width_ns(start_ns: int, end_ns: int, steps: int) -> int:
    """Return the width of each of ``steps`` steps that cover (start, end]; raises :class:`InputError` for nonsense.

    >>> step_width_ns(0, 100, 3)
    34
    """
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"{steps} steps", fix=f"ask for 1 to {MAX_STEPS}")
    if start_ns >= end_ns:
        raise InputError("the window's start is not before its end", fix="let from be earlier than to")
    return -((start_ns - end_ns) // steps)


def histogram(
    events: Iterable[Event], where: Filter = ALL, *, start_ns: int, end_ns: int, steps: int = 60
) -> Histogram:
    """Return how many events, and how many bad ones, each step of the window has.

    >>> histogram(
    ...     [Event(ts_ns=5, event="log"), Event(ts_ns=10, event="tool", error=True)], start_ns=0, end_ns=10, steps=2
    ... )
    Histogram(start_ns=0, end_ns=10, step_ns=5, total=(1, 1), errors=(0, 1))
    """
    width = step_width_ns(start_ns, end_ns, steps)
    total, errors = [0] * steps, [0] * steps
    for event in events:
        if start_ns < event.ts_ns <= end_ns and matches(where, event):
            step = (event.ts_ns - start_ns - 1) // width
            total[step] += 1
            errors[step] += event.error or SEVERITIES.index(event.severity) >= _ERROR
    return Histogram(start_ns, end_ns, width, tuple(total), tuple(errors))
