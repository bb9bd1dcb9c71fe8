"""The worker: every page becomes an incident, and an incident ends when its alerts do.

It keeps nothing between two turns but which guard files it has seen. Pages are taken in the order of time and written
with the page's own time and deterministic ids, so two replicas, or one that was down for a day, write the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from opsloop.clock import NANOSECONDS, Clock
from opsloop.event import Event
from opsloop.filter import Compare, Op, Or, equals
from opsloop.improvement.evidence import alert_episode, gather_evidence
from opsloop.improvement.guard import Guard, survey_guards
from opsloop.improvement.history import HISTORY_KINDS, History, rebuild
from opsloop.improvement.incident import Incident
from opsloop.improvement.proof import sync_guards
from opsloop.improvement.recurrence import advance, observe
from opsloop.settings import Settings
from opsloop.stream import Database, state_of_kinds

__all__ = ["IncidentWorker", "read_history"]

LOOKBACK_SECONDS: Final = 30 * 86_400
"""How old a page may be and still open an incident, for a worker that starts late."""


def read_history(database: Database) -> History:
    """Return the history of everything in the store."""
    return rebuild(database.query(Or(tuple(Compare("event", Op.EQ, kind) for kind in HISTORY_KINDS))))


class IncidentWorker:
    """Opens, joins and resolves incidents, and records the guards' states; call :meth:`tick` every few seconds."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        """Work over ``database`` with the guards of ``settings.guards.folder``."""
        self._database = database
        self._folder = Path(settings.guards.folder)
        self._clock = clock
        self._seen: tuple[tuple[str, int, int], ...] | None = None
        self._guards: tuple[Guard, ...] = ()
        self._followed = (0, 0)

    def tick(self) -> list[Event]:
        """Do what is due; return the events that were written."""
        now_ns = self._clock.now_ns()
        written = self._record_guards(now_ns)
        state = state_of_kinds(self._database, ("alert", *HISTORY_KINDS), end_ns=now_ns)
        if state == self._followed:
            return written
        alerts = self._transitions(now_ns)
        if alerts:
            followed = self._follow(alerts)
            self._database.append(followed)
            written += followed
        self._followed = state
        return written

    def _transitions(self, now_ns: int) -> list[Event]:
        """Return the pages that fired and resolved lately, in the order of time."""
        start_ns = max(0, now_ns - LOOKBACK_SECONDS * NANOSECONDS)
        found = self._database.query(equals(event="alert", phase="transition"), start_ns=start_ns, end_ns=now_ns)
        return [
            event
            for event in found
            if event.attributes.get("severity") == "page" and event.attributes.get("state") in {"firing", "resolved"}
        ]

    def _follow(self, alerts: Sequence[Event]) -> list[Event]:
        history = read_history(self._database)
        handled = {page for incident in history.incidents.values() for page in incident.pages}
        written: list[Event] = []
        for position, alert in enumerate(alerts):
            if alert.attributes["state"] == "firing":
                if alert.event_id in handled:
                    continue
                evidence = gather_evidence(self._database, alert)
                history, events = observe(history, evidence, now_ns=alert.ts_ns, guards=self._guards)
                written += events
            else:
                for incident in _ended_by(history, alert, alerts[: position + 1]):
                    history, events = advance(
                        history, incident.id, "resolved", now_ns=alert.ts_ns, note="its alerts are over"
                    )
                    written += events
        return written

    def _record_guards(self, now_ns: int) -> list[Event]:
        """Write the guards' transitions when a file changed; a folder that is not here says nothing about guards."""
        paths = sorted(self._folder.rglob("*.guard.yaml")) if self._folder.is_dir() else []
        seen = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
        if seen == self._seen or not self._folder.is_dir():
            return []
        files = survey_guards(self._folder)
        self._guards = tuple(file.guard for file in files if file.guard is not None)
        events = sync_guards(
            read_history(self._database).guards,
            self._guards,
            now_ns=now_ns,
            complete=all(file.guard is not None for file in files),
        )
        self._database.append(events)
        self._seen = seen
        return list(events)


def _ended_by(history: History, alert: Event, until: Iterable[Event]) -> list[Incident]:
    """Return the incidents that are over with ``alert``: each of their alerts last resolved, after they began."""
    last = {alert_episode(event): event for event in until}
    return [
        incident
        for incident in history.incidents.values()
        if not incident.over
        and alert_episode(alert) in incident.alerts
        and incident.detected_ns <= alert.ts_ns
        and all(
            name in last and last[name].attributes["state"] == "resolved" and last[name].ts_ns >= incident.detected_ns
            for name in incident.alerts
        )
    ]
