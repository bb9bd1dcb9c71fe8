"""Recurrence: whether a page is a problem that we know, and whether it has come back.

Two questions, in this order.

**Which problem?** 1. a person's merge, 2. the same fingerprint, 3. a guard of the problem fails on the new evidence.
Likeness of texts is last and only *suggests*: merging what merely looks alike hides new problems.

**Which relation?** It is a ``repeat`` when the failure was seen after the fix was deployed, in a release that is not
older than the fix, in the order of *deployment*. Late events of the old release join the old episode. When the release
is not known it is a ``suspected_repeat``: visible, never muted.

:func:`observe` turns evidence into events and touches nothing; there is at most one unresolved incident per problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from opsloop.clock import utc
from opsloop.errors import InputError, NotFoundError
from opsloop.event import Event
from opsloop.improvement.assertions import Answer, UnmeasuredError, judge
from opsloop.improvement.evidence import Evidence, Example, Sighting, answer_text
from opsloop.improvement.fingerprint import mask_message
from opsloop.improvement.guard import Guard
from opsloop.improvement.history import History
from opsloop.improvement.incident import (
    INCIDENT_TRANSITIONS,
    Incident,
    IncidentStatus,
    Relation,
    incident_id,
)
from opsloop.improvement.problem import problem_id
from opsloop.improvement.redaction import Redactor

__all__ = ["Match", "advance", "match_problem", "observe", "relate"]

ALIKE: Final = 0.6
"""From this share of common words (Jaccard) two messages of one stage are worth a suggestion."""


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Which problem evidence belongs to."""

    problem_id: str
    by: Literal["alias", "fingerprint", "guard", "similarity", ""]
    """Empty: no known problem, this is its first incident."""
    reason: str


def match_problem(history: History, evidence: Evidence, *, guards: Sequence[Guard] = ()) -> Match:
    """Return the problem of evidence, by the strongest match that there is."""
    own = evidence.fingerprint
    home = problem_id(own)
    for name, problem in sorted(history.problems.items(), key=lambda item: (item[0] != home, item[0])):
        if own in problem.fingerprints:
            root = history.root(name)
            if root != name:
                return Match(problem_id=root, by="alias", reason=f"{name} was merged into {root}")
            return Match(problem_id=name, by="fingerprint", reason=f"the same fingerprint {own}")
    for guard in sorted(guards, key=lambda guard: guard.id):
        if guard.problem in history.problems and guard.state in {"active", "quarantined"}:
            reason = _guard_fails(guard, evidence)
            if reason:
                return Match(problem_id=history.root(guard.problem), by="guard", reason=f"{guard.id} fails: {reason}")
    return _suggest(history, evidence) or Match(problem_id=home, by="", reason="not seen before")


def _guard_fails(guard: Guard, evidence: Evidence) -> str:
    """Return why a guard fails on the evidence; empty when it passes or has nothing to say about it."""
    for example in evidence.examples:
        if example.output is None:
            continue
        assertions = None
        if _same_input(guard, example):
            assertions = guard.case.assertions
        elif guard.invariant is not None and _applies(guard, example):
            assertions = guard.invariant.assertions
        if assertions is None:
            continue
        answer = Answer(
            output=answer_text(example.output),
            duration_us=example.duration_us,
            cost_microusd=example.cost_microusd,
            finish_reason=example.finish_reason,
        )
        try:
            judgement = judge(assertions, answer)
        except UnmeasuredError:
            continue
        if not judgement.passed:
            return judgement.reasons[0]
    return ""


def _same_input(guard: Guard, example: Example) -> bool:
    asked = Redactor().redact(example.input)
    return asked == guard.input.vars or list(guard.input.vars.values()) == [asked]


def _applies(guard: Guard, example: Example) -> bool:
    wanted = guard.invariant.applies_to if guard.invariant else None
    return wanted is not None and wanted.route in ("", example.route) and wanted.stage in ("", example.stage)


