"""Roll-ups: which part of a window can be answered from quarter-hours that the engine has counted already.

Objects
    A *slot* is a quarter of an hour, ``((k - 1) w, k w]``. The engine keeps, in each of its parts and beside the rows,
    one line per slot and combination of :data:`KEYS` (schema ``0003_rollup.sql``), and answers a statement over whole
    slots from these lines. It writes, merges, expires and deletes them together with the rows they count.
Rule
    A window is cut at moments that are seldom on the grid. Slots that lie wholly between two cuts are read as slots,
    the few that a cut runs through row by row. So counts and sums are those of the rows, to the last event; an event
    that comes late is counted with its slot, and one that is sent twice is stored, and counted, once.
Limits
    What is asked of any other column or attribute is read row by row, whatever the window; so are quantiles, which are
    exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from opsloop.clock import NANOSECONDS
from opsloop.filter import And, Compare, Filter, Not, Or

__all__ = ["BY_SLOTS", "KEYS", "PLAN", "SLOT", "SLOT_NS", "WORTHWHILE", "Cut", "cut", "on_keys"]

SLOT_NS: Final = 900 * NANOSECONDS

WORTHWHILE: Final = 24
"""With so many whole slots, six hours, roll-ups repay what it takes to look for them."""

SLOT: Final = f"intDiv(ts_ns + {SLOT_NS - 1}, {SLOT_NS})"
"""The slot of a row, in SQL."""

KEYS: Final = frozenset(
    {
        "event",
        "service",
        "environment",
        "release",
        "tenant",
        "route",
        "model",
        "tool",
        "severity",
        "error",
        "error_type",
    }
)
"""The columns that roll-ups tell apart."""

PLAN: Final = (
    " SETTINGS optimize_use_projections = 1, optimize_functions_to_subcolumns = 0"
    ", compile_expressions = 0, compile_aggregate_expressions = 0"
)
"""What a statement over slots ends with: look for the roll-up, and leave expressions as they are."""

BY_SLOTS: Final = " SETTINGS use_primary_key = 0"
"""What the query of whole slots in such a statement ends with: to ask every granule of the rows whether it has one of
the slots takes longer than to read all lines, and partitions tell the days anyway."""


class Cut(NamedTuple):
    """A window as whole slots and as rows; both are conditions in SQL over whole numbers alone, nothing to bind."""

    slots: str
    """On the slots that lie between two cuts; ``false`` when there are none."""
    rows: str
    """On the rows of every other slot, and inside of the window."""
    whole: int
    """How many slots are whole."""


def cut(cuts: Iterable[int]) -> Cut:
    """Cut the window from the earliest to the latest moment, in ns, at these and at all moments between.

    >>> quarter = SLOT_NS
    >>> cut([quarter // 2, 4 * quarter]).whole
    3
    >>> cut([0, quarter]).rows
    'false'
    """
    moments = sorted(set(cuts))
    start_ns, end_ns = moments[0], moments[-1]
    first, last = -(-start_ns // SLOT_NS) + 1, end_ns // SLOT_NS
    split = sorted({-(-moment // SLOT_NS) for moment in moments if moment % SLOT_NS})
    inner = [slot for slot in split if first <= slot <= last]
    if first > last:
        return Cut("false", f"ts_ns > {start_ns} AND ts_ns <= {end_ns}", 0)
    whole = f"{SLOT} >= {first} AND {SLOT} <= {last}"
    if inner:
        whole += f" AND {SLOT} NOT IN ({', '.join(map(str, inner))})"
    ranges = ((max(start_ns, (slot - 1) * SLOT_NS), min(end_ns, slot * SLOT_NS)) for slot in split)
    rows = " OR ".join(f"(ts_ns > {begin} AND ts_ns <= {end})" for begin, end in ranges)
    return Cut(whole, f"({rows})" if rows else "false", last - first + 1 - len(inner))


def on_keys(where: Filter) -> bool:
    """Tell whether a filter asks of nothing but :data:`KEYS`, so that it holds for a whole line of the roll-ups.

    >>> from opsloop.filter import Op
    >>> on_keys(Compare("tenant", Op.EQ, "acme")), on_keys(Compare("user_id", Op.EQ, "u-1"))
    (True, False)
    """
    match where:
        case And(parts) | Or(parts):
            return all(on_keys(part) for part in parts)
        case Not(part):
            return on_keys(part)
        case Compare():
            return where.field.removeprefix("attributes.") in KEYS
