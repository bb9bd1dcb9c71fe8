r"""The query line: what a person types to find events, and the filter that it means.

::

    event:tool tool:retrieve error:true duration>500ms -tenant:acme model:gpt* "timed out" since:1h

Terms beside each other must all hold; ``AND``, ``OR``, ``NOT`` (upper case), ``-`` and parentheses combine them, and
``AND`` binds tighter. A bare word or a ``"phrase"`` is looked for in the message, in any case.

=====================  ==================================================================
``f:v`` ``f=v``        equals; an unquoted ``*`` stands for any text; for ``message``: contains
``f:*``                the field is there
``f>v`` ``f:>=v`` …    order, with ``>`` ``>=`` ``<`` ``<=``; durations take a unit
``f:[a TO b]``         from a to b, both included; ``*`` leaves a side open
``f:(a OR b)``         several values of one field
``f!=v``               there, and not equal
``f==v``               equals, to the letter
``f~v``                contains, in any ASCII case
``f*=v``               pattern in quotes
``ts:>-15m``           the event's time: a time ago, ``now``, or ISO 8601 with a zone
``since:`` ``until:``  the window, in the same forms
``| p95 f by g``       at the end: a number per group instead of the events
=====================  ==================================================================

The parser is recursive descent, bounded in length and depth; it raises nothing but :class:`FilterError`, which carries
the span of the fault. The language is defined by the grammar of docs/query_language.md, and a property test holds this
parser to it. ``format_query`` writes a filter as a line that parses to the same filter.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS, parse_time
from opsloop.endpoint import ago_seconds
from opsloop.errors import FilterError, InputError
from opsloop.filter import ALL, And, Compare, Filter, Not, Op, Or, compile_filter
from opsloop.structured_logging.fields import RESERVED, Field, field_of, value_of
from opsloop.structured_logging.summary import FUNCTIONS, Summary

__all__ = ["NAME", "Query", "parse_query"]

MAX_LENGTH: Final = 4096
MAX_DEPTH: Final = 40
NAME: Final = re.compile(r"[^\W\d][\w.@/-]*")
"""What a field may be called without quotes."""
_SPACE: Final = re.compile(r"\s*")
_PHRASE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_OPERATOR: Final = re.compile(r"==|!=|\*=|~|:?(?:>=|<=|>|<)|[:=]")
_ORDER: Final = re.compile(r">=|<=|>|<")
_BARE: Final = re.compile(r'[^\s()"]+')
_RANGE_PART: Final = re.compile(r'[^\s"\[\]]+')
_PATH: Final = re.compile(r'[^\s()"|]+')
_KEYWORD: Final = re.compile(r"(AND|OR|NOT)(?![^\s()\"])")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ORDERED: Final = {">": Op.GT, ">=": Op.GE, "<": Op.LT, "<=": Op.LE}
_EXACT: Final = {"==": Op.EQ, "!=": Op.NE, "~": Op.CONTAINS, "*=": Op.GLOB}
_LATEST_NS: Final = 2**63 - 1


class Query(msgspec.Struct, frozen=True):
    """What a line means: a filter and the window (start, end] that it names, ``None`` for a side it leaves open."""

    where: Filter = ALL
    start_ns: int | None = None
    end_ns: int | None = None
    summary: Summary | None = None
    """What is asked of the events instead of themselves."""


def parse_query(text: str, *, now_ns: int) -> Query:
    """Read a query line; ``now_ns`` is what ``since:1h`` counts from. Raises :class:`FilterError` and nothing else.

    >>> parse_query("tool:retrieve", now_ns=0).where
    Compare(field='tool', op=<Op.EQ: '='>, value='retrieve')
    >>> parse_query("duration>500ms since:1h", now_ns=7200 * 10**9).start_ns
    3600000000000
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"the line is longer than {MAX_LENGTH} characters", text=text[:80], fix="shorten it")
    return _Parser(text, now_ns).query()


