"""Hysteresis: a verdict that was in breach stays so until it is clearly over, and nothing flaps in between."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import Measured, judge
from opsloop.dashboard.api import endpoints
from opsloop.dashboard.hysteresis import State, hold, state_of
from opsloop.dashboard.worker import SignalWorker
from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.filter import equals
from opsloop.settings import ObjectiveSettings, Settings, load_settings
from opsloop.verdict import Verdict, reading_event, reading_from_event

ERRORS = ObjectiveSettings(id="errors", group="errors", measure="error_ratio", threshold=0.5, clear=0.25, min_samples=4)
SLOWLY = msgspec.structs.replace(ERRORS, clear_for_seconds=60.0)
GOOD = ObjectiveSettings(
    id="good", group="quality", measure="quality_mean", threshold=0.5, direction="below", clear=0.75, min_samples=1
)
values = st.lists(st.none() | st.sampled_from([0.0, 0.25, 0.26, 0.4, 0.5, 0.51, 0.75, 0.76, 1.0]), max_size=30)


def readings(objective, found, *, every_seconds=15):
    """Judge one value after another, each with the state before it."""
    state, told = None, []
    for turn, value in enumerate(found, 1):
        end_ns = turn * every_seconds * NANOSECONDS
        fresh = judge(Measured(value, 0 if value is None else 10), objective, start_ns=end_ns - 300, end_ns=end_ns)
        told.append(hold(fresh, objective, state))
        assert hold(fresh, objective, state_of(told[-1])) == told[-1] or told[-1].verdict is Verdict.OK
        state = state_of(told[-1])
    return told


def verdicts(objective, found):
    """Return the verdicts by their first letter."""
    return "".join(reading.verdict[0] for reading in readings(objective, found))


@settings(max_examples=60)
@given(found=values, objective=st.sampled_from([ERRORS, GOOD]))
def test_a_verdict_turns_only_across_both_thresholds(found, objective):
    """It is a Schmitt trigger: on beyond the threshold, off at the clear one, unmoved between, deaf to silence."""
    on, expected = False, []
    for value in found:
        if value is not None:
            sign = 1 if objective.direction == "above" else -1
            on = sign * value > sign * objective.threshold or (on and sign * value > sign * objective.clear)
        expected.append("N" if value is None else "B" if on else "O")
    assert verdicts(objective, found) == "".join(expected)


@settings(max_examples=60)
@given(found=values)
def test_without_hysteresis_every_window_speaks_for_itself(found):
    """An objective that sets neither is judged as before, whatever was before."""
    plain = msgspec.structs.replace(ERRORS, clear=None)
    assert not any(reading.held for reading in readings(plain, found))
    known = [value for value in found if value is not None]
    assert verdicts(plain, known) == "".join("B" if value > 0.5 else "O" for value in known)


@settings(max_examples=60)
@given(found=values)
def test_it_is_over_only_after_the_clear_time_without_a_pause(found):
    """From a breach to OK the last readings were all clear, and the first of them a clear time ago."""
    told = readings(SLOWLY, found)
    for turn, (before, after) in enumerate(pairwise(told), 1):
        if (before.held or before.verdict is Verdict.BREACH) and after.verdict is Verdict.OK:
            assert [value is not None and value <= 0.25 for value in found[turn - 4 : turn + 1]] == [True] * 5
            assert before.clear_since_ns == told[turn - 4].window_end_ns


def test_the_clear_time_begins_anew_after_a_rise_and_after_silence():
    """Four clear windows of 15 s make a minute; one in the band or without data in between starts it again."""
    assert verdicts(SLOWLY, [0.6, 0.2, 0.2, 0.2, 0.2, 0.2]) == "BBBBBO"
    assert verdicts(SLOWLY, [0.6, 0.2, 0.2, 0.4, 0.2, 0.2, 0.2, 0.2, 0.2]) == "BBBBBBBBO"
    assert verdicts(SLOWLY, [0.6, 0.2, 0.2, None, 0.2, 0.2, 0.2, 0.2, 0.2]) == "BBBNBBBBO"
    assert verdicts(SLOWLY, [0.4, None, 0.4]) == "ONO"


def test_the_reason_says_why_it_is_still_in_breach():
    """The value was not beyond the threshold: the sentence says what it waits for, and for how long yet."""
    told = readings(SLOWLY, [0.6, 0.4, 0.2, 0.2, None])
    assert [reading.reason.partition("; ")[2] for reading in told] == [
        "",
        "it stays in breach until it is at most 25.0%",
        "it stays in breach until it was at most 25.0% for 1 m, now 0 s",
        "it stays in breach until it was at most 25.0% for 1 m, now 15 s",
        "it was in breach and has not been seen to clear",
    ]


def test_the_state_travels_with_the_event():
    """A held reading comes back from its event whole; one that is not held has the same event as before."""
    held = readings(SLOWLY, [0.6, 0.2])[-1]
    assert reading_from_event(reading_event(held)) == held
    assert "held" not in reading_event(readings(SLOWLY, [0.2])[0]).attributes


def ratio(stream, clock, failing):
    """Advance a minute and add ten requests, some of which failed."""
    clock.advance(seconds=60)
    now_ns = clock.now_ns()
    stream.append(Event(ts_ns=now_ns - k, event="request", error=k < failing) for k in range(10))


def test_worker_page_and_a_restarted_worker_hold_alike(clickhouse, clock):
    """What was written last is the state: the API shows what the worker said, and a new worker goes on from there."""
    objective = msgspec.structs.replace(SLOWLY, window_seconds=60.0)
    watch = Settings(objective=(objective,), slo=())
    shown, explain = endpoints(clickhouse, watch, clock)[::2]
    told = []
    for failing in (6, 4, 2, 2, 4):
        ratio(clickhouse, clock, failing)
        (reading,) = SignalWorker(clickhouse, watch, clock).tick()
        assert shown.handler({}, b"")["readings"] == [reading]
        told.append(reading.verdict)
    assert told == ["BREACH", "BREACH", "BREACH", "OK", "OK"]
    events = clickhouse.query(equals(event="breach"))
    assert [(each.attributes["verdict"], "clear_since_ns" in each.attributes) for each in events] == [
        ("BREACH", False),
        ("BREACH", False),
        ("BREACH", True),
        ("OK", False),
    ]
    text = explain.handler({"id": "errors", "to": str(events[2].ts_ns)}, b"")["text"]
    assert "clears: at most 25.0% for 1 m, once in breach; clear since 2026-01-05T09:03:00.000Z\n" in text


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("threshold = 0.02\nclear = 0.03", "clear = 0.03 is above the threshold 0.02, inside the breach"),
        ('threshold = 0.8\nclear = 0.7\ndirection = "below"', "clear = 0.7 is below the threshold 0.8"),
        ("threshold = 0.02\nclear = nan", "clear is nan, no number to compare with"),
        ("threshold = inf", "threshold is inf, no number to compare with"),
        ("threshold = 0.02\nclear_for_seconds = -1", "clear_for_seconds"),
        ("threshold = 0.02\nabsent_seconds = 0", "absent_seconds"),
        ("threshold = 0.02\nwindow_seconds = nan", "window_seconds"),
        ("threshold = 0.02\nwindow_seconds = inf", "window_seconds needs inf days of events, but only 90 are kept"),
        ("threshold = 0.02\nwindow_seconds = 9e6", "window_seconds needs 104.167 days of events, but only 90 are kept"),
    ],
)
def test_what_cannot_hold_is_refused_at_load(lines, says, tmp_path):
    """A clear threshold on the wrong side, no number, or a window that reaches beyond what is kept."""
    file = tmp_path / "opsloop.toml"
    file.write_text(f'[[objective]]\nid = "errors"\ngroup = "errors"\nmeasure = "error_ratio"\n{lines}\n')
    with pytest.raises(ConfigError, match=says):
        load_settings(file, environ={})


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("period_days = 91", "the period needs 91 days of events, but only 90 are kept"),
        ('calendar = "quarter"', "the period needs 93 days of events, but only 90 are kept"),
        (
            "[[retention]]\nwhen = { event = 'request' }\ndays = 7",
            "needs 30 days of events, but only 7",
        ),
        ('calendar = "month"\nperiod_days = 28', "has both a calendar and period_days"),
        ('calendar = "year"', "calendar"),
        ('calendar = "month"\ntime_zone = "Mars/Olympus"', "'Mars/Olympus' is no time zone"),
        ("threshold = 0", "threshold"),
        ("target = 1", "target"),
        ('sli = "latency"', "needs threshold_us"),
    ],
)
def test_a_budget_that_cannot_be_counted_is_refused_at_load(lines, says, tmp_path):
    """Each sentence names the objective, what is wrong with it, and what to do."""
    file = tmp_path / "opsloop.toml"
    file.write_text(f'[[slo]]\nid = "up"\n{lines}\n')
    with pytest.raises(ConfigError, match=says):
        load_settings(file, environ={})


def test_a_clear_threshold_on_the_threshold_is_no_band():
    """Equal is allowed: it differs from none only in that a value on it is what clears."""
    edge = msgspec.structs.replace(ERRORS, clear=0.5)
    assert verdicts(edge, [0.51, 0.5, 0.51]) == "BOB"
    assert hold(readings(edge, [0.5])[0], edge, State(Verdict.OK)).verdict is Verdict.OK
