"""Dispatch: the notices of one rule's group, one receiver at a time."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from opsloop.alerting.expression import show
from opsloop.alerting.judge import Memory
from opsloop.alerting.notice import Member, Notice
from opsloop.alerting.route import Entry, Routing, fingerprint, route, told
from opsloop.alerting.rule import Rule

__all__ = ["Dispatch", "dispatch"]


class Dispatch(msgspec.Struct, frozen=True):
    """What one receiver is told about a rule now, or why nothing."""

    receiver: str
    routing: Routing
    entry: Entry | None = None
    notice: Notice | None = None


def dispatch(rule: Rule, memories: Mapping[str, Memory], entries: Mapping[str, Entry], now_ns: int) -> list[Dispatch]:
    """Route the group of all keys of a rule to each receiver; ``entries`` holds what each was last told."""
    prints = {fingerprint(_labels(rule, memory)): memory for memory in memories.values()}
    firing = {name: memory.told_since_ns for name, memory in prints.items() if memory.suppressor.acted}
    found: list[Dispatch] = []
    for receiver in rule.receivers:
        last = entries.get(receiver)
        resolved = frozenset[str]() if last is None else (last.firing | last.resolved) - frozenset(firing)
        routing = route(last, firing=firing, resolved=resolved, now_ns=now_ns, grouping=rule.grouping)
        if not routing.notify:
            found.append(Dispatch(receiver, routing))
            continue
        episode, number = _episode(last, firing, prints)
        entry = told(last, firing, at_ns=now_ns, episode=episode, number=number)
        ended = frozenset[str]() if last is None else last.firing - entry.firing
        shown = {*firing, *ended} & set(prints) or set(prints)  # all, when a changed rule gave its keys new prints
        members = [_member(rule, name, prints[name], firing=name in firing) for name in shown]
        severe = any(prints[name].told.severe for name in firing)
        notice = _notice(rule, receiver, routing.reason, entry, members)
        found.append(Dispatch(receiver, routing, entry, msgspec.structs.replace(notice, severe=severe)))
    return found


def _labels(rule: Rule, memory: Memory) -> dict[str, str]:
    return {"alertname": rule.id, "severity": rule.severity, **memory.labels}


def _episode(last: Entry | None, firing: Mapping[str, int], prints: Mapping[str, Memory]) -> tuple[str, int]:
    """Return the group's episode and the number of its next notice; the member that fired first names the episode."""
    if last is not None and last.firing:
        return last.episode, last.number + 1
    episode = prints[min(firing, key=lambda name: (firing[name], name))].alert.episode
    return episode, last.number + 1 if last is not None and last.episode == episode else 1


def _member(rule: Rule, name: str, memory: Memory, *, firing: bool) -> Member:
    return Member(
        fingerprint=name,
        labels=_labels(rule, memory),
        status="firing" if firing else "resolved",
        starts_at_ns=memory.alert.fired_at_ns or memory.alert.active_at_ns,
        ends_at_ns=None if firing else memory.alert.resolved_at_ns,
        summary=memory.told.summary,
        votes=memory.told.votes,
        window=memory.told.window,
    )


def _notice(rule: Rule, receiver: str, reason: str, entry: Entry, members: list[Member]) -> Notice:
    members.sort(key=lambda member: (member.status, member.starts_at_ns, member.fingerprint))
    more = f" (and {len(members) - 1} more)" if len(members) > 1 else ""
    return Notice(
        id=f"{receiver}:{rule.id}:{entry.episode}:{entry.number}",
        receiver=receiver,
        alert=rule.id,
        severity=rule.severity,
        status="firing" if entry.firing else "resolved",
        reason=reason,
        episode=entry.episode,
        number=entry.number,
        at_ns=entry.at_ns,
        formula=show(rule.when),
        title=("" if entry.firing else "resolved: ") + members[0].summary + more,
        members=tuple(members),
    )
