"""The detector: golden vectors, the promise, onset, recovery, and the SQL twin bit for bit."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import seeded
from opsloop.errors import ConfigError, InputError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.online_eval import Detector, declare, update
from opsloop.online_eval.drift import bets, clearing_bets
from opsloop.online_eval.sql import evidence_statement

NEVER = 1e300
score_lists = st.lists(st.floats(0, 1), max_size=40)


def run(scores, *, floor=0.9, limit=NEVER, strata=None, **more):
    """Feed scores, numbered from 0, and return (detector, decisions)."""
    detector, decisions = Detector(floor=floor, scores_per_false_page=limit, **more), []
    for number, score in enumerate(scores):
        stratum = strata[number % len(strata)] if strata else ""
        detector, decision = update(detector, score, number, stratum=stratum)
        decisions.append(decision)
    return detector, decisions


def test_golden_vector():
    """m0 = .9 and scores 1, .5, 0, .9 give these four values of E."""
    _, decisions = run([1, 0.5, 0, 0.9])
    wanted = [0.77587890625, 3.0288558959960934, 14.835853017568589, 15.835853017568589]
    assert [decision.evidence for decision in decisions] == pytest.approx(wanted, rel=1e-14)


def test_five_bad_answers_are_drift_at_a_thousand():
    """After five 1.0, five .2 give 7.59, 23.28, 102.1, 579.9, 3753: an alarm on the fifth, since the first of them."""
    _, decisions = run([1] * 5 + [0.2] * 5, limit=1000)
    assert [round(d.evidence, 2) for d in decisions[5:]] == [7.59, 23.28, 102.11, 579.9, 3753.09]
    assert [d.alarm for d in decisions] == [False] * 9 + [True]
    assert decisions[-1].onset == 5
    assert decisions[-1].reason == "evidence 3753 reached 1000, most of it since 5"


@pytest.mark.parametrize(("score", "needed"), [(0.2, (3, 5, 6)), (0.5, (4, 6, 8)), (0.7, (6, 9, 11))])
def test_bad_answers_needed(score, needed):
    """After five healthy ones, A = 100, 1,000 and 10,000 need so many bad answers at floor .9."""
    for limit, count in zip((1e2, 1e3, 1e4), needed, strict=True):
        _, decisions = run([1] * 5 + [score] * count, limit=limit)
        assert [d.alarm for d in decisions] == [False] * (4 + count) + [True]


def test_a_lower_floor_needs_more():
    """With floor .8 the same ten scores end at 172: an alarm at A = 100 would need no more than these."""
    _, decisions = run([1] * 5 + [0.2] * 5, floor=0.8)
    assert round(decisions[-1].evidence) == 172


@given(scores=score_lists, floor=st.floats(0, 0.99))
def test_state_is_pure_and_bounded(scores, floor):
    """Every factor is at least .1, so sums stay positive and finite; the same scores give the same state."""
    detector, _ = run(scores, floor=floor)
    assert detector == run(scores, floor=floor)[0]
    for stratum in detector.strata.values():
        assert all(math.isfinite(value) and value > 0 for value in stratum.sums)
    assert all(1 + size * (floor - 1) >= 0.1 - 1e-9 for size in bets(floor))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    scores=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 1)), min_size=1, max_size=60),
    floor=st.floats(0, 0.99),
)
def test_sql_folds_to_the_same_bits(clickhouse, scores, floor):
    """For any scores, floor and strata, arrayFold gives exactly the evidence of the definition."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    detector = Detector(floor=floor, scores_per_false_page=NEVER)
    events = []
    for number, (stratum, score) in enumerate(scores):
        detector, _ = update(detector, score, number, stratum=stratum)
        attributes = {"scorer": "s", "status": "scored", "score": score, "stratum": stratum}
        events.append(Event(ts_ns=100 - number, event="score", attributes=attributes))
    clickhouse.append(events)
    rows = clickhouse.rows(evidence_statement(scorer="s", floor=floor, start_ns=0, end_ns=100))
    assert rows == [(name, s.n, s.evidence) for name, s in sorted(detector.strata.items())]


def test_sql_stays_equal_over_a_long_stream(clickhouse):
    """After 5,000 seeded scores around the floor both forms still agree in every bit."""
    dice = seeded("long")
    scores = [float(dice.random() < 0.9) for _ in range(5000)]
    detector, _ = run(scores, strata=["s@1"])
    clickhouse.append(
        Event(ts_ns=1 + n, event="score", attributes={"scorer": "s", "status": "scored", "score": x, "stratum": "s@1"})
        for n, x in enumerate(scores)
    )
    rows = clickhouse.rows(evidence_statement(scorer="s", floor=0.9, start_ns=0, end_ns=5001))
    assert rows == [("s@1", 5000, detector.strata["s@1"].evidence)]


