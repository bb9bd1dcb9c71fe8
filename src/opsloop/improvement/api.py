"""What improvement answers over HTTP and on the command line."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS, Clock
from opsloop.endpoint import WINDOW_PARAMETERS, Arguments, Endpoint, Parameter, window_of
from opsloop.errors import InputError, NotFoundError, PayloadError
from opsloop.event import Event
from opsloop.filter import Compare, Op, Or, equals
from opsloop.improvement.flywheel import Flywheel, flywheel, week_index
from opsloop.improvement.guard import survey_guards
from opsloop.improvement.history import HISTORY_KINDS, History, rebuild
from opsloop.improvement.incident import Incident, IncidentStatus, Relation
from opsloop.improvement.postmortem import postmortem
from opsloop.improvement.problem import Problem, problem_event
from opsloop.improvement.proof import prove
from opsloop.improvement.recurrence import advance
from opsloop.improvement.sql import weekly_requests_from_rows, weekly_requests_statement
from opsloop.settings import Settings
from opsloop.stream import Database

__all__ = ["Decision", "GuardStatus", "IncidentDetail", "IncidentSummary", "Postmortem", "Step", "endpoints"]

LIST_SECONDS: Final = 30 * 86_400.0
MOST_WEEKS: Final = 520


class IncidentSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list."""

    id: str
    problem_id: str
    episode_no: int
    title: str
    status: IncidentStatus
    relation: Relation
    severity: int
    release: str
    started_ns: int
    detected_ns: int
    resolved_ns: int | None
    pages: int
    guards: tuple[str, ...]
    """The active guards of its problem."""


class IncidentDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One incident with everything that belongs to it."""

    incident: Incident
    problem: Problem
    episodes: tuple[IncidentSummary, ...]
    """All incidents of the problem, oldest first."""


class GuardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One guard file."""

    path: str
    id: str = ""
    problem_id: str = ""
    title: str = ""
    severity: str = ""
    state: str = ""
    """What the file asks for."""
    recorded_state: str = ""
    """What the stream says."""
    proof: str = ""
    """proved, toothless, wrong or incomplete."""
    reason: str = ""
    """What the proof says, or why the file cannot be read."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a step of an incident; empty is fine."""

    by: str = ""
    note: str = ""
    fix_release: str = ""
    fix_commit: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a decision about a problem."""

    by: str = ""
    merged_into: str | None = None
    state: Literal["open", "accepted", "obsolete"] | None = None


class Postmortem(msgspec.Struct, frozen=True, kw_only=True):
    """A post-mortem as Markdown."""

    incident_id: str
    markdown: str


def endpoints(database: Database, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return the operations of the room."""
    room = _Room(database, settings, clock)
    return (
        Endpoint(
            path="/api/incidents",
            summary="The incidents that a window touches, newest first; 30 days when it is left out",
            handler=room.incidents,
            parameters=WINDOW_PARAMETERS,
        ),
        Endpoint(
            path="/api/incidents/{incident_id}",
            summary="One incident with its evidence, timeline, problem and other episodes",
            handler=room.incident,
        ),
        Endpoint(
            path="/api/incidents/{incident_id}/postmortem",
            summary="What is known about an incident, as Markdown to be completed",
            handler=room.postmortem,
        ),
        Endpoint(
            path="/api/incidents/{incident_id}/acknowledge",
            summary="Say that someone is on it: JSON with by and note, both optional",
            handler=lambda arguments, body: room.step(arguments, body, "acknowledged"),
            method="POST",
            scope="admin",
        ),
        Endpoint(
            path="/api/incidents/{incident_id}/resolve",
            summary="Say that it is over: JSON with by, note, fix_release and fix_commit, all optional",
            handler=lambda arguments, body: room.step(arguments, body, "resolved"),
            method="POST",
            scope="admin",
        ),
        Endpoint(path="/api/problems", summary="All problems with their incidents", handler=room.problems),
        Endpoint(
            path="/api/problems/{problem_id}/decide",
            summary="Merge a problem into another, take that back, accept it or call it obsolete",
            handler=room.decide,
            method="POST",
            scope="admin",
        ),
        Endpoint(
            path="/api/flywheel",
            summary="New, repeated and prevented incidents, week by week",
            handler=room.flywheel,
            parameters=(Parameter("weeks", "how many ISO weeks, this one included; 12 when left out", "integer"),),
        ),
        Endpoint(path="/api/guards", summary="All guard files with what their proof says", handler=room.guards),
    )


