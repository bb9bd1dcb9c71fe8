"""The grammar: what is read, what is printed, and how errors point."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.alerting.expression import And, AtLeast, Constant, Not, Or, StateIs, breach_ids, show
from opsloop.alerting.grammar import START, parse
from opsloop.errors import ConfigError
from opsloop.verdict import Verdict

ids = st.sampled_from(["latency", "p95", "errors", "NOT", "true", "a.b-c_d", "BREACH"])
states = st.sampled_from(list(Verdict))
atoms = st.one_of(
    st.builds(StateIs, states, ids),
    st.builds(Constant, st.booleans()),
    st.builds(
        AtLeast,
        st.integers(1, 100),
        states,
        st.lists(ids, min_size=1, max_size=4).map(tuple),
        percent=st.booleans(),
        negated=st.booleans(),
    ),
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(expressions)
def test_what_is_printed_reads_back_the_same(expression):
    """parse(show(e)) == e for every tree."""
    assert parse(show(expression)) == expression


def test_not_binds_tighter_than_and_and_and_than_or():
    """Precedence is NOT > AND > OR, and parentheses override it."""
    a, b, c = (StateIs(Verdict.BREACH, name) for name in "abc")
    assert parse("NOT BREACH(a) AND BREACH(b) OR BREACH(c)") == Or((And((Not(a), b)), c))
    assert parse("NOT (BREACH(a) AND (BREACH(b) OR BREACH(c)))") == Not(And((a, Or((b, c)))))


def test_cloudwatch_expressions_are_read():
    """ALARM is BREACH, INSUFFICIENT_DATA is NO_DATA or INSUFFICIENT, ids may be quoted, case does not matter."""
    assert show(parse('alarm("a") and not INSUFFICIENT_DATA(b)')) == "BREACH(a) AND NOT (NO_DATA(b) OR INSUFFICIENT(b))"
    assert show(parse("AT_LEAST(50%, NOT OK, (a, b))")) == "AT_LEAST(50%, NOT OK, (a, b))"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"line 1, column 1: found the end, expected {START}"),
        ("BREACH latency", "line 1, column 8: found 'latency', expected '('"),
        ("BREACH(a) AND\n  BROKEN(b)", f"line 2, column 3: found 'BROKEN', expected {START}"),
        ("BREACH(a) BREACH(b)", "line 1, column 11: found 'BREACH', expected AND, OR or the end"),
        ("BREACH(a", "line 1, column 9: found the end, expected ')'"),
        ("BREACH(7)", "line 1, column 8: found '7', expected the id of an objective, an slo or an alert"),
        ("AT_LEAST(x, BREACH, (a))", "line 1, column 10: found 'x', expected a whole number from 1 to 100"),
        ("AT_LEAST(0, BREACH, (a))", "line 1, column 10: found '0', expected a whole number from 1 to 100"),
        ("AT_LEAST(1, BAD, (a))", "line 1, column 13: found 'BAD', expected BREACH, OK, NO_DATA or INSUFFICIENT"),
        ("AT_LEAST(1, BREACH, a)", "line 1, column 21: found 'a', expected '('"),
        ("BREACH(a) & BREACH(b)", "line 1, column 11: found '&', expected AND, OR or the end"),
    ],
)
def test_an_error_names_line_column_found_and_expected(text, message):
    """Every fault is pointed at, with the token that is there and what should be."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" OR ".join(["BREACH(a)"] * 101), "at most 100 children"),
        (" OR ".join(["TRUE"] * 501), "at most 500 elements"),
        ("(" * 60 + "TRUE" + ")" * 60, "at most 50 levels"),
        ("NOT " * 60 + "TRUE", "at most 50 levels"),
    ],
)
def test_a_formula_has_limits(text, message):
    """More than 100 children, 500 elements or 50 levels are refused, whatever form they take."""
    with pytest.raises(ConfigError, match=message):
        parse(text)


@settings(deadline=None)
@given(st.text(alphabet="ABREACHTLSNOD_()%,5 \n\"'ab", max_size=40))
def test_any_text_is_read_or_refused(text):
    """The parser returns a tree that prints and reads back, or raises ConfigError; nothing else comes out of it."""
    try:
        tree = parse(text)
    except ConfigError:
        return
    assert parse(show(tree)) == tree


def test_only_what_speaks_for_the_formula_is_a_vote():
    """A breach under NOT, or one that is counted against, speaks for nothing."""
    text = "AT_LEAST(1, BREACH, (a, b)) AND NOT BREACH(c) AND AT_LEAST(1, NOT BREACH, (d)) AND NOT (NOT BREACH(e))"
    assert breach_ids(parse(text)) == ("a", "b", "e")