def _suggest(history: History, evidence: Evidence) -> Match | None:
    best: tuple[float, str] | None = None
    words = _words(evidence.signature.message)
    for incident in sorted(history.incidents.values(), key=lambda incident: incident.id):
        other: Mapping[str, Any] = incident.evidence.get("signature", {})
        if not words or other.get("stage", "") != evidence.signature.stage:
            continue
        theirs = _words(str(other.get("message", "")))
        likeness = len(words & theirs) / len(words | theirs)
        if likeness >= ALIKE and (best is None or likeness > best[0]):
            best = (likeness, incident.problem_id)
    if best is None:
        return None
    said = f"{best[0]:.2f} of the words are those of {best[1]}"
    return Match(problem_id=history.root(best[1]), by="similarity", reason=said)


def _words(message: str) -> frozenset[str]:
    return frozenset(mask_message(message).lower().split())


def relate(history: History, problem_id: str, evidence: Evidence) -> tuple[Relation, str]:
    """Return the relation of evidence to a problem with no unresolved incident, and the reason in one sentence."""
    real = [incident for incident in history.incidents_of(problem_id) if incident.status != "cancelled"]
    if not real:
        return "new", "no incident of it was real"
    last = real[-1]
    fix_ns = _fixed_at(history, last)
    judged = [_judge_sighting(history, last, fix_ns, seen, evidence) for seen in evidence.sightings]
    for relation in ("repeat", "suspected_repeat", "duplicate"):
        for found, reason in judged:
            if found == relation:
                return found, reason
    return "suspected_repeat", "nobody saw in which release"


def _fixed_at(history: History, last: Incident) -> int | None:
    """Return when the fix first went live; the end of the incident when no release was named for it."""
    fix = history.problems[last.problem_id].fix
    if fix is None:
        return None
    return fix.deployed_at_ns if fix.release else fix.resolved_at_ns


def _judge_sighting(
    history: History, last: Incident, fix_ns: int | None, seen: Sighting, evidence: Evidence
) -> tuple[Relation, str]:
    if fix_ns is None:
        return "suspected_repeat", f"the fix {last.fix_release} was never deployed"
    if seen.last_ns <= fix_ns:
        return "duplicate", f"last seen at {utc(seen.last_ns)}, before the fix at {utc(fix_ns)}"
    if not last.fix_release:
        return "repeat", f"seen at {utc(seen.last_ns)}, after {last.id} was over at {utc(fix_ns)}"
    live_ns = history.deployed_ns(seen.release, service=evidence.signature.service, until_ns=seen.last_ns)
    if not seen.release or live_ns is None:
        return "suspected_repeat", f"the release {seen.release or 'of the failure'} is not among the deploys"
    if live_ns < fix_ns:
        return "duplicate", f"{seen.release} is older than the fix {last.fix_release}"
    return "repeat", f"{seen.release} was deployed with or after the fix {last.fix_release}"


def observe(
    history: History, evidence: Evidence, *, now_ns: int, guards: Sequence[Guard] = ()
) -> tuple[History, tuple[Event, ...]]:
    """Return the history after a page, and the events to write: an incident opened, joined, or nothing when known.

    ``now_ns`` is when it was detected: the page's own time, so that replicas write the same event.
    """
    if evidence.page and any(evidence.page in incident.pages for incident in history.incidents.values()):
        return history, ()
    match = match_problem(history, evidence, guards=guards)
    suspects = ""
    if match.by == "similarity":
        suspects = match.problem_id
        match = Match(problem_id=problem_id(evidence.fingerprint), by="similarity", reason=match.reason)
    past = history.incidents_of(match.problem_id)
    running = history.unresolved(match.problem_id)
    relation: Relation
    if running is not None:
        relation, reason, joined = "duplicate", f"{running.id} is {running.status}", running
    elif not past:
        relation, reason, joined = ("suspected_repeat" if suspects else "new"), match.reason, None
    else:
        relation, reason = relate(history, match.problem_id, evidence)
        joined = past[-1] if relation == "duplicate" else None
    if joined is not None:
        event = _joining(joined, evidence, match, reason, now_ns)
    else:
        episode_no = 1 + max(len(past), max((incident.episode_no for incident in past), default=0))
        event = _opening(
            match,
            evidence,
            relation=relation,
            reason=reason,
            episode_no=episode_no,
            suspects=suspects,
            now_ns=now_ns,
        )
    return history.after((event,)), (event,)


