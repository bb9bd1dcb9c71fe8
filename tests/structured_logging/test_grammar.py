"""The grammar of docs/query_language.md is the language: the parser accepts what it accepts, and means the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opsloop.clock import parse_time
from opsloop.endpoint import ago_seconds
from opsloop.errors import FilterError, InputError
from opsloop.filter import ALL, And, Compare, Not, Op, Or, compile_filter
from opsloop.structured_logging import Query, parse_query
from opsloop.structured_logging.fields import field_of, value_of
from opsloop.structured_logging.grammar import MAX_DEPTH
from opsloop.structured_logging.summary import Summary

lark = pytest.importorskip("lark", reason="lark is not installed")
PAGE = Path(__file__).parents[2] / "docs/query_language.md"
GRAMMAR = re.search(r"^```lark\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1]
PARSER = lark.Lark(GRAMMAR, parser="lalr", maybe_placeholders=False)
NOW = 10 * 3600 * 10**9
ORDERS = {">": Op.GT, ">=": Op.GE, "<": Op.LT, "<=": Op.LE, "==": Op.EQ, "!=": Op.NE, "~": Op.CONTAINS, "*=": Op.GLOB}
JOINED = {"conjunction", "several", "windowed"}


def text_of(token):
    """Return what a token stands for: a phrase without its quotes."""
    quoted = token.type in {"PHRASE", "QUOTED"}
    return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL) if quoted else str(token)


def moment(text):
    """Return the instant that a text names."""
    try:
        found = NOW if text == "now" else parse_time(text) if re.match(r"[0-9]{4}-", text) else None
        found = NOW - round(ago_seconds(text) * 10**9) if found is None else found
    except (InputError, ValueError, OverflowError):
        raise FilterError("no time") from None
    return min(max(found, 0), 2**63 - 1)


def compare(field, op, text):
    """Return one comparison, with the value that the text means for the field."""
    if op is Op.EXISTS:
        compile_filter(Compare(field.name, op))
        return Compare(field.name, op)
    value = value_of(field, text) if field.alias != "ts" or op in {Op.GLOB, Op.CONTAINS} else moment(text)
    if field.name == "error" and text.lower() in {"true", "false"}:
        value = text.lower() == "true"
    if field.name == "severity" and op not in {Op.GLOB, Op.CONTAINS}:
        value = text.upper()
    compile_filter(Compare(field.name, op, value))
    return Compare(field.name, op, value)


def equals(field, token):
    """Return what a value after a colon means."""
    text, plain = text_of(token), Op.CONTAINS if field.name == "message" else Op.EQ
    if token.type == "PHRASE":
        return compare(field, plain, text)
    if text == "*":
        return compare(field, Op.EXISTS, text)
    return compare(field, Op.GLOB if "*" in text else plain, text)


def message(token):
    """Return what a bare word or phrase means."""
    text = text_of(token)
    if token.type == "PHRASE" or "*" not in text:
        return Compare("message", Op.CONTAINS, text)
    return ALL if text == "*" else Compare("message", Op.GLOB, f"*{text}*".replace("**", "*"))


def joined(tree):
    """Yield the parts of a left-recursive conjunction, the window's aside."""
    parts = []
    while tree.data in JOINED:
        parts += reversed(tree.children[1:])
        tree = tree.children[0]
    return [part for part in (tree, *reversed(parts)) if part.data != "window"]


def meaning(tree, field=None, depth=1):
    """Return the filter of a tree of the grammar."""
    if depth > MAX_DEPTH:
        raise FilterError("too deep")
    children = tree.children
    match tree.data:
        case "disjunction" | "values":
            parts = [meaning(child, field, depth) for child in children]
            return parts[0] if len(parts) == 1 else Or(tuple(parts))
        case "conjunction" | "several" | "windowed":
            parts = [meaning(part, field, depth) for part in joined(tree)]
            return ALL if not parts else parts[0] if len(parts) == 1 else And(tuple(parts))
        case "negation":
            return Not(meaning(children[0], field, depth + 1))
        case "unary" | "value":
            return meaning(children[0], field, depth + 1)
        case "message":
            return message(children[0])
    *names, last = children
    field = field or field_of(text_of(names.pop(0)))
    match tree.data:
        case "exact":
            return compare(field, ORDERS[str(names[0]).lstrip(":")], text_of(last))
        case "equals":
            return equals(field, last)
        case "group":
            return meaning(last, field, depth + 1)
        case "range":
            sides = zip((Op.GE, Op.LE), (names[0], last), strict=True)
            ends = [compare(field, op, text_of(end)) for op, end in sides if end != "*"]
            return compare(field, Op.EXISTS, "") if not ends else ends[0] if len(ends) == 1 else And(tuple(ends))
    raise AssertionError(tree)