@pytest.mark.parametrize("strata", [["one"], ["a", "b", "c", "d", "e"]])
def test_false_alarms_keep_the_promise(strata):
    """At the very floor, pass/fail scores alarm at most once per A = 200 on average, however many strata are summed."""
    dice = seeded("healthy")
    scores = [float(dice.random() < 0.9) for _ in range(20_000)]
    detector, alarms = Detector(floor=0.9, scores_per_false_page=200), 0
    for number, score in enumerate(scores):
        detector, decision = update(detector, score, number, stratum=strata[number % len(strata)])
        if decision.alarm:
            alarms += 1
            detector = Detector(floor=0.9, scores_per_false_page=200)
    assert alarms <= 20_000 / 200


def test_an_alarm_names_its_stratum_and_resets_the_others():
    """The stratum with most evidence drifts; all others start anew, so that the whole promise holds again."""
    detector = declare(Detector(floor=0.9, scores_per_false_page=1000), "good")
    detector = declare(detector, "bad", floor=0.8)
    for number in range(40):
        detector, _ = update(detector, 1.0, number, stratum="good")
        detector, decision = update(detector, 0.1, number, stratum="bad")
        if decision.alarm:
            break
    assert (decision.stratum, detector.drifted, detector.evidence) == ("bad", ("bad",), 0.0)
    assert detector.strata["good"].n == decision.onset + number + 1


def test_weights_share_one_answer():
    """Two scorers of weight a half on the same answers gather what one of weight one does."""
    single, _ = run([1, 0.5, 0.2])
    double = Detector(floor=0.9, scores_per_false_page=NEVER)
    for name in ("a", "b"):
        double = declare(double, name, weight=0.5)
        for number, score in enumerate([1, 0.5, 0.2]):
            double, _ = update(double, score, number, stratum=name)
    assert double.evidence == single.evidence


def test_it_recovers_when_the_service_does():
    """Back at .95 it clears in about a hundred scores; the detector then starts from nothing."""
    dice = seeded("recovery")
    detector, _ = run([0.0] * 10, limit=1000)
    assert detector.drifted == ("",)
    for number in range(10, 2000):
        detector, decision = update(detector, float(dice.random() < 0.97), number)
        if decision.cleared:
            break
    assert decision.cleared
    assert 40 < number < 400
    assert (detector.drifted, detector.evidence) == ((), 0.0)


def test_it_does_not_clear_while_still_bad():
    """At a mean of .7 against a floor of .9 none of 4,000 scores clears it."""
    dice = seeded("still bad")
    _, decisions = run([0.0] * 10 + [float(dice.random() < 0.7) for _ in range(4000)], limit=1000)
    assert not any(decision.cleared for decision in decisions)
    assert decisions[-1].reason.startswith("still in drift: evidence of recovery")


def test_clearing_bets_reflect():
    """The sizes are 0.9 / m0 / 2^(k-1), so that every factor stays at least .1 for a score of 0."""
    assert clearing_bets(0.9) == tuple(0.9 / 0.9 * 2.0**-k for k in range(8))
    assert min(1 - size * 0.9 for size in clearing_bets(0.9)) == pytest.approx(0.1)


def test_onset_is_near_the_truth():
    """For a fall from .95 to .5 at the 300th pass/fail score the onset lies within 10 of it."""
    dice = seeded("onset")
    scores = [float(dice.random() < (0.95 if n < 300 else 0.5)) for n in range(400)]
    _, decisions = run(scores, limit=10_000)
    (alarm,) = [decision for decision in decisions if decision.alarm]
    assert abs(alarm.onset - 300) <= 10


def test_what_is_no_score_is_refused():
    """NaN is no score, a floor above .99 leaves no room to bet; a score outside [0, 1] is clipped."""
    with pytest.raises(InputError, match="a score of NaN; leave an answer without a score unscored"):
        run([math.nan])
    with pytest.raises(ConfigError, match=r"a drift floor of 1.0 is not in \[0, 0.99\]"):
        run([1.0], floor=1.0)
    assert run([2.0, -1.0])[0] == run([1.0, 0.0])[0]
