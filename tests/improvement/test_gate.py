"""The gate: verdicts that can be believed, exit codes that mean something, and JUnit that CI can read."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
import pytest

from opsloop.clock import seeded
from opsloop.errors import ConfigError
from opsloop.improvement import Answer, decode_guard, junit_xml, load_target, run_guard, run_guards
from opsloop.improvement.guard import encode_guard

TEXT = """\
schema: guard/v1
id: G-1
problem: P-1
input: {vars: {question: refund}}
case:
  assert: [{type: contains, value: 30 days}, {type: word-count, value: {max: 5}}]
provenance: {fingerprint: "fp1:00000000000000aa"}
proof:
  bad: [{output: There is no refund.}]
  good: [{output: within 30 days}]
run: {max_runs: 25}
"""
GUARD = decode_guard(TEXT)


def says(text):
    """Return an application that always gives one answer."""
    return lambda variables: text


def raises(variables):
    """Be an application whose backend is down."""
    raise ConnectionError(f"no backend for {variables['question']}")


def write(folder, *guards):
    """Write guards into a folder."""
    for guard in guards:
        (folder / f"{guard.id}.guard.yaml").write_text(encode_guard(guard))
    return folder


def changed(**fields):
    """Return the guard with some fields changed."""
    return msgspec.structs.replace(GUARD, **fields)


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        ("within 30 days", "pass", "every assertion holds"),
        (Answer(output="within 30 days"), "pass", "every assertion holds"),
        ({"output": "within 30 days", "finish_reason": "stop"}, "pass", "every assertion holds"),
        ("no", "fail", "the answer does not contain '30 days'"),
        ({"out": "x"}, "error", "the application returned no answer: Object contains unknown field `out`"),
        (None, "error", "the application returned no answer: Expected `object`, got `null`"),
    ],
)
def test_a_frozen_run_is_exact(answer, verdict, reason):
    """One run decides; what is no answer is an error, never a pass and never a fail."""
    result = run_guard(GUARD, mode="frozen", target=says(answer))
    assert (result.verdict, result.reason, result.n) == (verdict, reason, 0 if verdict == "error" else 1)


def test_an_application_that_raises_is_an_error():
    """Infrastructure that fails is not a regression: frozen at once, live after a few tries."""
    for mode in ("frozen", "live"):
        result = run_guard(GUARD, mode=mode, target=raises)
        assert result.verdict == "error"
        assert "ConnectionError: no backend for refund" in result.reason


def test_a_failure_is_told_apart_from_the_one_it_guards():
    """The assertion that fails on the bad answers makes it the problem's own; another one makes it foreign."""
    own = run_guard(GUARD, mode="frozen", target=says("no"))
    foreign = run_guard(GUARD, mode="frozen", target=says("within 30 days " * 5))
    assert (own.matches_proof, own.fingerprint) == (True, "fp1:00000000000000aa")
    assert (foreign.matches_proof, foreign.fingerprint == own.fingerprint) == (False, False)


def test_a_live_run_stops_as_soon_as_it_knows():
    """Two straight failures block, five straight passes pass; errors in between are not counted."""
    assert (run_guard(GUARD, mode="live", target=says("no")).n) == 2
    assert (run_guard(GUARD, mode="live", target=says("30 days")).n) == 5
    answers = iter(["30 days", None, "30 days", None, "30 days", "30 days", "30 days"])
    result = run_guard(GUARD, mode="live", target=lambda _: next(answers))
    assert (result.verdict, result.n, result.passes) == ("pass", 5, 5)
    assert result.power == pytest.approx(0.960, abs=5e-4)


def test_a_live_run_may_end_without_knowing():
    """When the allowed runs are used up it is inconclusive, which is neither."""
    few = decode_guard(TEXT.replace("max_runs: 25", "max_runs: 3"))
    result = run_guard(few, mode="live", target=says("30 days"))
    assert (result.verdict, result.n) == ("inconclusive", 3)


def test_an_unchanged_candidate_is_rarely_blocked(tmp_path):
    """A/A: 200 suites of ten guards over an application that is right 99 times of 100 block at most alpha of them."""
    guards = [changed(id=f"G-{n}") for n in range(10)]
    random = seeded(7)
    blocked = 0
    for _ in range(200):
        results = [
            run_guard(
                guard,
                mode="live",
                alpha=0.05 / 10,
                target=lambda _: "30 days" if random.random() < 0.99 else "no",
            )
            for guard in guards
        ]
        blocked += any(result.verdict == "fail" for result in results)
    assert blocked / 200 <= 0.05
    assert run_guards(write(tmp_path, *guards), mode="live", target=says("30 days")).exit_code == 0


TOOTHLESS = decode_guard(TEXT.replace("There is no refund.", "30 days of nothing").replace("G-1", "G-2"))