class _Parser:
    """A position in a line, and a method per rule. ``None`` stands for a term that only set the window."""

    def __init__(self, text: str, now_ns: int) -> None:
        self.text = text
        self.now_ns = now_ns
        self.at = 0
        self.depth = 0
        self.window: dict[str, tuple[int, int, int]] = {}

    def query(self) -> Query:
        self._skip()
        where = None if self.at == len(self.text) or self._pipes() else self._any(self._term)
        summary = self._pipe() if self._take("|") else None
        if self.at < len(self.text):
            sign = self.text[self.at]
            fix = "remove it, or open it before" if sign == ")" else "write | count by tenant"
            raise self._fault(f"unexpected {sign}", self.at, self.at + 1, fix=fix)
        start_ns, end_ns = (self.window[name][0] if name in self.window else None for name in ("since", "until"))
        return Query(ALL if where is None else where, start_ns, end_ns, summary)

    def _pipe(self) -> Summary:
        """``pipe := "|" ("count" | function field) ["by" field]``."""
        self._skip()
        start = self.at
        function = self._match(_PATH) or ""
        if function not in FUNCTIONS:
            near = difflib.get_close_matches(function, FUNCTIONS, n=1)
            fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(FUNCTIONS)}"
            raise self._fault("expected a function after |", start, max(self.at, start + 1), fix=fix)
        field = "" if function == "count" else self._path(f"what is the {function} of?")
        self._skip()
        start, by = self.at, ""
        if not self._ends():
            if self._match(_PATH) != "by":
                raise self._fault("expected by", start, max(self.at, start + 1), fix="write | count by tenant")
            by = self._path("by which field?")
        self._skip()
        return Summary(function, field, by)

    def _path(self, question: str) -> str:
        """Read the name of a field."""
        self._skip()
        start = self.at
        phrase = self._phrase()
        written = phrase if phrase is not None else self._match(_PATH)
        if not written:
            raise self._fault(question, start, start, fix="name a field")
        return self._field(written, start, self.at).name

    def _any(self, atom: Callable[[], Filter | None]) -> Filter | None:
        """``any := all ("OR" all)*``."""
        branches = [self._all(atom)]
        while self._keyword("OR"):
            branches.append(self._all(atom))
        if len(branches) == 1:
            return branches[0]
        if self.depth == 0:
            for _, start, end in self.window.values():
                raise self._fault("a window cannot be one side of OR", start, end, fix="put the OR in parentheses")
        return Or(tuple(ALL if branch is None else branch for branch in branches))

    def _all(self, atom: Callable[[], Filter | None]) -> Filter | None:
        """``all := unary (["AND"] unary)*``."""
        parts = [self._unary(atom)]
        while self._keyword("AND") or not (self._ends() or self._sees("OR")):
            parts.append(self._unary(atom))
        terms = [part for part in parts if part is not None]
        if not terms:
            return None
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _unary(self, atom: Callable[[], Filter | None]) -> Filter | None:
        """``unary := ("NOT" | "-") unary | "(" any ")" | atom``."""
        self._skip()
        start = self.at
        if self._ends() or self._sees("AND") or self._sees("OR"):
            raise self._fault("expected a term", start, start + 1 if start < len(self.text) else start)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._fault(f"nested deeper than {MAX_DEPTH}", start, start + 1, fix="flatten the query")
        negated = self._keyword("NOT") or self._take("-")
        if negated:
            part = self._unary(atom)
            result: Filter | None = Not(ALL if part is None else part)
        elif self._take("("):
            result = self._any(atom)
            self._skip()
            if not self._take(")"):
                raise self._fault("( is not closed", start, start + 1, fix="add )")
        else:
            self.depth -= 1
            return atom()
        self.depth -= 1
        return result

    def _term(self) -> Filter | None:
        """``term := name operator value | phrase | word``."""
        start = self.at
        if self._pipes():
            raise self._fault(
                "| stands outside of NOT and parentheses", start, start + 1, fix="move it to the end, or quote it"
            )
        phrase = self._phrase()
        name = phrase if phrase is not None else self._match(NAME)
        operator = self._match(_OPERATOR) if name is not None else None
        if name is not None and operator is not None:
            return self._clause(name, operator, start, self.at - len(operator))
        if phrase is not None:
            return Compare("message", Op.CONTAINS, phrase)
        self.at = start
        word = self._match(_BARE) or ""
        if word == "*":
            return ALL
        if "*" in word:
            return Compare("message", Op.GLOB, f"*{word}*".replace("**", "*"))
        return Compare("message", Op.CONTAINS, word)

    def _clause(self, name: str, operator: str, start: int, name_end: int) -> Filter | None:
        if name in RESERVED and self.text[start] != '"':
            if operator not in {":", "="}:
                raise self._fault(f"{name} takes a colon", start, self.at, fix=f"write {name}:1h")
            self._bound(name, start)
            return None
        field = self._field(name, start, name_end)
        if operator in _EXACT:
            return self._compare(field, _EXACT[operator])
        if operator.lstrip(":") in _ORDERED:
            return self._compare(field, _ORDERED[operator.lstrip(":")])
        return self._values(field)

    def _field(self, written: str, start: int, end: int) -> Field:
        try:
            return field_of(written)
        except FilterError as fault:
            raise self._fault(fault.message, start, end, fix=fault.fix) from fault

    def _values(self, field: Field) -> Filter | None:
        """``values := "(" any ")" | "[" low "TO" high "]" | value``, what may stand after a colon."""
        if self.text.startswith("(", self.at):
            return self._unary(lambda: self._value(field))
        if self._take("["):
            return self._range(field)
        return self._value(field)

    def _value(self, field: Field) -> Filter:
        """``value := (">" | ">=" | "<" | "<=") text | phrase | text``, with ``*`` in an unquoted text."""
        operator = _ORDER.match(self.text, self.at)
        if operator:
            self.at = operator.end()
            return self._compare(field, _ORDERED[operator[0]])
        plain = Op.CONTAINS if field.name == "message" else Op.EQ
        if self.text.startswith('"', self.at):
            return self._compare(field, plain)
        start = self.at
        word = self._match(_BARE) or ""
        self.at = start
        if word == "*":
            self.at += 1
            return self._checked(Compare(field.name, Op.EXISTS), start)
        return self._compare(field, Op.GLOB if "*" in word else plain)

    def _compare(self, field: Field, op: Op) -> Filter:
        """Read one text and compare with it."""
        start = self.at
        phrase = self._phrase()
        text = phrase if phrase is not None else self._match(_BARE)
        if text is None:
            raise self._fault("expected a value", start, start, fix='write one, or "" for the empty text')
        return self._comparison(field, op, text, start)

    def _comparison(self, field: Field, op: Op, text: str, start: int) -> Filter:
        if field.alias == "ts" and op in {*_ORDERED.values(), Op.EQ, Op.NE}:
            return Compare(field.name, op, self._moment(text, start))
        try:
            value: str | int | float | bool = value_of(field, text)
        except FilterError as fault:
            raise self._fault(fault.message, start, self.at, fix=fault.fix) from fault
        if field.name == "error" and text.lower() in {"true", "false"}:
            value = text.lower() == "true"
        if field.name == "severity" and op in {*_ORDERED.values(), Op.EQ, Op.NE}:
            value = text.upper()
        return self._checked(Compare(field.name, op, value), start)

    def _range(self, field: Field) -> Filter:
        opened = self.at - 1
        parts: list[tuple[str, bool, int]] = []
        for last in (False, True):
            self._skip()
            start = self.at
            phrase = self._phrase()
            text = phrase if phrase is not None else self._match(_RANGE_PART)
            parts.append((text or "", phrase is not None, start))
            self._skip()
            if text is None or not self._take("]" if last else "TO"):
                raise self._fault("expected [low TO high]", opened, self.at, fix=f"write {field.name}:[1 TO 5]")
        ends = [
            self._comparison(field, op, text, start)
            for op, (text, quoted, start) in zip((Op.GE, Op.LE), parts, strict=True)
            if quoted or text != "*"
        ]
        if not ends:
            return self._checked(Compare(field.name, Op.EXISTS), opened)
        return ends[0] if len(ends) == 1 else And(tuple(ends))

    def _bound(self, name: str, start: int) -> None:
        value_start = self.at
        phrase = self._phrase()
        text = phrase if phrase is not None else self._match(_BARE)
        if self.depth > 0:
            raise self._fault(f"{name} stands outside of NOT and parentheses", start, self.at, fix="move it out")
        if name in self.window:
            raise self._fault(f"{name} is given twice", start, self.at, fix="keep one")
        self.window[name] = (self._moment(text or "", value_start), start, self.at)

    def _moment(self, text: str, start: int) -> int:
        if text == "now":
            return self.now_ns
        try:
            moment = self._ago(text)
        except (InputError, ValueError, OverflowError) as cause:
            fix = "write 1h, now, or ISO 8601 with a zone"
            raise self._fault(f"{text!r} is no time", start, self.at, fix=fix) from cause
        return min(max(moment, 0), _LATEST_NS)

    def _ago(self, text: str) -> int:
        if re.match(r"[0-9]{4}-", text):
            return parse_time(text)
        return self.now_ns - round(ago_seconds(text) * NANOSECONDS)

    def _checked(self, where: Compare, start: int) -> Compare:
        """Let the filter itself refuse what it cannot compare, and point at it."""
        try:
            compile_filter(where)
        except FilterError as fault:
            raise self._fault(fault.message, start, self.at, fix=fault.fix) from fault
        return where

    def _skip(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match[0]

    def _phrase(self) -> str | None:
        if not self.text.startswith('"', self.at):
            return None
        match = _PHRASE.match(self.text, self.at)
        if match is None:
            raise self._fault("the quote is not closed", self.at, len(self.text), fix='add "')
        self.at = match.end()
        return _ESCAPED.sub(r"\1", match[1])

    def _take(self, sign: str) -> bool:
        found = self.text.startswith(sign, self.at)
        self.at += len(sign) * found
        return found

    def _sees(self, word: str) -> bool:
        self._skip()
        match = _KEYWORD.match(self.text, self.at)
        return match is not None and match[1] == word

    def _keyword(self, word: str) -> bool:
        return self._sees(word) and self._take(word)

    def _ends(self) -> bool:
        self._skip()
        return self.at == len(self.text) or self.text[self.at] == ")" or (self.depth == 0 and self._pipes())

    def _pipes(self) -> bool:
        return self.text.startswith("|", self.at)

    def _fault(self, message: str, start: int, end: int, *, fix: str = "") -> FilterError:
        return FilterError(message, text=self.text, start=start, end=end, fix=fix)
