"""Hysteresis: what was in breach is over only when it is clearly over, so that a verdict does not flap.

Rule
    An objective is in breach beyond its threshold. From then on it stays in breach until its value is at ``clear`` or
    better, and has been for ``clear_for_seconds`` without a pause; between the two the state holds (a Schmitt trigger).
    Not knowing is no clearing: ``NO_DATA`` and ``INSUFFICIENT`` are said as they are, remember the breach and start the
    clear time anew.
State
    The reading before, nothing else. The worker writes a reading as an event whenever its state changed, so the newest
    event of an objective is its state: pages, scrapes and a worker that starts again all hold alike.
Limits
    The clear time is seen at evaluations: it counts from the first clear one, and a breach between two is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.amount import amount, span
from opsloop.dashboard.measure import measure
from opsloop.filter import Statement
from opsloop.settings import ObjectiveSettings
from opsloop.verdict import Reading, Verdict

__all__ = ["State", "clear_at", "hold", "holds", "said_from_rows", "said_statement", "state_of"]

_SAID: Final = (
    "SELECT leaves['id'] AS id, argMax((leaves['verdict'], leaves['severe'] = 'true', leaves['held'] = 'true',"
    " toInt64OrNull(leaves['clear_since_ns'])), (ts_ns, sequence)) FROM events"
    " WHERE event = 'breach' AND ts_ns <= {end_ns:Int64} AND leaves['id'] IN {ids:Array(String)} GROUP BY id"
)


class State(msgspec.Struct, frozen=True):
    """What of a reading is remembered; a change of it is an event."""

    verdict: Verdict
    severe: bool = False
    held: bool = False
    clear_since_ns: int | None = None


def state_of(reading: Reading) -> State:
    """Return what is remembered of a reading."""
    return State(reading.verdict, reading.severe, reading.held, reading.clear_since_ns)


def holds(objective: ObjectiveSettings) -> bool:
    """Tell whether an objective has hysteresis."""
    return objective.clear is not None or objective.clear_for_seconds > 0


def hold(reading: Reading, objective: ObjectiveSettings, before: State | None) -> Reading:
    """Return the reading as it is after ``before``: in breach still, or as it was judged on its own.

    >>> slow = ObjectiveSettings(id="slow", group="latency", measure="latency_us_p95", threshold=2e6, clear=1e6)
    >>> from opsloop.dashboard.measure import Measured
    >>> from opsloop.dashboard.objective import judge
    >>> better = judge(Measured(1.5e6, 400), slow, start_ns=0, end_ns=300 * 10**9)
    >>> held = hold(better, slow, State(Verdict.BREACH))
    >>> held.verdict, held.reason.partition("; ")[2]
    (<Verdict.BREACH: 'BREACH'>, 'it stays in breach until it is at most 1.00 s')
    """
    if before is None or not holds(objective) or not (before.verdict is Verdict.BREACH or before.held):
        return reading
    match reading.verdict:
        case Verdict.BREACH:
            return reading
        case Verdict.NO_DATA | Verdict.INSUFFICIENT:
            return _held(reading, reading.verdict, "it was in breach and has not been seen to clear")
    if not _clear(reading, objective):
        return _held(reading, Verdict.BREACH, f"it stays in breach until it is {clear_at(objective)}")
    since_ns = reading.window_end_ns if before.clear_since_ns is None else before.clear_since_ns
    seconds = (reading.window_end_ns - since_ns) / NANOSECONDS
    if seconds >= objective.clear_for_seconds:
        return reading
    reason = f"it stays in breach until it was {clear_at(objective)} for {span(objective.clear_for_seconds)}"
    held = _held(reading, Verdict.BREACH, f"{reason}, now {span(seconds)}")
    return msgspec.structs.replace(held, clear_since_ns=since_ns)


def clear_at(objective: ObjectiveSettings) -> str:
    """Return where an objective is clear, in words."""
    value = amount(_edge(objective), measure(objective.measure).unit)
    return f"at {'most' if objective.direction == 'above' else 'least'} {value}"


def said_statement(ids: Sequence[str], *, end_ns: int) -> Statement:
    """Return the statement of the states that were last written of signals, up to ``end_ns``."""
    return Statement(_SAID, {"ids": list(ids), "end_ns": end_ns})


def said_from_rows(rows: Iterable[Sequence[Any]]) -> dict[str, State]:
    """Return the states by signal."""
    return {
        name: State(Verdict(verdict), bool(severe), bool(held), since) for name, (verdict, severe, held, since) in rows
    }


def _edge(objective: ObjectiveSettings) -> float:
    return objective.threshold if objective.clear is None else objective.clear


def _clear(reading: Reading, objective: ObjectiveSettings) -> bool:
    if reading.value is None:
        return False
    edge = _edge(objective)
    return reading.value <= edge if objective.direction == "above" else reading.value >= edge


def _held(reading: Reading, verdict: Verdict, why: str) -> Reading:
    return msgspec.structs.replace(reading, verdict=verdict, held=True, reason=f"{reading.reason}; {why}")