def _opening(
    match: Match,
    evidence: Evidence,
    *,
    relation: Relation,
    reason: str,
    episode_no: int,
    suspects: str,
    now_ns: int,
) -> Event:
    name = incident_id(match.problem_id, episode_no)
    attributes = {
        "incident_id": name,
        "problem_id": match.problem_id,
        "episode_no": episode_no,
        "status": "triage" if relation == "suspected_repeat" else "active",
        "relation": relation,
        "matched_by": match.by,
        "reason": reason,
        "fingerprint": evidence.fingerprint,
        "severity": evidence.severity,
        "title": evidence.title,
        "suspects": suspects,
        "evidence": msgspec.to_builtins(evidence),
    }
    said = relation.replace("_", " ")
    return _event(
        name, "opened", attributes, f"{name} opened ({said}): {evidence.title}", release=evidence.release, ts_ns=now_ns
    )


def _joining(incident: Incident, evidence: Evidence, match: Match, reason: str, now_ns: int) -> Event:
    attributes = {
        **_identity(incident),
        "status": incident.status,
        "relation": "duplicate",
        "matched_by": match.by,
        "reason": reason,
        "fingerprint": evidence.fingerprint,
        "evidence": msgspec.to_builtins(evidence),
    }
    said = f"another page joins {incident.id}: {reason}"
    step = f"joined:{evidence.page or now_ns}"
    return _event(incident.id, step, attributes, said, release=evidence.release, ts_ns=now_ns)


def advance(
    history: History,
    incident_id: str,
    status: IncidentStatus,
    *,
    now_ns: int,
    by: str = "",
    note: str = "",
    fix_release: str = "",
    fix_commit: str = "",
) -> tuple[History, tuple[Event, ...]]:
    """Return the history after a step of an incident, and the event to write; a step that was made already is none.

    ``fix_release`` names the release that carries the fix: from its deployment on the failure is a repeat. It can be
    named after the incident is resolved. Raises :class:`NotFoundError` for an unknown incident,
    :class:`InputError` for a step that its table does not allow.
    """
    incident = history.incidents.get(incident_id)
    if incident is None:
        raise NotFoundError(f"no incident {incident_id!r}", fix="list them with opsloop incident list")
    names_fix = bool(fix_release or fix_commit)
    late_fix = names_fix and status == incident.status == "resolved"
    if incident.status == status and not late_fix:
        return history, ()
    if not late_fix and status not in INCIDENT_TRANSITIONS[incident.status]:
        allowed = ", ".join(sorted(INCIDENT_TRANSITIONS[incident.status])) or "nothing: it is over"
        raise InputError(f"{incident_id} is {incident.status} and cannot be {status}", fix=f"allowed is {allowed}")
    attributes = {**_identity(incident), "status": status, "relation": incident.relation, "by": by}
    attributes |= {"matched_by": incident.matched_by, "fingerprint": incident.fingerprint}
    if names_fix:
        attributes["fix"] = {"release": fix_release, "commit": fix_commit}
    said = f"{incident_id} {status}{f' by {by}' if by else ''}{f': {note}' if note else ''}"
    step = f"fix:{fix_release}:{fix_commit}" if late_fix else status
    event = _event(incident_id, step, attributes, said, release=incident.release, ts_ns=now_ns)
    return history.after((event,)), (event,)


def _identity(incident: Incident) -> dict[str, Any]:
    return {
        "incident_id": incident.id,
        "problem_id": incident.problem_id,
        "episode_no": incident.episode_no,
        "severity": incident.severity,
        "title": incident.title,
    }


def _event(incident_id: str, step: str, attributes: dict[str, Any], message: str, *, release: str, ts_ns: int) -> Event:
    return Event(
        ts_ns=ts_ns,
        event="incident",
        event_id=f"incident:{incident_id}:{step}",
        release=release,
        severity="INFO" if attributes["status"] in {"resolved", "cancelled"} else "WARN",
        message=message,
        attributes=attributes,
    )
