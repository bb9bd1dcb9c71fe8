"""The guard file: strict, with lines, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import ConfigError
from opsloop.improvement import decode_guard, encode_guard, guard_schema, load_guards, prove, run_guards
from opsloop.improvement.assertions import Answer, Assertion
from opsloop.improvement.guard import Case, Guard, GuardInput, Invariant, Proof, survey_guards
from opsloop.sim import answer

ROOT = Path(__file__).parents[2]
TEXT = """\
schema: guard/v1
id: G-1
problem: P-1
input:
  vars:
    question: Can I get a refund?
case:
  assert:
    - type: contains
      value: 30 days
proof:
  bad: [{output: There is no refund.}]
  good: [{output: "Yes, within 30 days."}]
"""


def test_the_published_schema_is_current():
    """docs/guard.schema.json is what the code generates, and knows every assertion and its opposite."""
    text = (ROOT / "docs" / "guard.schema.json").read_bytes()
    assert msgspec.json.decode(text) == msgspec.json.decode(msgspec.json.encode(guard_schema()))
    names = guard_schema()["$defs"]["Assertion"]["properties"]["type"]["enum"]
    assert {"contains", "not-contains", "assert-set", "not-is-refusal"} <= set(names)


def test_the_examples_are_proved_and_catch_the_bots_faults():
    """The guards in this repository hold for the simulated bot, and fail when it hallucinates or breaks off."""
    guards = load_guards(ROOT / "guards")
    assert [prove(guard).outcome for guard in guards.values()] == ["proved"] * 4
    assert run_guards(ROOT / "guards", mode=None, target=answer).exit_code == 0

    def failing(fault):
        report = run_guards(
            ROOT / "guards", mode="frozen", target=lambda v: answer(v, fault=fault), baseline=answer, change_id="pr-9"
        )
        return [r.guard_id for r in report.results if (r.verdict, r.baseline_verdict) == ("fail", "pass")]

    assert failing("hallucination_drift") == ["G-refund-window", "G-return-label-price"]
    assert failing("malformed_output") == ["G-whole-answer", "G-return-label-price"]
    assert failing("slow_model") == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("problem: P-1\n", "problem: P-1\nownr: me\n", "g.yaml:4: unknown key 'ownr'"),
        ("      value: 30 days", "      vlaue: 30 days", "g.yaml:10: unknown key 'vlaue'"),
        ("guard/v1", "guard/v2", "g.yaml:1: schema: Invalid enum value 'guard/v2'"),
        ("id: G-1", "id: 1", "g.yaml:2: id: Expected `str`, got `int`"),
        ("type: contains", "type: containz", "g.yaml:8: case.assert[0]: unknown assertion type 'containz'"),
        ("    - type: contains\n      value: 30 days", "    []", "g.yaml:8: case.assert: no assertion"),
        ("problem: P-1", "id: G-2", "g.yaml:3: the key 'id' stands twice"),
        ("question: Can", "question: {Can", "g.yaml:6: not YAML"),
        ("problem: P-1\n", "", "g.yaml:1: Object missing required field `problem`"),
        ("question: Can", "question: !!python/name:os.system Can", "not allowed"),
        ("problem: P-1", "problem: P-1\nextra: {}", "g.yaml:4: unknown key 'extra'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(old, new, said):
    """A typo never turns a guard off: the file, the line and the fault are named."""
    with pytest.raises(ConfigError) as caught:
        decode_guard(TEXT.replace(old, new), name="g.yaml")
    assert said in str(caught.value)


def test_yaml_is_read_as_it_stands():
    """Times, yes and no, and octal-looking texts stay texts; own keys survive under x-."""
    text = TEXT.replace("question: Can I get a refund?", "{a: no, b: 2026-01-05, c: 1_000, d: 12:30:45, e: true, f: 7}")
    guard = decode_guard(text + "x-team: {slack: ops}\n")
    assert guard.input.vars == {"a": "no", "b": "2026-01-05", "c": "1_000", "d": "12:30:45", "e": True, "f": 7}
    assert guard.extra == {"x-team": {"slack": "ops"}}
    assert decode_guard(encode_guard(guard)) == guard


def test_aliases_cannot_blow_up_the_reader():
    """A file whose aliases multiply is refused after a bounded number of parts."""
    layers = "\n".join(f"  a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(8))
    with pytest.raises(ConfigError, match="too deep or too large"):
        decode_guard(f"input:\n  a0: &a0 [x, x]\n{layers}\n")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
assertions = st.lists(
    st.one_of(
        st.builds(Assertion, type=st.sampled_from(["contains", "not-equals", "starts-with"]), value=texts),
        st.builds(Assertion, type=st.just("latency"), threshold=st.floats(0.5, 1e6)),
        st.builds(
            Assertion,
            type=st.just("assert-set"),
            parts=st.just((Assertion(type="is-json", weight=0.5),)),
            threshold=st.sampled_from([None, 0.25]),
        ),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
answers = st.lists(
    st.builds(Answer, output=texts, duration_us=st.none() | st.integers(0, 10**9), finish_reason=texts), max_size=2
).map(tuple)
guards = st.builds(
    Guard,
    format=st.just("guard/v1"),
    id=st.just("G-1"),
    problem=st.just("P-1"),
    title=texts,
    state=st.sampled_from(["proposed", "active", "quarantined", "retired"]),
    input=st.builds(GuardInput, vars=st.dictionaries(texts, values, max_size=3)),
    case=st.builds(Case, assertions=assertions),
    invariant=st.none() | st.builds(Invariant, assertions=assertions),
    proof=st.builds(Proof, bad=answers, good=answers),
)


@given(guards)
def test_what_is_written_is_read_back(guard):
    """Any guard survives its file, whatever its texts look like to YAML."""
    assert decode_guard(encode_guard(guard)) == guard


def test_two_guards_of_one_id_are_refused(tmp_path):
    """Results are known by id, so an id stands for one guard; a survey still shows both and what is wrong elsewhere."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.guard.yaml").write_text(TEXT)
    (tmp_path / "c.guard.yaml").write_text("id: [")
    with pytest.raises(ConfigError, match=r"b\.guard\.yaml: the id 'G-1' is taken"):
        load_guards(tmp_path)
    assert [bool(file.guard) for file in survey_guards(tmp_path)] == [True, True, False]
    assert load_guards(tmp_path / "nowhere") == {}
