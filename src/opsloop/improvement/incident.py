"""Incident: one episode of a problem, from the page to its end.

::

    triage ──▶ active ──▶ acknowledged ──▶ mitigated ──▶ resolved
      └──────────┴─────────────┴───────────────┴──────▶ cancelled (not from mitigated)

    every step may be skipped forward; none is ever taken back

``triage`` is where an incident opens whose cause is only suspected; one whose cause is known or new opens ``active``.
An incident that is over is never opened again: that would ruin its timeline and its times. What comes back is a new
episode of the same problem. The ids follow from problem and episode, so replicas that see the same page write the same
incident, and writing it twice is once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.event import Event

__all__ = [
    "INCIDENT_TRANSITIONS",
    "OVER",
    "Incident",
    "IncidentStatus",
    "Relation",
    "TimelineEntry",
    "incident_from_events",
    "incident_id",
]

IncidentStatus = Literal["triage", "active", "acknowledged", "mitigated", "resolved", "cancelled"]
Relation = Literal["new", "repeat", "suspected_repeat", "duplicate"]
"""What a page is to its problem. ``duplicate`` joins an incident that exists and opens none."""

STATUSES: Final[tuple[str, ...]] = get_args(IncidentStatus)

INCIDENT_TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "triage": frozenset({"active", "acknowledged", "mitigated", "resolved", "cancelled"}),
    "active": frozenset({"acknowledged", "mitigated", "resolved", "cancelled"}),
    "acknowledged": frozenset({"mitigated", "resolved", "cancelled"}),
    "mitigated": frozenset({"resolved"}),
    "resolved": frozenset(),
    "cancelled": frozenset(),
}
OVER: Final = frozenset({"resolved", "cancelled"})


class TimelineEntry(msgspec.Struct, frozen=True):
    """One line of an incident's history, in the order of time."""

    ts_ns: int
    status: str
    text: str


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One episode. All times are in nanoseconds since the epoch; ``None`` is "not yet", never zero."""

    id: str
    problem_id: str
    episode_no: int
    title: str
    severity: int
    """1 is the worst, 5 the least."""
    status: IncidentStatus
    relation: Relation
    matched_by: str
    """alias, fingerprint, guard or similarity; empty for a new problem."""
    reason: str
    """Why it has this relation, in one sentence."""
    fingerprint: str
    release: str
    started_ns: int
    """The first failing event."""
    detected_ns: int
    acknowledged_ns: int | None = None
    mitigated_ns: int | None = None
    resolved_ns: int | None = None
    cancelled_ns: int | None = None
    suspects: str = ""
    """A problem that looks alike: a suggestion, never an identity."""
    fix_release: str = ""
    fix_commit: str = ""
    alerts: tuple[str, ...] = ()
    """The alert episodes that belong to it, as name|key|episode."""
    pages: tuple[str, ...] = ()
    """The alert events that opened or joined it."""
    fingerprints: tuple[str, ...] = ()
    """Its own and those of the pages that joined it."""
    timeline: tuple[TimelineEntry, ...] = ()
    evidence: dict[str, Any] = {}
    """The frozen evidence as it was stored: see :class:`opsloop.improvement.evidence.Evidence`."""

    @property
    def over(self) -> bool:
        """Whether it is resolved or cancelled."""
        return self.status in OVER

    @property
    def ended_ns(self) -> int | None:
        """When it was resolved or cancelled; ``None`` while it is not."""
        return self.resolved_ns if self.resolved_ns is not None else self.cancelled_ns

    def seconds_to(self, moment: Literal["detected", "acknowledged", "mitigated", "resolved"]) -> float | None:
        """Return the seconds from its start to a moment, or ``None`` when that has not come.

        The means of these over incidents are MTTD, MTTA, MTTM and MTTR.
        """
        reached: int | None = getattr(self, f"{moment}_ns")
        return None if reached is None else (reached - self.started_ns) / NANOSECONDS


def incident_id(problem_id: str, episode_no: int) -> str:
    """Return the id of a problem's n-th episode.

    >>> incident_id("P-2cdfd497", 1)
    'INC-5c91de20'
    """
    return f"INC-{hashlib.sha256(f'{problem_id}:{episode_no}'.encode()).hexdigest()[:8]}"


def incident_from_events(events: Sequence[Event]) -> Incident:
    """Fold all ``incident`` events of one incident into it; the order in which they are handed in does not matter.

    Events are taken by time, then by how far along their status is. A step that the table does not allow changes
    nothing but the timeline, where it stands with the reason.
    """
    ordered = sorted(events, key=_order)
    opening = next((event for event in ordered if _is_opening(event)), ordered[0])
    first = opening.attributes
    status: str = first["status"]
    moments = {"detected": opening.ts_ns, status: opening.ts_ns}
    timeline = [TimelineEntry(opening.ts_ns, status, opening.message)]
    alerts, pages = {_of_evidence(opening, "alert")}, {_of_evidence(opening, "page")}
    fingerprints = {first["fingerprint"]}
    fix: dict[str, str] = {}
    for event in ordered:
        if event is opening:
            continue
        step = event.attributes["status"]
        note = event.message
        if event.attributes["relation"] == "duplicate":
            alerts.add(_of_evidence(event, "alert"))
            pages.add(_of_evidence(event, "page"))
            fingerprints.add(event.attributes["fingerprint"])
            step = status
        elif step in INCIDENT_TRANSITIONS[status]:
            status = step
            moments.setdefault(step, event.ts_ns)
        elif "fix" not in event.attributes:
            note = f"{note} (no effect: it is {status})"
        fix = event.attributes.get("fix", fix)
        timeline.append(TimelineEntry(event.ts_ns, step, note))
    evidence = first.get("evidence") or {}
    return msgspec.convert(
        {
            **{key: first[key] for key in ("problem_id", "episode_no", "title", "severity", "relation", "matched_by")},
            "id": first["incident_id"],
            "status": status,
            "reason": first.get("reason", ""),
            "fingerprint": first["fingerprint"],
            "release": opening.release,
            "started_ns": evidence.get("started_ns", opening.ts_ns),
            **{f"{name}_ns": ts_ns for name, ts_ns in moments.items() if name not in {"triage", "active"}},
            "suspects": first.get("suspects", ""),
            "fix_release": fix.get("release", ""),
            "fix_commit": fix.get("commit", ""),
            "alerts": sorted(alerts - {""}),
            "pages": sorted(pages - {""}),
            "fingerprints": sorted(fingerprints),
            "timeline": [msgspec.to_builtins(entry) for entry in sorted(timeline, key=_by_time)],
            "evidence": evidence,
        },
        Incident,
    )


def _is_opening(event: Event) -> bool:
    return event.attributes["relation"] != "duplicate" and event.attributes["status"] in {"triage", "active"}


def _of_evidence(event: Event, name: str) -> str:
    found: str = (event.attributes.get("evidence") or {}).get(name, "")
    return found


def _order(event: Event) -> tuple[int, int, str, str]:
    return event.ts_ns, STATUSES.index(event.attributes["status"]), event.event_id, event.message


def _by_time(entry: TimelineEntry) -> int:
    return entry.ts_ns
