"""The fixed offline gate: a set of answers that never changes, scored by the same scorers, with a pass mark.

It says whether the service still does what it was tested for. It cannot say whether live traffic still looks like the
test: that is what drift is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from opsloop.errors import ConfigError, PayloadError
from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Score, Scorer
from opsloop.verdict import Verdict

__all__ = ["GateCase", "GateReport", "read_cases", "run_gate"]


class GateCase(msgspec.Struct, frozen=True):
    """One answer of the set with its scores by scorer; ``mean`` is over what was scored, ``None`` without any."""

    request_id: str
    mean: float | None
    scores: dict[str, Score]


class GateReport(msgspec.Struct, frozen=True):
    """The gate's verdict with what it rests on."""

    verdict: Verdict
    """OK or BREACH; INSUFFICIENT when a case has no score, NO_DATA without a case."""
    mean: float | None
    pass_mark: float
    reason: str
    cases: tuple[GateCase, ...]


def run_gate(answers: Iterable[Answer], scorers: Sequence[Scorer], *, pass_mark: float = 0.8) -> GateReport:
    """Score a fixed set and compare the mean over its cases with ``pass_mark``.

    >>> from opsloop.online_eval.scorers import scorers_named
    >>> fixed = [Answer(request_id="case-1", answer="Refunds take five days.", contexts=("Refunds take five days.",))]
    >>> run_gate(fixed, scorers_named(["groundedness"])).reason
    'mean 1.00 of 1 cases is at least 0.8'
    """
    if not 0 <= pass_mark <= 1:
        raise ConfigError(f"a pass mark of {pass_mark}", fix="give one between 0 and 1")
    cases = tuple(_case(answer, scorers) for answer in answers)
    if not cases:
        return GateReport(Verdict.NO_DATA, None, pass_mark, "the set has no case", ())
    means = [case.mean for case in cases if case.mean is not None]
    if len(means) < len(cases):
        silent = next(case.request_id for case in cases if case.mean is None)
        reason = f"{len(cases) - len(means)} of {len(cases)} cases have no score, such as {silent}"
        return GateReport(Verdict.INSUFFICIENT, None, pass_mark, reason, cases)
    mean = sum(means) / len(means)
    passed = mean >= pass_mark
    reason = f"mean {mean:.2f} of {len(cases)} cases is {'at least' if passed else 'below'} {pass_mark:g}"
    return GateReport(Verdict.OK if passed else Verdict.BREACH, mean, pass_mark, reason, cases)


def read_cases(lines: str) -> list[Answer]:
    """Read a fixed set from JSON lines of ``request_id``, ``question``, ``answer``, ``contexts``.

    Raises :class:`PayloadError` with the line's number.

    >>> read_cases('{"request_id": "case-1", "question": "How long?", "answer": "Five days."}')[0].answer
    'Five days.'
    """
    cases = []
    for number, line in enumerate(lines.splitlines(), 1):
        if line.strip():
            try:
                cases.append(msgspec.json.decode(line, type=Answer))
            except msgspec.DecodeError as fault:
                fix = "write one JSON object per line with request_id, question, answer, contexts"
                raise PayloadError(f"line {number}: {fault}", fix=fix) from fault
    return cases


def _case(answer: Answer, scorers: Sequence[Scorer]) -> GateCase:
    scores = {scorer.name: scorer.score(answer) for scorer in scorers}
    values = [score.score for score in scores.values() if score.score is not None]
    return GateCase(answer.request_id, sum(values) / len(values) if values else None, scores)