class _Room:
    """The handlers, over one store."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock

    def incidents(self, arguments: Arguments, _: bytes) -> list[IncidentSummary]:
        """Return the incidents that overlap the window."""
        start_ns, end_ns = window_of(arguments, clock=self._clock, default_seconds=LIST_SECONDS)
        history = self._history()
        found = [
            incident
            for incident in history.incidents.values()
            if incident.started_ns <= end_ns and (incident.ended_ns is None or incident.ended_ns > start_ns)
        ]
        ordered = sorted(found, key=lambda incident: (-incident.detected_ns, incident.id))
        return [_summary(incident, history) for incident in ordered]

    def incident(self, arguments: Arguments, _: bytes) -> IncidentDetail:
        """Return one incident and its surroundings."""
        history = self._history()
        incident = _find(history, arguments["incident_id"])
        episodes = tuple(_summary(other, history) for other in history.incidents_of(incident.problem_id))
        return IncidentDetail(
            incident=incident, problem=history.problems[history.root(incident.problem_id)], episodes=episodes
        )

    def postmortem(self, arguments: Arguments, _: bytes) -> Postmortem:
        """Return the post-mortem of an incident."""
        history = self._history()
        incident = _find(history, arguments["incident_id"])
        return Postmortem(incident_id=incident.id, markdown=postmortem(incident, history))

    def step(self, arguments: Arguments, body: bytes, status: IncidentStatus) -> IncidentSummary:
        """Move an incident on."""
        said = _decode(body, Step)
        history, events = advance(
            self._history(),
            arguments["incident_id"],
            status,
            now_ns=self._clock.now_ns(),
            by=said.by,
            note=said.note,
            fix_release=said.fix_release,
            fix_commit=said.fix_commit,
        )
        self._database.append(events)
        return _summary(_find(history, arguments["incident_id"]), history)

    def problems(self, _: Arguments, __: bytes) -> list[Problem]:
        """Return all problems."""
        return list(self._history().problems.values())

    def decide(self, arguments: Arguments, body: bytes) -> Problem:
        """Record a person's decision about a problem."""
        said = _decode(body, Decision)
        history = self._history()
        name = arguments["problem_id"]
        for wanted in filter(None, (name, said.merged_into)):
            if wanted not in history.problems:
                raise NotFoundError(f"no problem {wanted!r}", fix="list them at /api/problems")
        event = problem_event(
            name, ts_ns=self._clock.now_ns(), by=said.by or "api", merged_into=said.merged_into, state=said.state
        )
        self._database.append([event])
        return history.after((event,)).problems[name]

    def flywheel(self, arguments: Arguments, _: bytes) -> Flywheel:
        """Return the weekly report."""
        weeks = _weeks(arguments.get("weeks") or "12")
        now_ns = self._clock.now_ns()
        start_ns = max(0, now_ns - (weeks + 1) * 7 * 86_400 * NANOSECONDS)
        traffic = weekly_requests_from_rows(
            self._database.rows(weekly_requests_statement(start_ns=start_ns, end_ns=now_ns))
        )
        first = week_index(now_ns) - weeks + 1
        requests = {week: count for week, count in traffic.items() if week >= first}
        blocks = self._database.query(equals(event="guardrail", action="block"), start_ns=start_ns, end_ns=now_ns)
        return flywheel([*self._events(), *blocks], now_ns=now_ns, weeks=weeks, requests=requests)

    def guards(self, _: Arguments, __: bytes) -> list[GuardStatus]:
        """Return the state of every guard file."""
        history = self._history()
        found = []
        for file in survey_guards(self._settings.guards.folder):
            if file.guard is None:
                found.append(GuardStatus(path=file.path, reason=file.error))
                continue
            guard, result = file.guard, prove(file.guard)
            record = history.guards.get(guard.id)
            found.append(
                GuardStatus(
                    path=file.path,
                    id=guard.id,
                    problem_id=guard.problem,
                    title=guard.title,
                    severity=guard.severity,
                    state=guard.state,
                    recorded_state=record.state if record else "",
                    proof=result.outcome,
                    reason=result.reason,
                )
            )
        return found

    def _events(self) -> list[Event]:
        return self._database.query(Or(tuple(Compare("event", Op.EQ, kind) for kind in HISTORY_KINDS)))

    def _history(self) -> History:
        return rebuild(self._events())


def _find(history: History, incident_id: str) -> Incident:
    if incident_id not in history.incidents:
        raise NotFoundError(f"no incident {incident_id!r}", fix="list them at /api/incidents")
    return history.incidents[incident_id]


def _summary(incident: Incident, history: History) -> IncidentSummary:
    root = history.root(incident.problem_id)
    guards = [
        record.id
        for record in history.guards.values()
        if history.root(record.problem_id) == root and record.state == "active"
    ]
    return IncidentSummary(
        **{
            name: getattr(incident, name)
            for name in IncidentSummary.__struct_fields__
            if name not in {"pages", "guards"}
        },
        pages=len(incident.pages),
        guards=tuple(sorted(guards)),
    )


def _decode(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        names = ", ".join(kind.__struct_fields__)
        raise PayloadError(f"the body is wrong: {cause}", fix=f"send a JSON object with some of {names}") from cause


def _weeks(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WEEKS:
        raise InputError(f"weeks is {text!r}", fix=f"write a whole number from 1 to {MOST_WEEKS}")
    return int(text)
