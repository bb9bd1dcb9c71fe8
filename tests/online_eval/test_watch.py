"""From stored scores to the drift reading."""

from __future__ import annotations

import pytest

from opsloop.clock import parse_time
from opsloop.online_eval.watch import ScoreRow, observe, reading, watch_for
from opsloop.settings import EvalSettings
from opsloop.verdict import Reading, Verdict

START = parse_time("2026-01-05T09:00:00Z")
SECOND = 10**9


def settings(**changes):
    """Return settings with one scorer, floor .9 and A = 1,000."""
    base = {"scorers": ("groundedness",), "floor": 0.9, "scores_per_false_page": 1000}
    return EvalSettings(**base | changes)


def feed(watch, scores, *, scorer="groundedness", start=0):
    """Observe one score a second; return (watch, the readings at which something changed)."""
    changes = []
    for number, score in enumerate(scores, start):
        row = ScoreRow(number, START + number * SECOND, f"r{number}", scorer, f"{scorer}@1", score)
        watch, change = observe(watch, row)
        changes += [change] if change else []
    return watch, changes


def test_the_reading_of_a_drift():
    """The whole reading: since when, against what, with which evidence, and the mean since then."""
    watch, changes = feed(watch_for(settings()), [1.0] * 5 + [0.2] * 5)
    assert [change.verdict for change in changes] == [Verdict.OK, Verdict.BREACH]
    assert changes[1] == Reading(
        id="drift",
        group="quality",
        verdict=Verdict.BREACH,
        value=pytest.approx(0.2),
        threshold=0.9,
        unit="score",
        n=5,
        window_start_ns=START + 5 * SECOND - 1,
        window_end_ns=START + 9 * SECOND,
        reason="groundedness@1 below its floor 0.9 since 2026-01-05T09:00:05.000Z: evidence 3753 reached 1000"
        " at 2026-01-05T09:00:09.000Z (mean 0.2 of its last 5)",
    )
    assert reading(watch) == changes[1]


def test_it_stays_a_breach_until_it_recovers():
    """The drift holds while scores stay bad, and clears when they are good for long enough."""
    watch, _ = feed(watch_for(settings()), [1.0] * 5 + [0.2] * 30)
    assert reading(watch).verdict is Verdict.BREACH
    watch, changes = feed(watch, [1.0] * 200, start=35)
    assert [change.verdict for change in changes] == [Verdict.OK]
    assert reading(watch).reason.startswith("evidence ")


def test_two_scorers_share_the_promise():
    """Each of two scorers weighs a half, so 1,000 of evidence needs a sum of 2,000; both drifts are named."""
    wanted = settings(scorers=("groundedness", "refusal"))
    watch, changes = feed(watch_for(wanted), [1.0] * 5 + [0.2] * 4)
    assert changes[1:] == []
    watch, changes = feed(watch, [0.2] * 2, start=9)
    assert changes[0].reason.startswith("groundedness@1 below its floor 0.9 since")
    watch, changes = feed(watch, [0.0] * 9, scorer="refusal", start=11)
    assert changes[0].reason.endswith("also refusal@1 (mean 0.2 of its last 6)")
    assert len({change.window_end_ns for change in changes}) == len(changes)


def test_changes_have_distinct_times():
    """Late scores of one moment change the verdict twice: the readings still have two times, and so two ids."""
    watch, first = feed(watch_for(settings()), [1.0] * 5 + [0.0] * 4)
    stuck = START + 8 * SECOND
    changes = []
    for number in range(9, 300):
        watch, change = observe(watch, ScoreRow(number, stuck, "late", "groundedness", "groundedness@1", 1.0))
        changes += [change] if change else []
    assert [change.verdict for change in first + changes] == [Verdict.OK, Verdict.BREACH, Verdict.OK]
    assert changes[0].window_end_ns == first[1].window_end_ns + 1


def test_a_learned_floor_waits_for_its_reference():
    """200 scores of mean .5 lower the floor under .5: no alarm before, none at .5 after, one when it falls."""
    watch, changes = feed(watch_for(settings(baseline="learned")), [0.4, 0.6] * 100)
    assert [change.verdict for change in changes] == [Verdict.INSUFFICIENT]
    assert reading(watch).reason == "200 of 200 reference scores for groundedness@1 (mean 0.5 of its last 50)"
    watch, changes = feed(watch, [0.4, 0.6] * 200, start=200)
    assert [change.verdict for change in changes] == [Verdict.OK]
    floor = watch.detector.strata["groundedness@1"].floor
    assert 0.4 < floor < 0.48
    assert watch.learned == {"groundedness@1": floor}
    watch, changes = feed(watch, [0.1] * 60, start=600)
    assert [change.verdict for change in changes] == [Verdict.BREACH]


def test_a_learned_floor_never_exceeds_the_declared_one():
    """However good the reference was, the declared floor is what was promised."""
    watch, _ = feed(watch_for(settings(baseline="learned", floors={"groundedness": 0.7})), [1.0] * 201)
    assert watch.detector.strata["groundedness@1"].floor == 0.7


def test_no_data_is_not_fine():
    """Before the first score, and an hour after the last, the verdict is NO_DATA; other scorers change nothing."""
    watch = watch_for(settings())
    assert reading(watch, now_ns=START).verdict is Verdict.NO_DATA
    unchanged, changes = feed(watch, [0.0] * 5, scorer="thumbs")
    assert (unchanged, changes) == (watch, [])
    watch, _ = feed(watch, [1.0])
    assert reading(watch, now_ns=START + 3600 * SECOND).verdict is Verdict.OK
    silent = reading(watch, now_ns=START + 3601 * SECOND)
    assert (silent.verdict, silent.value) == (Verdict.NO_DATA, None)
    assert silent.reason == "no answer was scored since 2026-01-05T09:00:00.000Z, when the verdict was OK"
