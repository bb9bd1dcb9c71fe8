"""Assertions: what must be true of an answer, in promptfoo's deterministic vocabulary.

One registry holds them all. A name with ``not-`` in front means the opposite. Three rules differ from promptfoo, each
because the other way lets a guard pass without having checked anything: an empty list is an error, an unknown type is
an error, and a number that was not measured is an error, not a pass. ``regex`` is Python's.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from opsloop.errors import ConfigError, InputError

__all__ = [
    "ASSERTION_TYPES",
    "Answer",
    "Assertion",
    "Judgement",
    "UnmeasuredError",
    "check_assertions",
    "judge",
]


class UnmeasuredError(InputError):
    """An assertion needs a number that the answer does not carry: nothing was checked."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an application answered, with what was measured beside it."""

    output: str
    duration_us: int | None = None
    cost_microusd: int | None = None
    finish_reason: str = ""


class Assertion(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"parts": "assert"},
):
    """One statement about an answer."""

    type: str
    """One of :data:`ASSERTION_TYPES`, with ``not-`` in front for the opposite."""
    value: Any = None
    threshold: float | None = None
    """latency: milliseconds; cost: US dollars; levenshtein: edits; assert-set: the share of weight that must pass."""
    weight: float = 1.0
    """Its part in a set's score; 0 reports and never fails."""
    metric: str = ""
    """A name for reports."""
    parts: tuple[Assertion, ...] = ()
    """The members of an assert-set; ``assert`` in the file."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """All assertions over one answer."""

    passed: bool
    failed: tuple[int, ...]
    """The positions of those that failed: two failures are the same when they share one."""
    reasons: tuple[str, ...]
    """One sentence for each that failed."""


Check = Callable[[Assertion, Answer], tuple[bool, str]]


def _text(assertion: Assertion) -> str:
    return str(assertion.value)


def _listed(assertion: Assertion) -> list[str]:
    """Return the wanted texts: a list as it is, a text split as one CSV line, as promptfoo does."""
    if isinstance(assertion.value, list | tuple):
        return [str(item) for item in assertion.value]
    return next(csv.reader([_text(assertion)], skipinitialspace=True), [])


def _contains(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    return _text(assertion) in answer.output, f"contain {assertion.value!r}"


def _icontains(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    return _text(assertion).lower() in answer.output.lower(), f"contain {assertion.value!r} in any case"


def _contains_all(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    missing = [item for item in _listed(assertion) if item not in answer.output]
    return not missing, f"contain all of {_listed(assertion)}"


def _contains_any(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    return any(item in answer.output for item in _listed(assertion)), f"contain any of {_listed(assertion)}"


def _icontains_all(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    lower = answer.output.lower()
    return all(item.lower() in lower for item in _listed(assertion)), f"contain all of {_listed(assertion)}"


def _icontains_any(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    lower = answer.output.lower()
    return any(item.lower() in lower for item in _listed(assertion)), f"contain any of {_listed(assertion)}"


def _starts_with(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    return answer.output.startswith(_text(assertion)), f"start with {assertion.value!r}"


def _equals(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    said = f"equal {assertion.value!r}"
    if isinstance(assertion.value, Mapping | list):
        found = _decoded(answer.output)
        return found is not _NOT_JSON and found == assertion.value, said
    return answer.output == _text(assertion), said


def _regex(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    return re.search(_text(assertion), answer.output) is not None, f"match {assertion.value!r}"


_NOT_JSON: Final = object()


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return _NOT_JSON


def _is_json(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    del assertion
    return _decoded(answer.output) is not _NOT_JSON, "be JSON and nothing else"


def _contains_json(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    """Look for an object or array anywhere, from each opening bracket to each closing one, longest first."""
    del assertion
    text = answer.output
    for opening, closing in ("{}", "[]"):
        ends = [match.end() for match in re.finditer(re.escape(closing), text)][::-1][:_MAX_BRACKETS]
        for match in list(re.finditer(re.escape(opening), text))[:_MAX_BRACKETS]:
            if any(end > match.start() and _decoded(text[match.start() : end]) is not _NOT_JSON for end in ends):
                return True, "contain JSON"
    return False, "contain JSON"


_MAX_BRACKETS: Final = 50
_REFUSALS: Final = re.compile(
    r"\b(?:i|we)(?:'m| am|'re| are)? (?:very |really )?(?:sorry|unable|not able|afraid)\b"
    r"|\b(?:i|we) (?:can(?:'t|not| not)|could(?:n't| not)|won't|will not|must decline|do not have|don't have)\b"
    r"|\bas an ai\b|\bagainst my (?:guidelines|programming)\b",
    re.IGNORECASE,
)


def _is_refusal(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    """Take an empty answer for a refusal too, as promptfoo does."""
    del assertion
    text = answer.output.replace("\u2019", "'")
    return not text.strip() or _REFUSALS.search(text) is not None, "be a refusal"


def _levenshtein(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    distance = _edits(_text(assertion), answer.output)
    limit = assertion.threshold or 0
    return distance <= limit, f"be within {limit:g} edits of {assertion.value!r} (it is {distance} away)"


def _edits(left: str, right: str) -> int:
    """Return the edit distance (Levenshtein 1966), one row at a time."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        corner, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