@pytest.mark.parametrize(
    ("guards", "answer", "strict", "code"),
    [
        ([GUARD], "within 30 days", False, 0),
        ([GUARD], "no", False, 1),
        ([changed(severity="warning")], "no", False, 0),
        ([GUARD, TOOTHLESS], "within 30 days", False, 3),
        ([GUARD, TOOTHLESS], "no", False, 1),
        ([GUARD], None, False, 3),
        ([], "", False, 5),
        ([changed(state="proposed"), changed(id="G-3", state="quarantined")], "no", False, 5),
        ([GUARD, changed(id="G-3", state="retired")], "within 30 days", False, 0),
    ],
)
def test_exit_codes(tmp_path, guards, answer, strict, code):
    """0 pass, 1 confirmed regression, 3 could not evaluate, 5 nothing ran: each means one thing."""
    report = run_guards(write(tmp_path, *guards), mode="frozen", target=says(answer), strict=strict)
    assert report.exit_code == code


def test_inconclusive_blocks_only_when_strict(tmp_path):
    """Not knowing is a warning by default and exit code 4 under strict."""
    few = decode_guard(TEXT.replace("max_runs: 25", "max_runs: 3"))
    for strict, code in ((False, 0), (True, 4)):
        report = run_guards(write(tmp_path, few), mode="live", target=says("30 days"), strict=strict)
        assert report.exit_code == code


def test_an_application_is_needed_and_found():
    """A frozen run without a target, and a target that does not exist, are usage errors with a fix."""
    with pytest.raises(ConfigError, match="needs the application"):
        run_guard(GUARD, mode="frozen")
    assert load_target("opsloop.sim:answer")({"question": "hello"})["finish_reason"] == "stop"
    for name in ("opsloop.nothing:answer", "opsloop.sim:nothing", "opsloop.sim", ":", "opsloop.sim:FAULT_KINDS"):
        with pytest.raises(ConfigError, match="target"):
            load_target(name)


REPORT = """\
FAIL         G-1  frozen    the answer does not contain '30 days' (baseline: pass)
ERROR        G-2  frozen    toothless: bad[0] passes every assertion
SKIPPED      G-4  frozen    it is proposed
pass (info)  G-3  frozen    every assertion holds
4 guards: 1 fail, 1 error, 1 skipped, 1 pass (guard set {})"""


def report(folder):
    """Run one guard of each kind."""
    lenient = msgspec.structs.replace(
        decode_guard(
            TEXT.replace("G-1", "G-3").replace("type: contains, value: 30 days", "type: not-contains, value: refund")
        ),
        severity="info",
    )
    write(folder, GUARD, TOOTHLESS, lenient, changed(id="G-4", state="proposed"))
    return run_guards(folder, mode="frozen", target=says("no"), baseline=says("30 days"), change_id="pr-1")


def test_the_report_says_the_worst_first(tmp_path):
    """One line per guard with the reason, and a summary with the guard set that was used."""
    found = report(tmp_path)
    assert found.text() == REPORT.format(found.guard_set)


def test_junit_knows_failure_from_error(tmp_path):
    """A regression is a failure, what could not be evaluated an error; names are guard ids, reasons are kept."""
    root = ET.fromstring(junit_xml(report(tmp_path)))
    suite = root[0]
    assert suite.attrib == {"name": "guards", "tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    cases = {
        case.get("name"): [(part.tag, part.get("message")) for part in case if part.tag != "properties"]
        for case in suite
    }
    assert cases == {
        "G-1": [("failure", "the answer does not contain '30 days'")],
        "G-2": [("error", "toothless: bad[0] passes every assertion")],
        "G-3": [],
        "G-4": [("skipped", "it is proposed")],
    }
    assert suite[0].get("classname") == "guards.P-1"
    properties = {part.get("name"): part.get("value") for part in suite[0].iter("property")}
    assert properties["verdict"] == "fail"
    assert properties["fingerprint"] == "fp1:00000000000000aa"


def test_gate_events_carry_the_result(tmp_path):
    """One event per guard, with ids that make writing them twice once."""
    found = report(tmp_path)
    events = found.events(ts_ns=5)
    assert [event.event_id for event in events] == [event.event_id for event in found.events(ts_ns=5)]
    assert {
        key: events[0].attributes[key] for key in ("change_id", "guard_id", "verdict", "baseline_verdict", "phase")
    } == {
        "change_id": "pr-1",
        "guard_id": "G-1",
        "verdict": "fail",
        "baseline_verdict": "pass",
        "phase": "result",
    }


def test_what_xml_cannot_hold_is_replaced(tmp_path):
    """A control character in an answer does not make the report unreadable."""
    odd = decode_guard(
        TEXT.replace("value: 30 days", 'value: "30\\u0001 <days>&"').replace("within 30 days", '"30\\u0001 <days>&"')
    )
    found = run_guards(write(tmp_path, odd), mode="frozen", target=says("no"))
    assert "<days>&" in ET.fromstring(junit_xml(found))[0][0].find("failure").get("message")
