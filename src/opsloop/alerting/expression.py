"""The tree of a composite's formula, and its one printed form.

A formula asks for the state of signals and joins the answers. The tree keeps what was written (the printer puts in
exactly the parentheses that are needed), so ``parse(str(formula)) == formula`` for every tree.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opsloop.verdict import Verdict

__all__ = ["And", "AtLeast", "Constant", "Expression", "Not", "Or", "StateIs", "breach_ids", "ids_of", "show"]


class StateIs(msgspec.Struct, frozen=True):
    """``BREACH(latency)``: the signal or composite ``id`` is in ``state`` now."""

    state: Verdict
    id: str


class Constant(msgspec.Struct, frozen=True):
    """``TRUE`` or ``FALSE``."""

    value: bool


class Not(msgspec.Struct, frozen=True):
    """``NOT part``."""

    part: Expression


class And(msgspec.Struct, frozen=True):
    """``part AND part …``, two parts or more."""

    parts: tuple[Expression, ...]


class Or(msgspec.Struct, frozen=True):
    """``part OR part …``, two parts or more."""

    parts: tuple[Expression, ...]


class AtLeast(msgspec.Struct, frozen=True):
    """``AT_LEAST(m, [NOT] state, (ids))``: at least m *distinct signals* of the list are in the state."""

    m: int
    state: Verdict
    ids: tuple[str, ...]
    percent: bool = False
    """Whether ``m`` is a share of the list's distinct signals, rounded up."""
    negated: bool = False


Expression = StateIs | Constant | Not | And | Or | AtLeast


def show(expression: Expression) -> str:
    """Return the formula as text.

    >>> show(And((StateIs(Verdict.BREACH, "latency"), Not(StateIs(Verdict.BREACH, "deploy")))))
    'BREACH(latency) AND NOT BREACH(deploy)'
    """
    match expression:
        case StateIs(state, name):
            return f"{state}({name})"
        case Constant(value):
            return "TRUE" if value else "FALSE"
        case Not(part):
            return f"NOT {_inside(part, And, Or)}"
        case And(parts):
            return " AND ".join(_inside(part, And, Or) for part in parts)
        case Or(parts):
            return " OR ".join(_inside(part, Or) for part in parts)
        case AtLeast(m, state, ids, percent, negated):
            test = f"NOT {state}" if negated else str(state)
            return f"AT_LEAST({m}{'%' if percent else ''}, {test}, ({', '.join(ids)}))"


def _inside(part: Expression, *looser: type) -> str:
    return f"({show(part)})" if isinstance(part, looser) else show(part)


def ids_of(expression: Expression) -> tuple[str, ...]:
    """Return every id that the formula names, once each, in the order of the text."""
    return tuple(dict.fromkeys(name for name, _ in _mentions(expression, positive=True)))


def breach_ids(expression: Expression) -> tuple[str, ...]:
    """Return the ids whose breach speaks *for* the formula, so not those under ``NOT``.

    >>> breach_ids(And((StateIs(Verdict.BREACH, "latency"), Not(StateIs(Verdict.BREACH, "deploy")))))
    ('latency',)
    """
    return tuple(dict.fromkeys(name for name, speaks in _mentions(expression, positive=True) if speaks))


def _mentions(expression: Expression, *, positive: bool) -> Iterator[tuple[str, bool]]:
    """Yield (id, whether its breach speaks for the formula) for every mention."""
    match expression:
        case StateIs(state, name):
            yield name, positive and state is Verdict.BREACH
        case AtLeast(_, state, ids, _, negated):
            for name in ids:
                yield name, state is Verdict.BREACH and negated is not positive
        case Not(part):
            yield from _mentions(part, positive=not positive)
        case And(parts) | Or(parts):
            for part in parts:
                yield from _mentions(part, positive=positive)
        case Constant():
            return
