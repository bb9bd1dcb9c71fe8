"""What a pipe asks: one number per group instead of the events, such as ``| p95 duration by model``.

    ``count``               how many events
    ``sum avg min max``     over the events whose field is a number; the others are left out and not counted
    ``p50 p90 p95 p99``     quantiles, exact and inclusive (:mod:`opsloop.quantile`), as on the dashboard

Groups come by value, the largest first, ties in the order of the group's bytes. An event without the group's field is
in the group ``""``. The definition is here; ``sql.py`` has the fast form, and a property test holds them equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from opsloop.event import Event, flatten
from opsloop.filter import ALL, INTEGER_FIELDS, Filter, matches
from opsloop.quantile import quantile

__all__ = ["FUNCTIONS", "MAX_GROUPS", "NUMBER", "QUANTILES", "Group", "Summary", "summarise"]

MAX_GROUPS: Final = 1_000
NUMBER: Final = r"-?[0-9]{1,15}(\.[0-9]{1,15})?"
"""What the text of an attribute has to look like to be a number, as in a filter."""
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_SIMPLE: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "count": len,
    "sum": sum,
    "avg": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
}
FUNCTIONS: Final = (*_SIMPLE, *QUANTILES)


class Summary(msgspec.Struct, frozen=True):
    """A function over a field, by the values of another; ``count`` has no field."""

    function: str
    field: str = ""
    by: str = ""


class Group(msgspec.Struct, frozen=True):
    """One group: its value of the field that was grouped by, and what the function says of its ``n`` events."""

    group: str
    value: float
    n: int


def summarise(events: Iterable[Event], summary: Summary, where: Filter = ALL) -> tuple[Group, ...]:
    """Return a number per group, at most :data:`MAX_GROUPS`.

    >>> took = [
    ...     Event(ts_ns=0, event="llm", model=model, duration_us=us) for model, us in (("a", 5), ("a", 7), ("b", 9))
    ... ]
    >>> summarise(took, Summary("avg", "duration_us", by="model"))
    (Group(group='b', value=9.0, n=1), Group(group='a', value=6.0, n=2))
    """
    found: dict[str, list[float]] = {}
    for event in events:
        if matches(where, event):
            value = 1 if summary.function == "count" else _number(event, summary.field)
            if value is not None:
                found.setdefault(_text(event, summary.by) if summary.by else "", []).append(value)
    groups = [Group(name, float(_value(summary.function, values)), len(values)) for name, values in found.items()]
    groups.sort(key=lambda group: (-group.value, group.group.encode()))
    return tuple(groups[:MAX_GROUPS])


def _value(function: str, values: list[float]) -> float:
    return _SIMPLE[function](values) if function in _SIMPLE else quantile(sorted(values), QUANTILES[function])


def _number(event: Event, field: str) -> float | None:
    if field in INTEGER_FIELDS:
        number: int | None = getattr(event, field)
        return number
    text = _text(event, field)
    return float(text) if re.fullmatch(NUMBER, text, re.ASCII) else None


def _text(event: Event, field: str) -> str:
    if field in event.__struct_fields__ and field != "attributes":
        value = getattr(event, field)
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return flatten(event.attributes).get(field, "")
