"""History: all problems, incidents, guards and deploys, folded out of the stream.

There is no second store. The events are sorted into one canonical order, repeated ones are dropped, and everything is
worked out anew; so any order of arrival gives the same history, and a replica that starts now knows what the others do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from opsloop.event import Event, encode_event
from opsloop.improvement.guard import GuardRecord, guard_record_from_events
from opsloop.improvement.incident import Incident, incident_from_events
from opsloop.improvement.problem import PROBLEM_TRANSITIONS, Fix, Problem, ProblemState

__all__ = ["HISTORY_KINDS", "Deploy", "History", "canonical", "rebuild"]

HISTORY_KINDS: Final = ("incident", "problem", "guard", "gate", "deploy")
"""The kinds of events that the history is made of."""


class Deploy(msgspec.Struct, frozen=True, kw_only=True):
    """A release went live."""

    ts_ns: int
    service: str
    release: str
    change_id: str = ""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Everything this room knows, at the time of its newest event."""

    problems: dict[str, Problem] = {}
    incidents: dict[str, Incident] = {}
    guards: dict[str, GuardRecord] = {}
    deploys: tuple[Deploy, ...] = ()
    events: tuple[Event, ...] = ()
    """What it was folded from, in canonical order."""

    def root(self, problem_id: str) -> str:
        """Return the problem that this one was merged into in the end, itself if into none."""
        seen = {problem_id}
        while (problem := self.problems.get(problem_id)) and problem.merged_into and problem.merged_into not in seen:
            problem_id = problem.merged_into
            seen.add(problem_id)
        return problem_id

    def incidents_of(self, problem_id: str) -> list[Incident]:
        """Return the incidents of a problem and of what was merged into it, oldest first."""
        root = self.root(problem_id)
        found = [incident for incident in self.incidents.values() if self.root(incident.problem_id) == root]
        return sorted(found, key=lambda incident: (incident.detected_ns, incident.episode_no, incident.id))

    def unresolved(self, problem_id: str) -> Incident | None:
        """Return the one incident of a problem that is not over."""
        return next((incident for incident in self.incidents_of(problem_id) if not incident.over), None)

    def fingerprints_of(self, problem_id: str) -> frozenset[str]:
        """Return all fingerprints of a problem and of what was merged into it."""
        root = self.root(problem_id)
        return frozenset(
            name for problem in self.problems.values() if self.root(problem.id) == root for name in problem.fingerprints
        )

    def deployed_ns(self, release: str, *, service: str = "", until_ns: int | None = None) -> int | None:
        """Return when a release last went live, up to ``until_ns``; ``None`` when it never did."""
        times = [
            deploy.ts_ns
            for deploy in self.deploys
            if deploy.release == release
            and (not service or not deploy.service or deploy.service == service)
            and (until_ns is None or deploy.ts_ns <= until_ns)
        ]
        return max(times, default=None)

    def after(self, events: Iterable[Event]) -> History:
        """Return the history with more events."""
        return rebuild((*self.events, *events))


def canonical(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events in the one order that does not depend on how they arrived, each identified one once.

    Of two events with one id the first in that order is kept, as a store would keep one.
    """
    unique: dict[str | bytes, Event] = {}
    for event in sorted(events, key=lambda event: (event.ts_ns, event.event_id, encode_event(event))):
        unique.setdefault(event.event_id or encode_event(event), event)
    return tuple(unique.values())


def rebuild(events: Iterable[Event]) -> History:
    """Fold a stream into the history; events of other rooms are passed over.

    >>> from opsloop.event import Event
    >>> rebuild([Event(ts_ns=5, event="deploy", release="r2")]).deployed_ns("r2")
    5
    """
    ordered = canonical(event for event in events if event.event in HISTORY_KINDS)
    incidents = {
        name: incident_from_events(group) for name, group in _grouped(ordered, "incident", "incident_id").items()
    }
    guards = {name: guard_record_from_events(group) for name, group in _grouped(ordered, "guard", "guard_id").items()}
    deploys = tuple(
        Deploy(
            ts_ns=event.ts_ns,
            service=event.service,
            release=event.release,
            change_id=str(event.attributes.get("change_id", "")),
        )
        for event in ordered
        if event.event == "deploy"
    )
    bare = History(incidents=incidents, guards=guards, deploys=deploys, events=ordered)
    decisions = _grouped(ordered, "problem", "problem_id")
    problems: dict[str, Problem] = {}
    members: dict[str, list[Incident]] = {}
    for incident in incidents.values():
        members.setdefault(incident.problem_id, []).append(incident)
    for name, found in sorted(members.items()):
        problems[name] = _problem(name, found, decisions.get(name, []), bare)
    return msgspec.structs.replace(bare, problems=problems)


def _grouped(events: Sequence[Event], kind: str, key: str) -> Mapping[str, list[Event]]:
    groups: dict[str, list[Event]] = {}
    for event in events:
        if event.event == kind and event.attributes.get(key):
            groups.setdefault(str(event.attributes[key]), []).append(event)
    return groups


def _problem(name: str, incidents: Sequence[Incident], decisions: Sequence[Event], history: History) -> Problem:
    episodes = sorted(incidents, key=lambda incident: (incident.episode_no, incident.id))
    plain: ProblemState = "fixed" if all(incident.over for incident in episodes) else "open"
    state = plain
    merged_into = ""
    for event in decisions:
        merged_into = event.attributes.get("merged_into", merged_into)
        wanted = event.attributes.get("state")
        if wanted in PROBLEM_TRANSITIONS[state] and event.ts_ns >= episodes[-1].detected_ns:
            state = plain if wanted == "open" else wanted
    return Problem(
        id=name,
        title=episodes[0].title,
        fingerprints=tuple(sorted({name for incident in episodes for name in incident.fingerprints})),
        state=state,
        fix=_fix(episodes, history),
        merged_into=merged_into,
        incident_ids=tuple(incident.id for incident in episodes),
    )


def _fix(episodes: Sequence[Incident], history: History) -> Fix | None:
    """Return what ended the last real episode; a cancelled one was none."""
    real = [incident for incident in episodes if incident.status != "cancelled"]
    if not real or real[-1].resolved_ns is None:
        return None
    last = real[-1]
    times = [deploy.ts_ns for deploy in history.deploys if last.fix_release and deploy.release == last.fix_release]
    return Fix(
        resolved_at_ns=real[-1].resolved_ns,
        release=last.fix_release,
        commit=last.fix_commit,
        deployed_at_ns=min(times, default=None),
    )