def _word_count(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    n = len(answer.output.split())
    if isinstance(assertion.value, Mapping):
        low, high = assertion.value.get("min", 0), assertion.value.get("max", float("inf"))
        return low <= n <= high, f"have {low} to {high} words (it has {n})"
    return n == assertion.value, f"have {assertion.value} words (it has {n})"


def _latency(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    if answer.duration_us is None:
        raise UnmeasuredError("latency was not measured", fix="give the answer a duration_us")
    limit = assertion.threshold or 0
    return answer.duration_us <= limit * 1000, f"take at most {limit:g} ms (it took {answer.duration_us / 1000:g})"


def _cost(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    if answer.cost_microusd is None:
        raise UnmeasuredError("cost was not measured", fix="give the answer a cost_microusd")
    limit = assertion.threshold or 0
    return answer.cost_microusd <= limit * 1_000_000, f"cost at most {limit:g} USD"


def _finish_reason(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    if not answer.finish_reason:
        raise UnmeasuredError("the finish reason is not known", fix="give the answer a finish_reason")
    return answer.finish_reason == _text(assertion), f"finish by {assertion.value!r} (it was {answer.finish_reason!r})"


def _assert_set(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    outcomes = [(part, _evaluate(part, answer)[0]) for part in assertion.parts]
    if assertion.threshold is None:
        return all(passed or part.weight == 0 for part, passed in outcomes), "pass every part of the set"
    total = sum(part.weight for part, _ in outcomes)
    share = sum(part.weight for part, passed in outcomes if passed) / total
    return share >= assertion.threshold, f"pass {assertion.threshold:g} of the set (it passed {share:.3f})"


_REGISTRY: Final[Mapping[str, Check]] = {
    "assert-set": _assert_set,
    "contains": _contains,
    "contains-all": _contains_all,
    "contains-any": _contains_any,
    "contains-json": _contains_json,
    "cost": _cost,
    "equals": _equals,
    "finish-reason": _finish_reason,
    "icontains": _icontains,
    "icontains-all": _icontains_all,
    "icontains-any": _icontains_any,
    "is-json": _is_json,
    "is-refusal": _is_refusal,
    "latency": _latency,
    "levenshtein": _levenshtein,
    "regex": _regex,
    "starts-with": _starts_with,
    "word-count": _word_count,
}
ASSERTION_TYPES: Final[tuple[str, ...]] = tuple(_REGISTRY)
_WITHOUT_VALUE: Final = frozenset({"assert-set", "contains-json", "cost", "is-json", "is-refusal", "latency"})
_WITH_THRESHOLD: Final = frozenset({"cost", "latency", "levenshtein"})


def check_assertions(assertions: Sequence[Assertion], *, where: str = "assert") -> None:
    """Raise :class:`ConfigError` with the place of the first assertion that could never check anything.

    >>> check_assertions([Assertion(type="min-length", value=3)])
    Traceback (most recent call last):
    ...
    opsloop.errors.ConfigError: assert[0]: unknown assertion type 'min-length'; use one of \
assert-set, contains, contains-all, contains-any, contains-json, cost, equals, finish-reason, icontains, \
icontains-all, icontains-any, is-json, is-refusal, latency, levenshtein, regex, starts-with, word-count
    """
    if not assertions:
        raise ConfigError(f"{where}: no assertion, so nothing would be checked", fix="add at least one")
    if all(assertion.weight == 0 for assertion in assertions):
        raise ConfigError(f"{where}: every weight is 0, so nothing could fail", fix="give one a weight above 0")
    for position, assertion in enumerate(assertions):
        _check(assertion, f"{where}[{position}]")


def _check(assertion: Assertion, place: str) -> None:
    name = assertion.type.removeprefix("not-")
    if name not in _REGISTRY:
        raise ConfigError(f"{place}: unknown assertion type {assertion.type!r}", fix=f"use one of {_types()}")
    if assertion.weight < 0:
        raise ConfigError(f"{place}: weight {assertion.weight:g} is negative", fix="write 0 or more")
    if name == "assert-set":
        check_assertions(assertion.parts, where=f"{place}.assert")
    elif assertion.parts:
        raise ConfigError(f"{place}: only an assert-set has parts", fix="change its type to assert-set")
    if name in _WITH_THRESHOLD and assertion.threshold is None:
        raise ConfigError(f"{place}: {name} needs a threshold", fix="add threshold")
    if name in _WITHOUT_VALUE:
        if assertion.value is not None:
            raise ConfigError(f"{place}: {name} takes no value", fix="remove value")
    elif assertion.value is None or assertion.value in ("", [], {}):
        raise ConfigError(f"{place}: {name} with an empty value checks nothing", fix="write what it looks for")
    if name == "regex":
        _check_pattern(assertion, place)
    if name == "word-count":
        _check_words(assertion.value, place)
    if name.endswith(("-all", "-any")) and not all(_listed(assertion)):
        raise ConfigError(f"{place}: {name} has an empty text in its list", fix="remove it")


def _check_pattern(assertion: Assertion, place: str) -> None:
    try:
        re.compile(_text(assertion))
    except re.error as cause:
        raise ConfigError(f"{place}: {cause} in the pattern {assertion.value!r}", fix="mend the pattern") from cause


def _check_words(value: Any, place: str) -> None:
    numbers = list(value.values()) if isinstance(value, Mapping) else [value]
    names = set(value) if isinstance(value, Mapping) else set()
    if not names <= {"min", "max"} or not all(type(number) is int and number >= 0 for number in numbers):
        raise ConfigError(f"{place}: word-count is {value!r}", fix="write a number, or {min: 5, max: 60}")


def _types() -> str:
    return ", ".join(ASSERTION_TYPES)


def judge(assertions: Sequence[Assertion], answer: Answer) -> Judgement:
    """Return what all assertions say of one answer; it passes when none with a weight fails.

    Raises :class:`ConfigError` for a list that checks nothing and :class:`UnmeasuredError` for a missing number.

    >>> judge([Assertion(type="contains", value="30 days")], Answer(output="There is no refund.")).reasons
    ("the answer does not contain '30 days'",)
    """
    check_assertions(assertions)
    failed: list[int] = []
    reasons: list[str] = []
    for position, assertion in enumerate(assertions):
        passed, reason = _evaluate(assertion, answer)
        if not passed and assertion.weight > 0:
            failed.append(position)
            reasons.append(reason)
    return Judgement(passed=not failed, failed=tuple(failed), reasons=tuple(reasons))


def _evaluate(assertion: Assertion, answer: Answer) -> tuple[bool, str]:
    name = assertion.type.removeprefix("not-")
    passed, said = _REGISTRY[name](assertion, answer)
    if assertion.type != name:
        return not passed, f"the answer must not {said}, and does"
    return passed, f"the answer does not {said}"
