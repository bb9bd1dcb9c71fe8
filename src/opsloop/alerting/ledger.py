"""The ledger: decisions as ``alert`` events, and the book rebuilt from them.

The stream is the only memory. Whatever changes what the machine remembers is one ``alert`` event that carries the new
memory, so a restart, or another replica, decides the same. Ids follow from what is described (rule, episode, number),
so writing twice is once. The kinds of ``attributes.phase``:

* ``transition``: the phase changed; ``state``, ``episode``, ``reason``, ``votes``;
* ``evaluation``: what is remembered changed without a transition, such as a second signal that began to breach;
* ``notice``: a notice with its ``outcome``: ``pending`` (decided, in the outbox), ``sent``, ``retry``, ``failed``,
  ``replaced`` (a newer notice of the same alert and receiver made it pointless).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from opsloop.alerting.decide import Book, Decision
from opsloop.alerting.explain import Explanation
from opsloop.alerting.judge import Memory
from opsloop.alerting.notice import Notice
from opsloop.alerting.route import Entry, told
from opsloop.errors import EventError
from opsloop.event import Event, Severity

Carried = TypeVar("Carried")

__all__ = ["decision_events", "explanation_of", "notice_event", "notice_of", "restore"]


def decision_events(decision: Decision) -> list[Event]:
    """Return the events of one decision: its change of memory, if any, then its notices as pending."""
    found = [_change_event(decision)] if decision.changed else []
    found.extend(notice_event(notice) for notice in decision.notices)
    return found


def _change_event(decision: Decision) -> Event:
    record, change = decision.explanation, decision.transition
    labels = decision.memory.labels
    base = Event(
        ts_ns=record.at_ns,
        event="alert",
        service=labels.get("service", ""),
        tenant=labels.get("tenant", ""),
        route=labels.get("route", ""),
        model=labels.get("model", ""),
    )
    attributes: dict[str, Any] = {
        "phase": "evaluation" if change is None else "transition",
        "alert": record.alert,
        "key": record.key,
        "episode": decision.memory.alert.episode,
        "severity": record.severity,
        "reason": record.reason if change is None else change.reason,
        "votes": msgspec.to_builtins(record.votes),
        "verdict": record.verdict.value,
        "explanation": msgspec.to_builtins(record),
        "memory": msgspec.to_builtins(decision.memory),
    }
    if change is None:
        name = f"alert:{record.alert}:{record.key}:evaluation:{record.at_ns}"
        return base.replace(event_id=name, message=record.line(), attributes=attributes)
    attributes |= {"state": change.state, "number": change.number}
    firing = change.state == "firing"
    named = f"{record.alert} [{record.key}]" if record.key else record.alert
    return base.replace(
        event_id=f"alert:{record.alert}:{change.episode}:{change.number}-{change.state}",
        severity=_severity(record.severity, firing=firing),
        message=decision.memory.told.summary
        if firing
        else f"{named}: {change.state}, {change.reason}; {record.reason}",
        attributes=attributes,
    )


def _severity(severity: str, *, firing: bool) -> Severity:
    if not firing:
        return "INFO"
    return "ERROR" if severity == "page" else "WARN"


def notice_event(
    notice: Notice,
    *,
    outcome: str = "pending",
    at_ns: int | None = None,
    attempt: int = 0,
    reason: str = "",
    retry_at_ns: int | None = None,
) -> Event:
    """Return the event of a notice and its outcome; ``pending`` carries the whole notice, the others its id."""
    attributes: dict[str, Any] = {
        "phase": "notice",
        "alert": notice.alert,
        "episode": notice.episode,
        "state": notice.status,
        "severity": notice.severity,
        "receiver": notice.receiver,
        "outcome": outcome,
        "reason": reason or notice.reason,
        "notice_id": notice.id,
    }
    name = f"alert:{notice.alert}:{notice.episode}:notice:{notice.receiver}:{notice.number}"
    if outcome == "pending":
        attributes["notice"] = msgspec.to_builtins(notice)
        attributes["votes"] = [vote for member in attributes["notice"]["members"] for vote in member.get("votes", ())]
    else:
        name += f":{outcome}:{attempt}"
        attributes["attempt"] = attempt
    if retry_at_ns is not None:
        attributes["retry_at_ns"] = retry_at_ns
    return Event(
        ts_ns=notice.at_ns if at_ns is None else at_ns,
        event="alert",
        event_id=name,
        severity="ERROR" if outcome == "failed" else "INFO",
        message=f"notice to {notice.receiver} {outcome}: {notice.title}" + (f" ({reason})" if reason else ""),
        attributes=attributes,
    )


def notice_of(event: Event) -> Notice:
    """Return the notice that a ``pending`` event carries."""
    return _read(event, "notice", Notice)


def explanation_of(event: Event) -> Explanation:
    """Return the explain record that a ``transition`` or ``evaluation`` event carries."""
    return _read(event, "explanation", Explanation)


def _read(event: Event, name: str, kind: type[Carried]) -> Carried:
    try:
        return msgspec.convert(event.attributes.get(name), kind)
    except msgspec.ValidationError as cause:
        message = f"alert event {event.event_id!r}, {name}: {cause}"
        raise EventError(message, fix="it was written by another version; see CHANGELOG.md") from cause


def restore(events: Iterable[Event]) -> Book:
    """Rebuild the book from stored ``alert`` events in time order; other events are passed over."""
    memories: dict[tuple[str, str], Memory] = {}
    entries: dict[tuple[str, str], Entry] = {}
    for event in events:
        attributes: Mapping[str, Any] = event.attributes
        if event.event != "alert":
            continue
        if attributes.get("phase") in {"transition", "evaluation"}:
            memories[attributes["alert"], attributes.get("key", "")] = _read(event, "memory", Memory)
        elif attributes.get("phase") == "notice" and attributes.get("outcome") == "pending":
            notice = notice_of(event)
            at = (notice.alert, notice.receiver)
            firing = [member.fingerprint for member in notice.members if member.status == "firing"]
            entries[at] = told(
                entries.get(at), firing, at_ns=notice.at_ns, episode=notice.episode, number=notice.number
            )
    return Book(memories=memories, entries=entries)
