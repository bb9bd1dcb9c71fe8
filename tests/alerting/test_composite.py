"""What formulas mean: votes, groups, Kleene logic, severity, severe singles, the shared window."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from opsloop.alerting.composite import Context, Level, coincident, evaluate, groups_of, level, truth
from opsloop.alerting.expression import And, AtLeast, Or, StateIs, ids_of
from opsloop.alerting.grammar import parse
from opsloop.verdict import Verdict
from tests.alerting.readings import GROUPS, LETTERS, SECOND, START, breach, fine, reading
from tests.alerting.test_grammar import expressions as any_expressions

NAMES = ("latency", "errors", "saturation", "quality", "retrieval")
verdicts = st.sampled_from(list(Verdict))
healths = st.fixed_dictionaries(dict.fromkeys(NAMES, verdicts))


def context(health, *, severe=(), composites=None):
    """Build a context from {id: verdict}."""
    readings = {name: reading(name, verdict, severe=name in severe) for name, verdict in health.items()}
    return Context(readings, {**GROUPS, "p95": "latency"}, composites or {})


def letters(text):
    """Read ``X0-?`` as the verdicts of NAMES."""
    return context({name: LETTERS[letter] for name, letter in zip(NAMES, text, strict=False)})


@pytest.mark.parametrize(
    ("health", "expected"),
    [("X0000", False), ("XX000", True), ("XXXXX", True), ("X?000", None), ("??000", None), ("0?000", False),
     ("X----", False), ("-----", False), ("X---?", None)],
)  # fmt: skip
def test_at_least_has_three_results(health, expected):
    """True when the votes reach m, unknown when the undecided could carry it, else false; no data never votes."""
    assert truth(parse(f"AT_LEAST(2, BREACH, ({', '.join(NAMES)}))"), letters(health)) is expected


@settings(deadline=None)
@given(health=healths, names=st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=True))
def test_and_and_or_are_the_ends_of_at_least(health, names):
    """Over distinct groups, none INSUFFICIENT: AND equals AT_LEAST(n), OR equals AT_LEAST(1)."""
    assume(Verdict.INSUFFICIENT not in health.values())
    given_, tests = context(health), tuple(StateIs(Verdict.BREACH, name) for name in names)
    assert truth(And(tests), given_) == truth(AtLeast(len(names), Verdict.BREACH, tuple(names)), given_)
    assert truth(Or(tests), given_) == truth(AtLeast(1, Verdict.BREACH, tuple(names)), given_)


@settings(deadline=None)
@given(health=healths, m=st.integers(1, 5), repeats=st.lists(st.sampled_from(NAMES), min_size=1, max_size=9))
def test_at_least_counts_distinct_groups(health, m, repeats):
    """The votes are the number of distinct groups in breach: the definition, however often an id is repeated."""
    votes = len({GROUPS[name] for name in repeats if health[name] is Verdict.BREACH})
    open_ = {GROUPS[name] for name in repeats if health[name] in {Verdict.BREACH, Verdict.INSUFFICIENT}}
    expected = True if votes >= m else None if len(open_) >= m else False
    assert truth(AtLeast(m, Verdict.BREACH, tuple(repeats)), context(health)) is expected


def test_two_percentiles_of_one_latency_are_one_vote():
    """p95 and p99 of one latency never make two signals; latency and errors do."""
    formula = parse("AT_LEAST(2, BREACH, (latency, latency-p99, errors))")
    both = context({"latency": Verdict.BREACH, "latency-p99": Verdict.BREACH, "errors": Verdict.OK})
    assert evaluate(formula, both).verdict is Verdict.OK
    assert evaluate(formula, both).reason == "1 of 2 signals breach in one window, 2 needed"
    two = context({"latency": Verdict.BREACH, "errors": Verdict.BREACH})
    assert evaluate(formula, two).signals == ("latency", "errors")


def test_a_composite_that_is_a_child_cannot_count_a_signal_twice():
    """A composite stands for all the groups under it and merges with each child that shares one."""
    composites = {"slow": parse("BREACH(latency) OR BREACH(saturation)")}
    for order in permutations(["slow", "latency-p99", "errors", "saturation"]):
        votes = groups_of(order, GROUPS, composites)
        assert votes["slow"] == votes["latency-p99"] == votes["saturation"] != votes["errors"]
    formula = parse("AT_LEAST(2, BREACH, (slow, latency))")
    assert truth(formula, context({"latency": Verdict.BREACH}, composites=composites)) is False


@pytest.mark.parametrize(
    ("percent", "breaching", "expected"), [(50, "XX0", True), (50, "X00", False), (34, "XX0", True)]
)
def test_a_share_is_rounded_up(percent, breaching, expected):
    """A percentage is a share of the list's distinct signals, rounded up: 50 % and 34 % of three are two."""
    assert truth(parse(f"AT_LEAST({percent}%, BREACH, (latency, errors, saturation))"), letters(breaching)) is expected


