"""Proof: a guard is trusted because it was red on the failure and is green on the fix.

The assertions must FAIL on every answer that is known to be bad and PASS on every one that is known to be good. The
proof is offline and is done again in every gate run, so a guard that lost its teeth is an error and not a silent pass.

:func:`capture` makes a draft out of an incident's frozen evidence. What it knows for certain is only what must not come
back; a person adds a good answer, sharpens the assertion, and activates it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from opsloop.clock import utc
from opsloop.errors import ConfigError, InputError
from opsloop.event import Event
from opsloop.improvement.assertions import Answer, Assertion, Judgement, UnmeasuredError, judge
from opsloop.improvement.evidence import Evidence, Example, answer_text
from opsloop.improvement.guard import (
    GUARD_SUFFIX,
    GUARD_TRANSITIONS,
    Case,
    Guard,
    GuardInput,
    GuardRecord,
    GuardState,
    Proof,
    Provenance,
    Redaction,
    encode_guard,
    guard_event,
)
from opsloop.improvement.incident import Incident
from opsloop.improvement.redaction import REDACTION_POLICY, Redactor, find_secrets

__all__ = ["ProofResult", "capture", "prove", "sync_guards", "write_guard"]


class ProofResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the proof of one guard says."""

    outcome: Literal["proved", "toothless", "wrong", "incomplete"]
    """toothless: a bad answer passes; wrong: a good one fails; incomplete: there is nothing to prove it by."""
    reason: str
    red: frozenset[int] = frozenset()
    """The positions of the assertions that fail on a bad answer: the failure's own mark."""

    @property
    def proved(self) -> bool:
        """Whether the guard may be trusted."""
        return self.outcome == "proved"


def prove(guard: Guard) -> ProofResult:
    """Return whether a guard is red on every bad answer and green on every good one.

    >>> from opsloop.improvement.guard import decode_guard
    >>> text = "{schema: guard/v1, id: G-1, problem: P-1, input: {vars: {}}, case: {assert: [{type: is-json}]}}"
    >>> prove(decode_guard(text)).reason
    'the proof has no bad answer'
    """
    for name, answers in (("bad", guard.proof.bad), ("good", guard.proof.good)):
        if not answers:
            return ProofResult(outcome="incomplete", reason=f"the proof has no {name} answer")
    try:
        bad = [judge(guard.case.assertions, answer) for answer in guard.proof.bad]
        good = [judge(guard.case.assertions, answer) for answer in guard.proof.good]
    except UnmeasuredError as cause:
        return ProofResult(outcome="incomplete", reason=f"the proof cannot be judged: {cause.message}")
    return _weigh(bad, good)


def _weigh(bad: Sequence[Judgement], good: Sequence[Judgement]) -> ProofResult:
    red = frozenset(position for judgement in bad for position in judgement.failed)
    for position, judgement in enumerate(bad):
        if judgement.passed:
            return ProofResult(outcome="toothless", reason=f"bad[{position}] passes every assertion", red=red)
    for position, judgement in enumerate(good):
        if not judgement.passed:
            return ProofResult(outcome="wrong", reason=f"good[{position}]: {judgement.reasons[0]}", red=red)
    return ProofResult(outcome="proved", reason=f"red on {len(bad)} bad, green on {len(good)} good", red=red)


def capture(
    incident: Incident,
    *,
    now_ns: int,
    by: str = "",
    good: Sequence[str] = (),
    assertions: Sequence[Assertion] = (),
    guard_id: str = "",
) -> Guard:
    """Return a proposed guard for an incident, from the first request of its frozen evidence, redacted.

    Raises :class:`InputError` when the evidence holds no request with an input: nothing could be asked again.
    """
    evidence = msgspec.convert(incident.evidence, Evidence) if incident.evidence else None
    examples = [example for example in evidence.examples if example.input is not None] if evidence else []
    if evidence is None or not examples:
        raise InputError(f"{incident.id} has no request with an input", fix="write the guard by hand")
    example = examples[0]
    bad = _answer(example)
    redactor = Redactor()
    body: dict[str, Any] = redactor.redact(
        {
            "vars": example.input if isinstance(example.input, dict) else {"question": example.input},
            "assert": [msgspec.to_builtins(part) for part in assertions or _must_not_come_back(bad)],
            "bad": [msgspec.to_builtins(bad)],
            "good": [{"output": text} for text in good],
        }
    )
    digest = hashlib.sha256(f"{incident.id}:{example.request_id}".encode()).hexdigest()
    return Guard(
        format="guard/v1",
        id=guard_id or f"G-{digest[:8]}",
        problem=incident.problem_id,
        title=redactor.redact(incident.title),
        state="proposed",
        provenance=Provenance(
            incident=incident.id,
            request_id=example.request_id,
            captured_at=utc(now_ns),
            by=by,
            fingerprint=incident.fingerprint,
            redaction=Redaction(policy=REDACTION_POLICY, tokens=redactor.tokens),
        ),
        input=GuardInput(vars=body["vars"]),
        case=Case(assertions=msgspec.convert(body["assert"], tuple[Assertion, ...])),
        proof=msgspec.convert({"bad": body["bad"], "good": body["good"]}, Proof),
    )


