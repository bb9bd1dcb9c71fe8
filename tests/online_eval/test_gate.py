"""The fixed offline gate."""

from __future__ import annotations

import pytest

from opsloop.errors import ConfigError, PayloadError
from opsloop.online_eval import Answer, read_cases, run_gate, scorers_named
from opsloop.verdict import Verdict

SCORERS = scorers_named(["groundedness", "length"])
PAGE = "Refunds arrive within five days."


def case(text, *, contexts=(PAGE,)):
    """Build one case."""
    return Answer(request_id=f"case-{text[:5]}", answer=text, contexts=contexts)


def test_it_passes_and_fails_on_the_mean():
    """A quotation passes; with an invention beside it the mean of (1 + .5) / 2 is under the mark."""
    assert run_gate([case(PAGE)], SCORERS).verdict is Verdict.OK
    report = run_gate([case(PAGE), case("Dragons fly here.")], SCORERS, pass_mark=0.8)
    assert (report.verdict, report.mean) == (Verdict.BREACH, 0.75)
    assert report.reason == "mean 0.75 of 2 cases is below 0.8"
    assert [(found.request_id, found.mean) for found in report.cases] == [("case-Refun", 1.0), ("case-Drago", 0.5)]


def test_what_was_not_scored_does_not_pass():
    """A set without a case is NO_DATA; a case without any score is INSUFFICIENT and is named."""
    assert run_gate([], SCORERS).verdict is Verdict.NO_DATA
    report = run_gate([case(PAGE), case(PAGE, contexts=())], SCORERS[:1])
    assert (report.verdict, report.mean) == (Verdict.INSUFFICIENT, None)
    assert report.reason == "1 of 2 cases have no score, such as case-Refun"
    with pytest.raises(ConfigError, match="a pass mark of 2; give one between 0 and 1"):
        run_gate([case(PAGE)], SCORERS, pass_mark=2)


def test_a_set_is_read_from_json_lines():
    """One object per line, blank lines passed over; a bad line is named by its number."""
    lines = '{"request_id": "c1", "answer": "Five days.", "contexts": ["Five days."]}\n\n{"request_id": "c2"}\n'
    assert read_cases(lines) == [
        Answer(request_id="c1", answer="Five days.", contexts=("Five days.",)),
        Answer(request_id="c2"),
    ]
    with pytest.raises(PayloadError, match=r"line 2: .*request_id.*; write one JSON object per line"):
        read_cases('{"request_id": "c1"}\n{"answer": "x"}')
