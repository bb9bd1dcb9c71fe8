"""What a composite's formula means over the readings of one evaluation.

Objects
    A formula (:mod:`opsloop.alerting.expression`), the readings of one instant, the group of each signal.
Rule
    * **One instant, one window.** The readings of one evaluation vote, those that were handed in together at ``now``,
      and only breaches whose windows share a stretch of time add up. That stretch is kept with the result, so a page
      proves the coincidence. A breach that shares none of it is stale and counts as absent: last hour's latency and
      this minute's errors do not add up.
    * **Distinct signals.** In ``AT_LEAST`` all children of one group are one vote: p95 and p99 of one latency are one
      signal. A composite that is a child stands for all the groups under it and merges with whatever shares one.
    * **State tests are exact.** ``BREACH(x)`` is false while x has no data, so ``NOT BREACH(deploy)`` holds when no
      deploy was seen.
    * **AT_LEAST has three results.** True when the votes reach m; unknown (``None``) when votes and ``INSUFFICIENT``
      children together could; false otherwise. Unknown passes NOT, AND and OR by strong Kleene logic, and never pages.
    * **A severe single.** A severe breach that speaks for the formula stands for all the breaches that the formula
      asks for; what the formula excludes (``NOT BREACH(deploy)``) stays excluded.
Limits
    False is no recovery while a signal that was breaching has gone silent: see :class:`Evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import IntEnum

import msgspec

from opsloop.alerting.expression import And, AtLeast, Constant, Expression, Not, Or, StateIs, breach_ids, ids_of
from opsloop.verdict import Reading, Verdict

__all__ = [
    "Context",
    "Evaluation",
    "Level",
    "coincident",
    "evaluate",
    "groups_of",
    "leaves_of",
    "level",
    "needed",
    "truth",
]

_SPEAKS = (Verdict.BREACH, Verdict.OK)


class Level(IntEnum):
    """How bad a breach is; no data has no level."""

    BREACH = 1
    SEVERE = 2


class Context(msgspec.Struct, frozen=True):
    """What ids mean in one evaluation: readings by id, each signal's group, and the formulas of other composites."""

    readings: Mapping[str, Reading]
    groups: Mapping[str, str]
    composites: Mapping[str, Expression] = {}

    def verdict(self, name: str) -> Verdict:
        """Return a signal's verdict; absent is ``NO_DATA``."""
        reading = self.readings.get(name)
        return Verdict.NO_DATA if reading is None else reading.verdict


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one formula at one instant.

    ``verdict`` is ``BREACH`` when the formula is true and ``OK`` when it is false. It is ``INSUFFICIENT`` when the
    formula is unknown, or false only because a signal that was breaching cannot be judged now; ``NO_DATA`` when it is
    false only because such a signal went silent, or no signal has any data.
    """

    verdict: Verdict
    reason: str
    votes: tuple[Reading, ...] = ()
    """The breaches that speak for the formula, in the order of its text."""
    signals: tuple[str, ...] = ()
    """Their distinct groups."""
    signals_total: int = 0
    """How many distinct groups could have spoken for it."""
    level: Level | None = None
    severe_by: str = ""
    """The signal that pages alone, when the formula itself does not hold."""
    window: tuple[int, int] = (0, 0)
    """(start_ns, end_ns] that all votes share."""
    undecided: tuple[str, ...] = ()
    """Signals that were breaching and have not been seen to recover."""


def coincident(readings: Iterable[Reading], *, now_ns: int) -> tuple[list[Reading], tuple[int, int]]:
    """Return the readings that belong to the evaluation at ``now_ns``, and the window (start_ns, end_ns] of its votes.

    Breaches join newest first, each when its window overlaps what is shared so far. Readings of any other verdict vote
    for nothing and all belong. A window that ends after ``now_ns`` never does.
    """
    known = [reading for reading in readings if reading.window_end_ns <= now_ns]
    known.sort(key=lambda r: (r.verdict is not Verdict.BREACH, -r.window_end_ns, r.window_start_ns, r.id))
    joined: list[Reading] = []
    shared: tuple[int, int] | None = None
    for reading in known:
        if shared is None:
            shared = (reading.window_start_ns, reading.window_end_ns)
        elif reading.verdict is Verdict.BREACH:
            start, end = max(shared[0], reading.window_start_ns), min(shared[1], reading.window_end_ns)
            if start >= end:
                continue
            shared = (start, end)
        joined.append(reading)
    return joined, shared or (now_ns, now_ns)


def leaves_of(expression: Expression, composites: Mapping[str, Expression], *, speaking: bool = False) -> list[str]:
    """Return the signals under a formula, through other composites; with ``speaking`` only those whose breach counts.

    >>> leaves_of(StateIs(Verdict.BREACH, "all"), {"all": StateIs(Verdict.BREACH, "latency")})
    ['latency']
    """
    found: dict[str, None] = {}
    for name in breach_ids(expression) if speaking else ids_of(expression):
        inner = composites.get(name)
        found.update(dict.fromkeys([name] if inner is None else leaves_of(inner, composites, speaking=speaking)))
    return list(found)


def groups_of(ids: Iterable[str], groups: Mapping[str, str], composites: Mapping[str, Expression]) -> dict[str, str]:
    """Return the vote that each id belongs to: ids that share a group, even through a composite, share a vote.

    >>> groups_of(["p95", "p99", "errors"], {"p95": "latency", "p99": "latency", "errors": "errors"}, {})
    {'p95': 'latency', 'p99': 'latency', 'errors': 'errors'}
    """
    ids = list(ids)
    merged: list[set[str]] = []
    stands_for: dict[str, str] = {}
    for name in ids:
        inner = composites.get(name)
        leaves = [name] if inner is None else leaves_of(inner, composites)
        own = {groups.get(leaf, leaf) for leaf in leaves} or {name}
        stands_for[name] = min(own)
        for other in [part for part in merged if part & own]:
            merged.remove(other)
            own |= other
        merged.append(own)
    return {name: min(next(part for part in merged if stands_for[name] in part)) for name in ids}


def truth(
    expression: Expression,
    context: Context,
    *,
    undecided: AbstractSet[str] = frozenset(),
    assume_breach: bool = False,
    positive: bool = True,
) -> bool | None:
    """Return what a formula says: true, false, or ``None`` for unknown.

    ``undecided`` names signals whose state is to be taken as unknown. ``assume_breach`` takes every breach that the
    formula asks for as given, which is how a severe single is judged; ``positive`` is false under a ``NOT``.
    """

    def inner(part: Expression, *, same: bool = True) -> bool | None:
        side = positive if same else not positive
        return truth(part, context, undecided=undecided, assume_breach=assume_breach, positive=side)

    match expression:
        case Constant(value):
            return value
        case Not(part):
            return _not(inner(part, same=False))
        case And(parts):
            return _least([inner(part) for part in parts])
        case Or(parts):
            return _not(_least([_not(inner(part)) for part in parts]))
        case StateIs(state, name) if name in context.composites:
            if state in _SPEAKS:
                breach = state is Verdict.BREACH
                found = inner(context.composites[name], same=breach)
                return found if breach else _not(found)
            return state is Verdict.INSUFFICIENT and inner(context.composites[name]) is None
        case StateIs(state, name):
            if assume_breach and positive and state is Verdict.BREACH:
                return True
            return None if name in undecided else context.verdict(name) is state
        case AtLeast(_, state, ids, _, negated):
            if assume_breach and state is Verdict.BREACH and negated is not positive:
                return True
            tests = [_member(name, state, context, undecided, negated=negated) for name in ids]
            return _at_least(expression, tests, groups_of(ids, context.groups, context.composites))


def _member(name: str, state: Verdict, context: Context, undecided: AbstractSet[str], *, negated: bool) -> bool | None:
    """Test one child inside AT_LEAST, where too little data leaves BREACH, OK and their NOT undecided."""
    if name in context.composites:
        found = truth(StateIs(state, name), context, undecided=undecided)
    elif state in _SPEAKS and (name in undecided or context.verdict(name) is Verdict.INSUFFICIENT):
        found = None
    else:
        found = context.verdict(name) is state
    return _not(found) if negated else found


def needed(vote: AtLeast, signals_total: int) -> int:
    """Return how many votes an AT_LEAST needs: m, or its share of the distinct signals, rounded up.

    >>> needed(AtLeast(50, Verdict.BREACH, ("a", "b", "c"), percent=True), 3)
    2
    """
    return -(-vote.m * signals_total // 100) if vote.percent else vote.m


def _at_least(vote: AtLeast, tests: list[bool | None], vote_of: Mapping[str, str]) -> bool | None:
    given = {vote_of[name] for name, test in zip(vote.ids, tests, strict=True) if test}
    possible = given | {vote_of[name] for name, test in zip(vote.ids, tests, strict=True) if test is None}
    m = needed(vote, len(set(vote_of.values())))
    return True if len(given) >= m else None if len(possible) >= m else False


def _not(value: bool | None, /) -> bool | None:  # noqa: FBT001 - the one operand of a logic operator
    return None if value is None else not value


def _least(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def level(expression: Expression, context: Context) -> Level | None:
    """Return how bad a formula's breach is: the least of an AND, the most of an OR, the m-th most of an AT_LEAST.

    A child that is not breaching, and a test for anything but a breach, has no level.
    """
    match expression:
        case StateIs(Verdict.BREACH, name):
            return _level_of(name, context)
        case And(parts):
            return min((found for part in parts if (found := level(part, context)) is not None), default=None)
        case Or(parts):
            return max((found for part in parts if (found := level(part, context)) is not None), default=None)
        case AtLeast(_, Verdict.BREACH, ids, _, False):
            vote_of = groups_of(ids, context.groups, context.composites)
            best: dict[str, Level] = {}
            for name in ids:
                found = _level_of(name, context)
                if found is not None:
                    best[vote_of[name]] = max(found, best.get(vote_of[name], found))
            ranked = sorted(best.values(), reverse=True)
            m = needed(expression, len(set(vote_of.values())))
            return ranked[m - 1] if len(ranked) >= m else None
        case _:
            return None


def _level_of(name: str, context: Context) -> Level | None:
    if name in context.composites:
        inner = context.composites[name]
        return level(inner, context) if truth(inner, context) else None
    reading = context.readings.get(name)
    if reading is None or reading.verdict is not Verdict.BREACH:
        return None
    return Level.SEVERE if reading.severe else Level.BREACH


def evaluate(
    expression: Expression,
    context: Context,
    *,
    severe_alone: bool = False,
    severe_before: str = "",
    undecided: AbstractSet[str] = frozenset(),
    window: tuple[int, int] = (0, 0),
) -> Evaluation:
    """Judge a formula over the readings of one evaluation.

    ``undecided`` names signals that were breaching and have not been seen to recover: gone silent, too few events, or
    between their clear and fire thresholds. While the formula is false only because of them, it is not ``OK``.
    ``severe_before`` names the severe single that opened the episode: the episode lasts until that signal recovers.
    """
    speaking = leaves_of(expression, context.composites, speaking=True)
    votes = tuple(context.readings[name] for name in speaking if context.verdict(name) is Verdict.BREACH)
    vote_of = groups_of(speaking, context.groups, context.composites)
    signals = tuple(dict.fromkeys(vote_of[vote.id] for vote in votes))
    total = len(set(vote_of.values()))
    counted = f"{len(signals)} of {total} signals breach in one window"
    held = truth(expression, context)
    severe = next((vote.id for vote in votes if vote.severe), "") if severe_alone and not held else ""
    severe_by = severe if severe and truth(expression, context, assume_breach=True) else ""
    verdict, reason = _judged(expression, context, undecided, counted, held=held)
    if severe_by:
        verdict, reason = Verdict.BREACH, f"severe single, {severe_by} pages alone"
    elif severe_before and verdict is Verdict.OK and truth(expression, context, assume_breach=True):
        if context.verdict(severe_before) is Verdict.BREACH:
            verdict, reason = Verdict.BREACH, f"the severe single {severe_before} still breaches"
        elif severe_before in undecided:
            verdict, reason = Verdict.INSUFFICIENT, f"the severe single {severe_before} was not seen to recover"
    return Evaluation(
        verdict=verdict,
        reason=reason,
        votes=votes,
        signals=signals,
        signals_total=total,
        level=Level.SEVERE if severe_by else level(expression, context) if verdict is Verdict.BREACH else None,
        severe_by=severe_by,
        window=window,
        undecided=tuple(sorted(undecided)),
    )


def _judged(
    expression: Expression, context: Context, undecided: AbstractSet[str], counted: str, *, held: bool | None
) -> tuple[Verdict, str]:
    if held:
        return Verdict.BREACH, counted if counted[0] != "0" else "the formula holds"
    leaves = leaves_of(expression, context.composites)
    if held is None:
        thin = [name for name in leaves if context.verdict(name) is Verdict.INSUFFICIENT]
        return Verdict.INSUFFICIENT, f"{counted}; too few events to tell: {', '.join(thin)}"
    if leaves and all(context.verdict(name) is Verdict.NO_DATA for name in leaves):
        return Verdict.NO_DATA, "no signal has data in this window"
    if undecided and truth(expression, context, undecided=undecided) is None:
        silent = sorted(name for name in undecided if context.verdict(name) is Verdict.NO_DATA)
        if silent:
            return Verdict.NO_DATA, f"{counted}; breaching before and silent now: {', '.join(silent)}"
        return Verdict.INSUFFICIENT, f"{counted}; not seen to recover: {', '.join(sorted(undecided))}"
    if isinstance(expression, AtLeast) and expression.state is Verdict.BREACH and not expression.negated:
        vote_of = groups_of(expression.ids, context.groups, context.composites)
        return Verdict.OK, f"{counted}, {needed(expression, len(set(vote_of.values())))} needed"
    return Verdict.OK, counted
