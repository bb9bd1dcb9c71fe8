"""The formula's grammar: CloudWatch's composite alarms, with four states and votes over distinct signals.

::

    expr  := STATE "(" id ")" | TRUE | FALSE | NOT expr | expr AND expr | expr OR expr | "(" expr ")"
           | AT_LEAST "(" m "," [NOT] STATE "," "(" id {"," id} ")" ")"
    m     := integer | integer "%"
    STATE := BREACH | OK | NO_DATA | INSUFFICIENT        ALARM is read as BREACH

``NOT`` binds tighter than ``AND``, ``AND`` tighter than ``OR``. Keywords may be written in any case, an id may stand in
double quotes. CloudWatch's ``INSUFFICIENT_DATA(x)`` is read as ``(NO_DATA(x) OR INSUFFICIENT(x))``.
Limits: 100 children, 500 elements (a child, a constant, a ``NOT`` and a pair of parentheses count one each), 50 levels.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

import msgspec

from opsloop.alerting.expression import And, AtLeast, Constant, Expression, Not, Or, StateIs
from opsloop.errors import ConfigError
from opsloop.verdict import Verdict

__all__ = ["MAX_CHILDREN", "MAX_DEPTH", "MAX_ELEMENTS", "parse"]

MAX_CHILDREN: Final = 100
MAX_ELEMENTS: Final = 500
MAX_DEPTH: Final = 50
STATES: Final = {**{state.value: state for state in Verdict}, "ALARM": Verdict.BREACH}
START: Final = "a state such as BREACH(...), AT_LEAST, NOT, TRUE, FALSE or '('"
_TOKEN: Final = re.compile(r'\s*(?P<text>[A-Za-z][A-Za-z0-9_.-]*|"[^"\n]*"|[0-9]+|[(),%]|\S|\Z)')
_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class _Token(msgspec.Struct, frozen=True):
    text: str
    at: int


def parse(text: str, *, where: str = "") -> Expression:
    """Return the tree of a formula; ``where`` names its place in errors.

    Raises :class:`ConfigError` that names the line, the column, what was found and what was expected.

    >>> parse("AT_LEAST(2, ALARM, (latency, errors))")
    AtLeast(m=2, state=<Verdict.BREACH: 'BREACH'>, ids=('latency', 'errors'), percent=False, negated=False)
    """
    return _Parser(text, where).whole()


class _Parser:
    """Recursive descent over the tokens, one method per rule of the grammar."""

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.where = where
        self.tokens = [_Token(found["text"], found.start("text")) for found in _TOKEN.finditer(text)]
        self.next = 0
        self.children = self.elements = self.depth = 0

    def whole(self) -> Expression:
        expression = self.any_of()
        if self.found.text:
            self.fail("AND, OR or the end")
        return expression

    @property
    def found(self) -> _Token:
        return self.tokens[self.next]

    def fail(self, expected: str, *, fix: str = "see the grammar in docs/alerting.md") -> NoReturn:
        at = self.found.at
        line, column = self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)
        place = f"{self.where}: " if self.where else ""
        token = repr(self.found.text) if self.found.text else "the end"
        raise ConfigError(f"{place}line {line}, column {column}: found {token}, expected {expected}", fix=fix)

    def take(self, *wanted: str) -> bool:
        """Step over the next token when it is one of ``wanted``."""
        if self.found.text.upper() in wanted:
            self.next += 1
            return True
        return False

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            self.fail(repr(wanted))

    def count(self, *, children: int = 0) -> None:
        self.children += children
        self.elements += 1
        if self.children > MAX_CHILDREN:
            self.fail(f"at most {MAX_CHILDREN} children", fix="split the formula into composites that name each other")
        if self.elements > MAX_ELEMENTS:
            self.fail(f"at most {MAX_ELEMENTS} elements", fix="split the formula into composites that name each other")

    def any_of(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} levels", fix="split the formula into composites that name each other")
        parts = [self.all_of()]
        while self.take("OR"):
            parts.append(self.all_of())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def all_of(self) -> Expression:
        parts = [self.one()]
        while self.take("AND"):
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def one(self) -> Expression:
        nots = 0
        while self.take("NOT"):
            self.count()
            nots += 1
            if nots > MAX_DEPTH:
                self.fail(f"at most {MAX_DEPTH} levels")
        expression = self.atom()
        for _ in range(nots):
            expression = Not(expression)
        return expression

    def atom(self) -> Expression:
        word = self.found.text.upper()
        if self.take("("):
            self.count()
            inner = self.any_of()
            self.need(")")
            return inner
        if self.take("TRUE", "FALSE"):
            self.count()
            return Constant(word == "TRUE")
        if self.take("AT_LEAST"):
            return self.at_least()
        if word != "INSUFFICIENT_DATA" and word not in STATES:
            self.fail(START)
        self.next += 1
        self.need("(")
        name = self.name()
        self.need(")")
        if word == "INSUFFICIENT_DATA":
            return Or((StateIs(Verdict.NO_DATA, name), StateIs(Verdict.INSUFFICIENT, name)))
        return StateIs(STATES[word], name)

    def at_least(self) -> AtLeast:
        self.need("(")
        amount = int(self.found.text) if self.found.text.isdecimal() else 0
        if not 1 <= amount <= MAX_CHILDREN:
            self.fail(f"a whole number from 1 to {MAX_CHILDREN}")
        self.next += 1
        percent = self.take("%")
        self.need(",")
        negated = self.take("NOT")
        state = STATES.get(self.found.text.upper())
        if state is None:
            self.fail("BREACH, OK, NO_DATA or INSUFFICIENT")
        self.next += 1
        self.need(",")
        self.need("(")
        ids = [self.name()]
        while self.take(","):
            ids.append(self.name())
        self.need(")")
        self.need(")")
        return AtLeast(amount, state, tuple(ids), percent=percent, negated=negated)

    def name(self) -> str:
        name = self.found.text.strip('"')
        if not _ID.fullmatch(name):
            self.fail("the id of an objective, an slo or an alert")
        self.count(children=1)
        self.next += 1
        return name