def _answer(example: Example) -> Answer:
    return Answer(
        output=answer_text(example.output),
        duration_us=example.duration_us,
        cost_microusd=example.cost_microusd,
        finish_reason=example.finish_reason,
    )


def _must_not_come_back(bad: Answer) -> list[Assertion]:
    """Return the one statement that the evidence alone supports."""
    if bad.output.strip():
        return [Assertion(type="not-equals", value=bad.output)]
    return [Assertion(type="regex", value=r"\S", metric="it answers at all")]


def write_guard(guard: Guard, folder: str | Path) -> Path:
    """Write ``folder/<problem>/<id>.guard.yaml`` and return its path; an equal file that is there is left alone.

    Raises :class:`ConfigError` when a secret would reach the file, when its proof is complete and does not hold (that
    is how redaction could break it), or when another guard stands there already.
    """
    text = encode_guard(guard)
    secrets = find_secrets(text)
    if secrets:
        raise ConfigError(f"{guard.id} holds a secret ({secrets[0]})", fix="take it out of the input or the answers")
    result = prove(guard)
    if result.outcome in {"toothless", "wrong"}:
        raise ConfigError(f"{guard.id} proves nothing: {result.reason}", fix="sharpen its assertions")
    path = Path(folder) / guard.problem / f"{guard.id}{GUARD_SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as cause:
        if path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"{path} is there already", fix="edit that file, or give another id") from cause
    except OSError as cause:
        raise ConfigError(f"cannot write {path}: {cause.strerror}", fix="check the folder's rights") from cause
    return path


def sync_guards(
    records: Mapping[str, GuardRecord], guards: Sequence[Guard], *, now_ns: int, complete: bool = True
) -> tuple[Event, ...]:
    """Return the ``guard`` events that bring the stream's record up to the files; none when it is up to date.

    A guard goes no further than its proof: one that loses it is quarantined. A file that is gone retires its guard,
    unless ``complete`` is false: then some files could not be read, and nothing follows from their absence.
    """
    events: list[Event] = []
    known = {guard.id: guard for guard in guards}
    for guard in guards:
        record = records.get(guard.id)
        steps = _steps(record.state if record else "", guard)
        done = len(record.steps) if record else 0
        events += [guard_event(guard.id, guard.problem, s, ts_ns=now_ns, step=done + i) for i, s in enumerate(steps)]
    for name, record in sorted(records.items()):
        if complete and name not in known and record.state not in {"", "retired"}:
            events.append(guard_event(name, record.problem_id, "retired", ts_ns=now_ns, step=len(record.steps)))
    return tuple(events)


_PATHS: Mapping[str, tuple[GuardState, ...]] = {
    "proposed": ("proposed", "proved"),
    "active": ("proposed", "proved", "active"),
    "quarantined": ("proposed", "proved", "active", "quarantined"),
    "retired": ("proposed", "retired"),
}


def _steps(state: str, guard: Guard) -> list[GuardState]:
    """Return the transitions from a recorded state towards the one that the file and its proof ask for."""
    path = list(_PATHS[guard.state])
    if not prove(guard).proved and guard.state != "retired":
        path = ["quarantined"] if state in {"active", "quarantined"} else ["proposed"]
    if state in path:
        return path[path.index(state) + 1 :]
    if not state:
        return path
    return [step for step in path[-1:] if step in GUARD_TRANSITIONS[state]]
