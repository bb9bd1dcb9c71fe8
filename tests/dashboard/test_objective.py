"""Objectives: four verdicts, strict edges, reasons with the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import MEASURES, Measured, judge, measure
from opsloop.errors import ConfigError
from opsloop.event import KINDS
from opsloop.settings import DEFAULT_OBJECTIVES, ObjectiveSettings
from opsloop.verdict import Verdict

SLOW = ObjectiveSettings(id="slow", group="latency", measure="latency_us_p95", threshold=1_500_000, severe_factor=4)
GOOD = ObjectiveSettings(
    id="good", group="quality", measure="quality_mean", threshold=0.8, direction="below", severe_factor=2
)


def read(objective, value, n=400, remark=""):
    """Judge a value in five minutes."""
    return judge(Measured(value, n, remark), objective, start_ns=0, end_ns=300 * NANOSECONDS)


@pytest.mark.parametrize(
    ("objective", "value", "n", "verdict", "severe", "reason"),
    [
        (SLOW, None, 0, "NO_DATA", False, "p95 latency: nothing was measured in 5 m"),
        (
            SLOW,
            9e6,
            19,
            "INSUFFICIENT",
            False,
            "p95 latency of 9.00 s over 19 requests in 5 m: too few to judge, 20 are needed",
        ),
        (SLOW, 1.5e6, 20, "OK", False, "p95 latency of 1.50 s over 20 requests in 5 m is not above 1.50 s"),
        (
            SLOW,
            1_500_000.5,
            20,
            "BREACH",
            False,
            "p95 latency of 1500000.5 us over 20 requests in 5 m is above 1500000 us",
        ),
        (SLOW, 6e6, 20, "BREACH", False, "p95 latency of 6.00 s over 20 requests in 5 m is above 1.50 s"),
        (SLOW, 6.1e6, 20, "BREACH", True, "p95 latency of 6.10 s over 20 requests in 5 m is above 1.50 s"),
        (GOOD, 0.8, 50, "OK", False, "mean score of 0.80 over 50 scores in 5 m is not below 0.80"),
        (GOOD, 0.7, 50, "BREACH", False, "mean score of 0.70 over 50 scores in 5 m is below 0.80"),
        (GOOD, 0.39, 50, "BREACH", True, "mean score of 0.39 over 50 scores in 5 m is below 0.80"),
    ],
)
def test_a_value_is_judged_strictly_and_with_its_reason(objective, value, n, verdict, severe, reason):
    """Nothing is NO_DATA, too little INSUFFICIENT, the threshold itself is met, and the reason has the numbers."""
    found = read(objective, value, n)
    assert (found.verdict, found.severe, found.reason) == (verdict, severe, reason)


def test_the_resource_stands_in_the_reason():
    """A remark of the measure, such as the fullest resource, belongs to the reason."""
    full = ObjectiveSettings(id="full", group="saturation", measure="saturation_ratio", threshold=0.8, min_samples=1)
    reason = read(full, 0.9, 3, "queue").reason
    assert reason == "fullest resource of 90.0% over 3 observations in 5 m is above 80.0% (queue)"


def test_an_unknown_measure_names_the_near_ones():
    """A misspelt measure is refused with what was probably meant, a strange one with the whole list."""
    with pytest.raises(ConfigError, match=r"no measure 'latency_p95'; did you mean .*latency_us_p95"):
        measure("latency_p95")
    with pytest.raises(ConfigError, match=r"use one of cost_microusd_per_request, .*upstream_429_ratio"):
        measure("zzz")


def test_every_measure_names_the_events_that_it_counts():
    """What was last known of it is looked for at these kinds of event, so none may be without."""
    assert {name: what.kinds for name, what in MEASURES.items() if not set(what.kinds) <= set(KINDS)} == {}
    assert all(what.kinds for what in MEASURES.values())


def test_the_default_objectives_can_be_measured():
    """Every default objective names a measure that exists."""
    assert {objective.measure for objective in DEFAULT_OBJECTIVES} <= set(MEASURES)


@given(value=st.floats(0, 1e9), threshold=st.floats(0, 1e9))
def test_above_and_below_are_never_both_breached(value, threshold):
    """On one threshold a value breaches upward, or downward, or, exactly on it, neither."""
    above = ObjectiveSettings(id="a", group="cost", measure="error_ratio", threshold=threshold)
    below = ObjectiveSettings(id="b", group="cost", measure="error_ratio", threshold=threshold, direction="below")
    breaches = [read(each, value).verdict is Verdict.BREACH for each in (above, below)]
    assert sum(breaches) == (value != threshold)
