"""Post-mortem: what is known about an incident as Markdown, with the gaps that only people can fill left open."""

from __future__ import annotations

import msgspec

from opsloop.clock import utc
from opsloop.improvement.evidence import Evidence
from opsloop.improvement.history import History
from opsloop.improvement.incident import Incident

__all__ = ["postmortem"]

_OPEN = "_To be written._"


def postmortem(incident: Incident, history: History) -> str:
    """Return the post-mortem of an incident: facts filled in, judgement left to people."""
    guards = [record for record in history.guards.values() if record.problem_id == incident.problem_id]
    sections = [
        f"# {incident.id}: {incident.title}",
        _overview(incident),
        f"## What happened\n\n{_what_happened(incident)}",
        f"## Contributing factors\n\n{_OPEN}",
        f"## Resolution\n\n{_resolution(incident)}",
        f"## Impact\n\n{_impact(incident)}",
        "## Timeline\n\n" + "\n".join(f"- {utc(entry.ts_ns)} {entry.text}" for entry in incident.timeline),
        f"## What went well\n\n{_OPEN}",
        f"## What did not go well\n\n{_OPEN}",
        "## Action items\n\n" + _action_items(incident, [record.id for record in guards if record.state == "active"]),
    ]
    return "\n\n".join(sections) + "\n"


def _overview(incident: Incident) -> str:
    lines = [
        f"- Severity: SEV-{incident.severity}",
        f"- Status: {incident.status}",
        f"- Problem: {incident.problem_id}, episode {incident.episode_no}",
        f"- Relation: {incident.relation.replace('_', ' ')} ({incident.reason})",
        f"- Release: {incident.release or 'not known'}",
        f"- Fingerprint: `{incident.fingerprint}`",
    ]
    return "## Overview\n\n" + "\n".join(lines)


def _what_happened(incident: Incident) -> str:
    if not incident.evidence:
        return _OPEN
    evidence = msgspec.convert(incident.evidence, Evidence)
    lines = [f"The alert said: {evidence.reason}" if evidence.reason else "", ""]
    lines += [f"- `{example.request_id}`: {_asked(example.input)}" for example in evidence.examples]
    return "\n".join(lines).strip() or _OPEN


def _asked(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."


def _resolution(incident: Incident) -> str:
    if incident.resolved_ns is None:
        return "Not resolved yet."
    fix = f" Fixed in release {incident.fix_release}." if incident.fix_release else " No release was named as the fix."
    return f"Resolved at {utc(incident.resolved_ns)}.{fix}"


def _impact(incident: Incident) -> str:
    if not incident.evidence:
        return _OPEN
    evidence = msgspec.convert(incident.evidence, Evidence)
    return (
        f"{evidence.failing} requests failed in this way from {utc(evidence.started_ns)} to {utc(evidence.ended_ns)},"
        f" as far as the alert's window shows."
    )


def _action_items(incident: Incident, guards: list[str]) -> str:
    if guards:
        return f"- [x] Guarded by {', '.join(sorted(guards))}"
    return f"- [ ] Add a guard for {incident.problem_id}, so that it cannot come back unseen"