def test_state_tests_are_exact():
    """BREACH(x) is false while x has no data, so NOT BREACH(deploy) holds when no deploy was seen."""
    assert truth(parse("NOT BREACH(deploy) AND NO_DATA(deploy)"), context({})) is True
    assert truth(parse("INSUFFICIENT(latency) AND NOT OK(latency)"), letters("?")) is True


def test_unknown_passes_by_strong_kleene_logic():
    """False AND unknown is false, true OR unknown is true, NOT unknown is unknown."""
    unknown = "AT_LEAST(1, BREACH, (latency))"
    given_ = letters("?")
    outcomes = {text: truth(parse(text), given_) for text in (
        f"FALSE AND {unknown}", f"TRUE AND {unknown}", f"TRUE OR {unknown}", f"FALSE OR {unknown}", f"NOT {unknown}",
    )}  # fmt: skip
    assert list(outcomes.values()) == [False, None, True, None, None]


names = st.sampled_from(NAMES)
votes = st.builds(AtLeast, st.integers(1, 4), st.just(Verdict.BREACH), st.lists(names, min_size=1).map(tuple))
monotone = st.recursive(
    st.builds(StateIs, st.just(Verdict.BREACH), names) | votes,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(expression=monotone, health=healths, extra=names)
def test_one_more_breach_never_unpages(expression, health, extra):
    """Without NOT and OK, turning one more child to BREACH keeps a true formula true."""
    before, after = context(health), context({**health, extra: Verdict.BREACH})
    if truth(expression, before):
        assert truth(expression, after) is True


@settings(deadline=None)
@given(expression=monotone, health=healths, lost=names)
def test_no_data_never_pages(expression, health, lost):
    """Taking a child's data away never makes a formula over breaches true."""
    if not truth(expression, context(health)):
        assert not truth(expression, context({**health, lost: Verdict.NO_DATA}))


@settings(deadline=None)
@given(expression=votes, health=healths, lost=names, severe=st.sets(names))
def test_no_data_never_raises_severity(expression, health, lost, severe):
    """Taking a child's data away leaves the severity of a vote as it was, or lowers it."""
    before = level(expression, context(health, severe=severe))
    after = level(expression, context({**health, lost: Verdict.NO_DATA}, severe=severe))
    assert (after or 0) <= (before or 0)


@settings(deadline=None)
@given(expression=any_expressions, health=healths)
def test_every_formula_has_one_of_three_truths(expression, health):
    """Any tree over any readings is true, false or unknown, and its evaluation agrees with it."""
    given_ = context({name: health.get(name, Verdict.NO_DATA) for name in (*NAMES, *ids_of(expression))})
    found = truth(expression, given_)
    result = evaluate(expression, given_)
    assert found in {True, False, None}
    assert (result.verdict is Verdict.BREACH) is (found is True)


@pytest.mark.parametrize(
    ("text", "severe", "expected"),
    [
        ("BREACH(latency) AND BREACH(errors)", {"latency"}, Level.BREACH),
        ("BREACH(latency) OR BREACH(errors)", {"latency"}, Level.SEVERE),
        ("AT_LEAST(1, BREACH, (latency, errors))", {"latency"}, Level.SEVERE),
        ("AT_LEAST(2, BREACH, (latency, errors))", {"latency"}, Level.BREACH),
        ("AT_LEAST(2, BREACH, (latency, errors))", {"latency", "errors"}, Level.SEVERE),
        ("NO_DATA(quality)", set(), None),
    ],
)
def test_the_severity_algebra(text, severe, expected):
    """AND is the least severe, OR the most, AT_LEAST(m) the m-th most severe; no data has no severity."""
    health = {"latency": Verdict.BREACH, "errors": Verdict.BREACH}
    assert level(parse(text), context(health, severe=severe)) is expected


def test_a_severe_single_pages_alone_and_is_named():
    """One severe breach stands for the votes it lacks; without severe_alone it does not."""
    formula = parse("AT_LEAST(2, BREACH, (latency, errors))")
    given_ = context({"latency": Verdict.BREACH, "errors": Verdict.OK}, severe={"latency"})
    alone = evaluate(formula, given_, severe_alone=True)
    assert (alone.verdict, alone.severe_by, alone.level) == (Verdict.BREACH, "latency", Level.SEVERE)
    assert alone.reason == "severe single, latency pages alone"
    assert evaluate(formula, given_).verdict is Verdict.OK


def test_a_severe_single_does_not_break_through_an_exclusion():
    """What the formula excludes stays excluded, and a severe child under NOT speaks for nothing."""
    formula = parse("AT_LEAST(2, BREACH, (latency, errors)) AND NOT BREACH(quality)")
    held = {"latency": Verdict.BREACH, "quality": Verdict.BREACH}
    assert evaluate(formula, context(held, severe={"latency"}), severe_alone=True).verdict is Verdict.OK
    only = context({"quality": Verdict.BREACH}, severe={"quality"})
    assert evaluate(formula, only, severe_alone=True).verdict is Verdict.OK


def test_false_is_no_recovery_while_a_breaching_signal_is_silent():
    """A signal that was breaching and has no data now leaves the verdict NO_DATA, with its name; others do not."""
    formula = parse("AT_LEAST(2, BREACH, (latency, errors, quality))")
    given_ = context({"latency": Verdict.BREACH, "errors": Verdict.NO_DATA, "quality": Verdict.NO_DATA})
    lost = evaluate(formula, given_, undecided={"errors"})
    assert lost.verdict is Verdict.NO_DATA
    assert lost.reason == "1 of 3 signals breach in one window; breaching before and silent now: errors"
    assert evaluate(formula, given_).verdict is Verdict.OK


def test_breaches_of_different_windows_do_not_add_up():
    """Last hour's latency is absent from this minute's vote, even when both are handed in together."""
    now = START
    old, new = breach("latency", now - 3600 * SECOND), breach("errors", now)
    joined, window = coincident([old, new], now_ns=now)
    assert joined == [new]
    assert window == (now - 60 * SECOND, now)


def test_the_shared_window_is_the_stretch_that_all_votes_cover():
    """Of windows with different lengths and ends the votes share what all cover; who does not vote narrows nothing."""
    now = START
    long, short = breach("quality", now, seconds=3600), breach("latency", now, seconds=60)
    moment, instant = breach("errors", now - 5 * SECOND, seconds=60), fine("saturation", now, seconds=1)
    joined, window = coincident([long, short, moment, instant], now_ns=now)
    assert {one.id for one in joined} == {"quality", "latency", "errors", "saturation"}
    assert window == (now - 60 * SECOND, now - 5 * SECOND)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-40, 5), st.integers(1, 50), st.booleans()), max_size=6))
def test_all_votes_share_time(ends):
    """Whatever is handed in, the breaches that join all cover the shared window, and none is from the future."""
    readings = [
        (breach if bad else fine)(f"s{at}", START + end * SECOND, seconds=long)
        for at, (end, long, bad) in enumerate(ends)
    ]
    joined, (start, end) = coincident(readings, now_ns=START)
    assert all(one.window_end_ns <= START for one in joined)
    for one in joined:
        if one.verdict is Verdict.BREACH:
            assert one.window_start_ns <= start < end <= one.window_end_ns
