"""The proof: red on the failure, green on the fix, and nothing personal in git."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import ConfigError, InputError
from opsloop.event import Event
from opsloop.improvement import capture, decode_guard, gather_evidence, load_guards, observe, prove, rebuild, run_guard
from opsloop.improvement.assertions import Answer, Assertion
from opsloop.improvement.guard import Case, Proof
from opsloop.improvement.incident import Incident
from opsloop.improvement.proof import sync_guards, write_guard
from opsloop.improvement.redaction import Redactor, find_secrets
from opsloop.stream import MemoryStream

NOW = 1_767_603_600_000_000_000


def incident(question="Can bob@example.org get a refund?", output="No refund for bob@example.org.", **request):
    """Let one request fail, page, and return the incident."""
    attributes = {"input": question, "output": output}
    line = {"request_id": "req-1", "route": "/chat", "error": True, "error_type": "ValueError", **request}
    alert = Event(ts_ns=NOW + 9, event="alert", event_id="a1", attributes={"alert": "x", "severity": "page"})
    stream = MemoryStream([Event(ts_ns=NOW, event="request", attributes=attributes, **line), alert])
    history, events = observe(rebuild([]), gather_evidence(stream, alert), now_ns=alert.ts_ns)
    return history.incidents[events[0].attributes["incident_id"]]


def guard(bad=("There is no refund.",), good=("Yes, within 30 days.",), **assertion):
    """Build a guard from outputs and one assertion."""
    text = "{schema: guard/v1, id: G-1, problem: P-1, input: {vars: {}}, case: {assert: [{type: is-json}]}}"
    proof = Proof(bad=tuple(Answer(output=text) for text in bad), good=tuple(Answer(output=text) for text in good))
    asked = Assertion(**({"type": "contains", "value": "30 days"} | assertion))
    return msgspec.structs.replace(decode_guard(text), case=Case(assertions=(asked,)), proof=proof)


def test_a_guard_is_red_then_green():
    """Proved only when every bad answer fails and every good one passes; otherwise the reason is said."""
    assert prove(guard()).reason == "red on 1 bad, green on 1 good"
    assert prove(guard(bad=("no", "30 days of nothing"))).reason == "bad[1] passes every assertion"
    assert prove(guard(good=("yes",))).reason == "good[0]: the answer does not contain '30 days'"
    assert prove(guard(bad=())).outcome == "incomplete"
    assert prove(guard(good=())).outcome == "incomplete"
    assert (
        prove(guard(type="latency", value=None, threshold=5)).reason
        == "the proof cannot be judged: latency was not measured"
    )


@given(st.text(min_size=1, max_size=20))
def test_an_assertion_that_always_passes_is_toothless(output):
    """Whatever the answers are: a guard made to pass everything is reported by its proof, and an error in the gate."""
    dulled = guard(bad=(output,), good=(output,), type="regex", value="^")
    assert prove(dulled).outcome == "toothless"
    assert run_guard(dulled).verdict == "error"


def test_a_capture_is_a_proposal_from_the_frozen_evidence():
    """The draft knows what must not come back, keeps equal values equal, and holds after redaction."""
    draft = capture(incident(), now_ns=NOW, by="ana", good=["Yes, bob@example.org, within 30 days."])
    assert draft.state == "proposed"
    assert draft.input.vars == {"question": "Can [EMAIL_1] get a refund?"}
    assert draft.case.assertions == (Assertion(type="not-equals", value="No refund for [EMAIL_1]."),)
    assert [answer.output for answer in draft.proof.good] == ["Yes, [EMAIL_1], within 30 days."]
    assert draft.provenance.redaction.tokens == {"EMAIL_1": "email"}
    assert draft.provenance.captured_at == "2026-01-05T09:00:00.000Z"
    assert prove(draft).proved


def test_a_request_without_an_answer_must_answer_at_all():
    """When the failure gave no answer, the guard asks for one."""
    draft = capture(incident(output=None), now_ns=NOW, good=["Yes."])
    assert draft.case.assertions[0].metric == "it answers at all"
    assert prove(draft).proved


def test_nothing_can_be_captured_from_nothing():
    """An incident without evidence says so instead of making an empty guard."""
    bare = incident()
    with pytest.raises(InputError, match="no request with an input"):
        capture(msgspec.structs.replace(bare, evidence={}), now_ns=NOW)
    assert isinstance(bare, Incident)


def test_a_written_guard_is_read_back(tmp_path):
    """The file stands under its problem; writing it twice is once, and another guard is not overwritten."""
    draft = capture(incident(), now_ns=NOW, good=["Yes."], guard_id="G-7")
    path = write_guard(draft, tmp_path)
    assert path == tmp_path / draft.problem / "G-7.guard.yaml"
    assert write_guard(draft, tmp_path) == path
    assert load_guards(tmp_path) == {path: draft}
    with pytest.raises(ConfigError, match="is there already"):
        write_guard(msgspec.structs.replace(draft, title="other"), tmp_path)


def test_a_guard_whose_proof_does_not_hold_is_not_written(tmp_path):
    """Redaction that made good and bad the same text is noticed before the file exists."""
    draft = capture(incident(output="a@example.org"), now_ns=NOW, good=["b@example.org"])
    broken = msgspec.structs.replace(draft, case=Case(assertions=(Assertion(type="contains", value="@"),)))
    with pytest.raises(ConfigError, match="proves nothing"):
        write_guard(broken, tmp_path)
    assert list(tmp_path.rglob("*.yaml")) == []


SECRETS = [
    "sk-live-abcdefghijklmnopqrst",
    "ghp_abcdefghijklmnopqrstuvwxyz123456",
    "AKIAABCDEFGHIJKLMNOP",
    "xoxb-1234567890-abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
    "Bearer abcdefghijklmnop",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_planted_secret_reaches_a_file(tmp_path, secret):
    """A secret in the evidence becomes a token; one added by hand stops the writing."""
    draft = capture(incident(question=f"use {secret} now"), now_ns=NOW, good=["Yes."])
    text = write_guard(draft, tmp_path).read_text()
    assert secret not in text
    assert "[SECRET_1]" in text
    assert not find_secrets(text)
    with pytest.raises(ConfigError, match="holds a secret"):
        write_guard(msgspec.structs.replace(draft, id="G-8", owner=secret), tmp_path)


def test_personal_data_keeps_its_identity():
    """Equal values have equal tokens, different ones different, and ordinary numbers stay."""
    redactor = Redactor()
    text = "a@x.org b@x.org a@x.org, card 4111 1111 1111 1111, call +43 660 123 4567, from 10.0.0.1, 30 days, 4.90 EUR"
    assert redactor.redact(text) == (
        "[EMAIL_1] [EMAIL_2] [EMAIL_1], card [CARD_1], call [PHONE_1], from [IP_1], 30 days, 4.90 EUR"
    )
    assert redactor.redact({"k": ["b@x.org", 7, None]}) == {"k": ["[EMAIL_2]", 7, None]}


def states(records, *guards, **options):
    """Return the states that syncing writes."""
    return [event.attributes["state"] for event in sync_guards(records, guards, now_ns=NOW, **options)]


def test_the_stream_follows_the_files():
    """A guard goes as far as its file asks and its proof allows; a file that is gone retires it."""
    active, dull = guard(), guard(bad=("30 days",))
    proposed = msgspec.structs.replace(active, state="proposed")
    assert states({}, active) == ["proposed", "proved", "active"]
    assert states({}, proposed) == ["proposed", "proved"]
    assert states({}, dull) == ["proposed"]
    records = rebuild(sync_guards({}, [active], now_ns=NOW)).guards
    assert states(records, active) == []
    assert states(records, dull) == ["quarantined"]
    assert states(records, msgspec.structs.replace(active, state="retired")) == ["retired"]
    assert states(records) == ["retired"]
    assert states(records, complete=False) == []
    again = rebuild([*sync_guards({}, [active], now_ns=NOW), *sync_guards(records, [dull], now_ns=NOW + 1)])
    assert again.guards["G-1"].state == "quarantined"
    assert states(again.guards, active) == ["active"]
    assert again.guards["G-1"].state_at(NOW) == "active"
