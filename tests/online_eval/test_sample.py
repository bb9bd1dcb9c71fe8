"""Sampling: decided by the id alone, nested, with honest probabilities."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.online_eval import priority_sample, sample_key, sampled, stratum_rates
from opsloop.online_eval.sql import SAMPLE_KEY

GOLDEN = {
    "req-A": 0.5904327009130291,
    "req-B": 0.02208485819775874,
    "req-00000": 0.6675850724025381,
    "größe": 0.9510405644369515,
}
request_ids = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=40)
weights = st.dictionaries(request_ids, st.floats(0.1, 100), max_size=12)


def test_the_key_is_the_published_one():
    """Four ids, one of them not ASCII, have exactly these numbers, here and in every other process."""
    assert {name: sample_key(name) for name in GOLDEN} == GOLDEN


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names=st.sets(request_ids, min_size=1, max_size=20))
def test_sql_has_the_same_key(clickhouse, names):
    """For any ids the SQL form gives the same number, bit for bit."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(Event(ts_ns=1, event="request", request_id=name) for name in names)
    rows = clickhouse.rows(Statement(f"SELECT request_id, {SAMPLE_KEY} FROM events"))
    assert dict(rows) == {name: sample_key(name) for name in names}


@given(name=request_ids, low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_higher_rate_contains_a_lower_one(name, low, high):
    """Who is taken at a rate is taken at every higher rate; nobody at 0, everybody at 1."""
    low, high = sorted((low, high))
    assert sampled(name, low).taken <= sampled(name, high).taken
    assert not sampled(name, 0).taken
    assert sampled(name, 1).taken


def test_a_decision_says_why():
    """The whole decision, for one taken and one left out."""
    taken, left = sampled("req-B", 0.1), sampled("req-A", 0.1)
    assert (taken.taken, taken.probability, taken.reason) == (True, 0.1, "taken: u 0.0221 is below the rate 0.1")
    assert (left.taken, left.reason) == (False, "left out: u 0.5904 is not below the rate 0.1")


@given(of=weights, most=st.integers(0, 12))
def test_priority_sampling_takes_exactly_as_many_as_asked(of, most):
    """It returns min(most, all), each once, with a probability in (0, 1], and 1 when nobody was left out."""
    chosen = priority_sample(of, most)
    assert len({found.request_id for found in chosen}) == len(chosen) == min(most, len(of))
    assert all(0 < found.probability <= 1 for found in chosen)
    if most >= len(of):
        assert all(found.probability == 1 for found in chosen)


@given(of=weights, most=st.integers(1, 12))
def test_equal_weights_are_the_smallest_keys(of, most):
    """With one weight for all it is the bottom-k of u, and the probability is the first u left out."""
    chosen = priority_sample(dict.fromkeys(of, 1.0), most)
    ranked = sorted(of, key=sample_key)
    assert {found.request_id for found in chosen} == set(ranked[:most])
    if most < len(ranked):
        assert chosen[0].probability == pytest.approx(sample_key(ranked[most]))


def test_priority_estimates_are_unbiased():
    """Over 400 disjoint sets of ids the Horvitz-Thompson count of heavy requests is right to 5 %."""
    total = 0.0
    for run in range(400):
        of = {f"run-{run}-{n}": 11.0 if n % 10 == 0 else 1.0 for n in range(50)}
        total += sum(1 / found.probability for found in priority_sample(of, 10) if of[found.request_id] > 1)
    assert total / 400 == pytest.approx(5, rel=0.05)


def test_rates_look_backward_only():
    """The rate is clip(budget / last window's requests, minimum, 1), and a new stratum is scored in full."""
    rates = stratum_rates({"a": 1000, "b": 10, "c": 10**6}, {"a": 100, "b": 50, "c": 5, "new": 5}, minimum=0.01)
    assert rates == {"a": 0.1, "b": 1.0, "c": 0.01, "new": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampled("x", 1.5), "the sampling rate is 1.5; give a share between 0 and 1"),
        (lambda: sampled("x", float("nan")), "the sampling rate is nan; give a share between 0 and 1"),
        (lambda: stratum_rates({}, {}, minimum=-1), "the minimum rate is -1; give a share between 0 and 1"),
        (
            lambda: priority_sample({"x": 0.0}, 1),
            "request 'x' has weight 0.0; give each a positive finite weight",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    """A rate outside [0, 1] and a weight that is not positive are the operator's fault, and are named."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value) == message