def by_the_grammar(line):
    """Return the query that a line means by the grammar; raise :class:`FilterError` for one that it refuses."""
    try:
        tree = PARSER.parse(line)
    except lark.exceptions.UnexpectedInput:
        raise FilterError("no sentence of the grammar") from None
    where, window, summary = ALL, {}, None
    for named in tree.find_data("window"):
        if named.children[0] in window:
            raise FilterError("given twice")
        window[str(named.children[0])] = moment(text_of(named.children[1]))
    for part in tree.children:
        if part.data == "pipe":
            function, *paths = part.children
            names = [field_of(text_of(path)).name if text_of(path) else refuse() for path in paths]
            summary = Summary(str(function), *(["", *names] if function == "count" else names))
        else:
            where = meaning(part)
    return Query(where, window.get("since"), window.get("until"), summary)


def refuse():
    """Refuse the empty name."""
    raise FilterError("no name")


def outcome(parse, line):
    """Return what a parser makes of a line: a query, or ``None`` where it refuses."""
    try:
        return parse(line)
    except FilterError:
        return None


# fmt: off
# fmt: off
names = st.sampled_from(
    ["tool", "duration", "error", "severity", "message", "ts", "score", '"gen ai"', '"a\\"b"', "attributes.tool",
     "größe", "tenat", "since", "until", "AND", "status", '""']
)
operators = st.sampled_from([":", "=", ":", ">", ":>=", "<=", ":<", "!=", "==", "~", "*=", ": ", " :", ":>", "=>"])
values = st.sampled_from(
    ["x", "a*", "*", "500ms", "2s", "1.5m", "true", "error", "5", "-15m", "now", '"a b"', '"*"', '"\\\\"', "", "a:b",
     "NOT", "[1 TO 5]", "[1TO5]", "[* TO *]", '["a"TO 3]', "[1 TO", ">5", ">=", ">=5", "|", "1h",
     "2025-01-01T00:00:00Z", "[x"]
)
clauses = st.builds("{}{}{}".format, names, operators, values)
grouped = st.builds("{}:({})".format, names, st.lists(values | st.sampled_from(["OR", "-"]), max_size=4).map(" ".join))
pipes = st.sampled_from(
    ["| count", "|count by tenant", "| p95 duration by model", '| sum "gen ai" by "b y"', "| p96 x", "| avg",
     "| count by", "| max ts by by", "|", '| min "" by ""', "| p50 durations"]
)
loose = st.sampled_from(
    ["a", "timeout*", "*", '"a b"', "AND", "OR", "NOT", "-", "(", ")", "not", "AND(", "1=2", "a|b", "|x", "since:1h",
     "until:10m", "since>1h", 'until:"now"', "--a", '"', "\\", "[", "\x1c", "\u00a0", "x-y"]
)
good = st.sampled_from(
    ["a", '"a b"', "tool:x", "duration>500ms", "f:[1 TO *]", "f:(a* OR -b)", "ts:>-15m", "score=>=5", "m*=x", "t:*",
     "-a", "NOT a", "a OR b", "(a b)", "since:1h", "(a OR b)", "AND c", "f:(a (b OR >c))", '"q r":x']
)
# fmt: on
# fmt: on
pieces = st.one_of(good, good, good, good, clauses, grouped, loose)
lines = st.builds(
    "{}{}".format,
    st.lists(st.tuples(pieces, st.sampled_from([" ", " ", " ", ""])).map("".join), max_size=6).map("".join),
    st.just("") | st.just("") | pipes,
)


@settings(max_examples=300, deadline=None)
@given(line=lines | st.text(alphabet='ab:=<>!~*"\\()[]-| TOANDR\n', max_size=12))
@example(line="(since:1h)")
@example(line="f== x")
@example(line="f:>= x")
@example(line="f:[1TO 5]")
@example(line="a |b")
@example(line="(a |b)")
@example(line="(" * 39 + "a" + ")" * 39)
@example(line="(" * 40 + "a" + ")" * 40)
@example(line="f:" + "(" * 39 + "a" + ")" * 39)
@example(line="f:" + "(" * 40 + "a" + ")" * 40)
@example(line="a since:1h b | p95 duration by model")
def test_two_parsers_agree(line):
    """Whatever is typed, the parser and the grammar both refuse it, or both give it the same meaning."""
    assert outcome(lambda text: parse_query(text, now_ns=NOW), line) == outcome(by_the_grammar, line)


def test_the_fuzzing_reaches_both_sides():
    """A good part of the drawn lines is accepted and a good part refused, so that agreement says something."""
    accepted = []

    @settings(max_examples=200, database=None, deadline=None)
    @given(line=lines)
    def draw(line):
        accepted.append(outcome(by_the_grammar, line) is not None)

    draw()
    assert 0.1 < sum(accepted) / len(accepted) < 0.9
