"""The assertions: promptfoo's vocabulary, without its ways of passing by accident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import ConfigError
from opsloop.improvement.assertions import (
    ASSERTION_TYPES,
    Answer,
    Assertion,
    UnmeasuredError,
    check_assertions,
    judge,
)

TEXT = 'Yes, within 30 days. {"refund": true}'


def passes(output=TEXT, answer=None, **assertion):
    """Judge one assertion over one output."""
    return judge([Assertion(**assertion)], Answer(output=output, **(answer or {}))).passed


@pytest.mark.parametrize(
    ("assertion", "output", "expected"),
    [
        ({"type": "contains", "value": "30 days"}, TEXT, True),
        ({"type": "contains", "value": 30}, TEXT, True),
        ({"type": "contains", "value": "yes"}, TEXT, False),
        ({"type": "icontains", "value": "YES"}, TEXT, True),
        ({"type": "contains-all", "value": "Yes, days"}, TEXT, True),
        ({"type": "contains-all", "value": ["Yes", "weeks"]}, TEXT, False),
        ({"type": "contains-any", "value": "weeks, days"}, TEXT, True),
        ({"type": "contains-any", "value": '"a, b", c'}, "x a, b", True),
        ({"type": "icontains-all", "value": ["YES", "Days"]}, TEXT, True),
        ({"type": "icontains-any", "value": ["weeks", "DAYS"]}, TEXT, True),
        ({"type": "starts-with", "value": "Yes"}, TEXT, True),
        ({"type": "starts-with", "value": "yes"}, TEXT, False),
        ({"type": "equals", "value": "a"}, "a", True),
        ({"type": "equals", "value": {"b": 1, "a": [2]}}, '{"a": [2], "b": 1}', True),
        ({"type": "equals", "value": {"b": 1}}, "not json", False),
        ({"type": "regex", "value": "(?i)YES.*days"}, TEXT, True),
        ({"type": "is-json"}, '{"a": 1}', True),
        ({"type": "is-json"}, '{"a": 1} and more', False),
        ({"type": "contains-json"}, TEXT, True),
        ({"type": "contains-json"}, "a {b} [c]", False),
        ({"type": "contains-json"}, "noise } { [1, 2] {", True),
        ({"type": "is-refusal"}, "I'm sorry, I cannot help with that.", True),
        ({"type": "is-refusal"}, "I\u2019m unable to do this", True),
        ({"type": "is-refusal"}, "", True),
        ({"type": "is-refusal"}, TEXT, False),
        ({"type": "levenshtein", "value": "kitten", "threshold": 3}, "sitting", True),
        ({"type": "levenshtein", "value": "kitten", "threshold": 2}, "sitting", False),
        ({"type": "word-count", "value": 3}, "one two three", True),
        ({"type": "word-count", "value": {"min": 4}}, "one two three", False),
        ({"type": "word-count", "value": {"max": 3}}, "one two three", True),
        ({"type": "not-contains", "value": "weeks"}, TEXT, True),
        ({"type": "not-is-refusal"}, "I cannot do that", False),
    ],
)
def test_each_type(assertion, output, expected):
    """Every type says what promptfoo's says of this output."""
    assert passes(output, **assertion) is expected


def test_measured_numbers():
    """Latency is in milliseconds, cost in dollars, and the limit itself passes."""
    answer = {"duration_us": 1_500_000, "cost_microusd": 2_000, "finish_reason": "stop"}
    assert passes(answer=answer, type="latency", threshold=1500)
    assert not passes(answer=answer, type="latency", threshold=1499.9)
    assert passes(answer=answer, type="cost", threshold=0.002)
    assert not passes(answer=answer, type="cost", threshold=0.0019)
    assert passes(answer=answer, type="finish-reason", value="stop")


@pytest.mark.parametrize("assertion", [{"type": "latency", "threshold": 1}, {"type": "not-cost", "threshold": 1}])
def test_what_was_not_measured_neither_passes_nor_fails(assertion):
    """A missing number is no number: neither the assertion nor its opposite has been checked."""
    with pytest.raises(UnmeasuredError, match="not measured"):
        passes(**assertion)


def test_sets_and_weights():
    """A set passes on its weighted share, a weight of 0 reports and never fails."""
    parts = (Assertion(type="contains", value="Yes", weight=3), Assertion(type="contains", value="No"))
    assert not passes(type="assert-set", parts=parts)
    assert passes(type="assert-set", parts=parts, threshold=0.75)
    assert not passes(type="assert-set", parts=parts, threshold=0.76)
    soft = [Assertion(type="contains", value="No", weight=0), Assertion(type="contains", value="Yes")]
    assert judge(soft, Answer(output=TEXT)).passed


@pytest.mark.parametrize(
    ("assertions", "said"),
    [
        ([], "no assertion"),
        ([Assertion(type="min-length", value=3)], "unknown assertion type 'min-length'"),
        ([Assertion(type="not-not-contains", value="x")], "unknown assertion type"),
        ([Assertion(type="contains", value="")], "empty value"),
        ([Assertion(type="contains")], "empty value"),
        ([Assertion(type="contains-any", value=["a", ""])], "empty text"),
        ([Assertion(type="contains", value="x", weight=0)], "every weight is 0"),
        ([Assertion(type="contains", value="x", weight=-1)], "negative"),
        ([Assertion(type="levenshtein", value="x")], "needs a threshold"),
        ([Assertion(type="is-json", value={})], "takes no value"),
        ([Assertion(type="regex", value="(")], "pattern"),
        ([Assertion(type="word-count", value="ten")], "word-count"),
        ([Assertion(type="assert-set")], "assert[0].assert: no assertion"),
        ([Assertion(type="contains", value="x", parts=(Assertion(type="is-json"),))], "only an assert-set"),
    ],
)
def test_nothing_vacuous_is_accepted(assertions, said):
    """A list that could not fail is refused with the place of the fault, before anything is judged."""
    with pytest.raises(ConfigError) as caught:
        check_assertions(assertions)
    assert said in str(caught.value)


samples = {
    "assert-set": {"parts": (Assertion(type="is-json"),)},
    "contains-json": {},
    "cost": {"threshold": 0.5},
    "is-json": {},
    "is-refusal": {},
    "latency": {"threshold": 100.0},
    "levenshtein": {"value": "abc", "threshold": 2.0},
    "word-count": {"value": 2},
}


@given(st.sampled_from(ASSERTION_TYPES), st.text(max_size=20))
def test_not_is_the_opposite(name, output):
    """For any type and any output exactly one of an assertion and its opposite passes."""
    given_ = {"value": "a"} | samples.get(name, {})
    if name in samples and "value" not in samples[name]:
        del given_["value"]
    answer = Answer(output=output, duration_us=100_000, cost_microusd=7, finish_reason="a")
    plain = judge([Assertion(type=name, **given_)], answer).passed
    assert judge([Assertion(type=f"not-{name}", **given_)], answer).passed is not plain
