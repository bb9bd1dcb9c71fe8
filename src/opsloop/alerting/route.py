"""Grouping: which notice goes out, and when, by the rules of Alertmanager.

Objects
    A *group* is one rule at one receiver; its members are the rule's keys (tenants, routes), each firing or resolved.
    The *entry* is what the group was last told.
Rule
    :func:`reason_to_notify` is Alertmanager's ``needsUpdate`` (``notify/notify.go``, DedupStage), in its order.
    :func:`route` adds the timing: a first notice waits ``group_wait``, a further one ``group_interval``, and a group
    that is resolved as a whole is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from opsloop.clock import NANOSECONDS, utc

__all__ = ["Entry", "Grouping", "Routing", "fingerprint", "key_of", "reason_to_notify", "route", "told"]


class Grouping(msgspec.Struct, frozen=True, kw_only=True):
    """The timing of one rule's notices, in seconds."""

    group_wait_seconds: float = 0.0
    group_interval_seconds: float = 300.0
    repeat_seconds: float = 14_400.0


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a receiver was last told about a group."""

    at_ns: int
    firing: frozenset[str] = frozenset()
    resolved: frozenset[str] = frozenset()
    episode: str = ""
    """The episode of the group: that of the member which fired first."""
    number: int = 1
    """How many notices this group's episode has had."""


class Routing(msgspec.Struct, frozen=True):
    """Whether the group is told now, and why or why not."""

    notify: bool
    reason: str


def fingerprint(labels: Mapping[str, str]) -> str:
    """Return Alertmanager's identity of a label set: FNV-1a, 64 bits, over the sorted pairs.

    >>> fingerprint({})
    'cbf29ce484222325'
    """
    value = 0xCBF29CE484222325
    for name, text in sorted(labels.items()):
        for byte in (*name.encode(), 0xFF, *text.encode(), 0xFF):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def key_of(labels: Mapping[str, str]) -> str:
    """Return a label set as a stable text; empty for no labels.

    >>> key_of({"tenant": "acme", "route": "/chat"})
    'route=/chat,tenant=acme'
    """
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def reason_to_notify(
    last: Entry | None,
    *,
    firing: frozenset[str],
    resolved: frozenset[str],
    now_ns: int,
    repeat_seconds: float,
    send_resolved: bool = True,
) -> str:
    """Return why a group is told now, or an empty text when there is nothing to tell.

    >>> reason_to_notify(None, firing=frozenset({"a"}), resolved=frozenset(), now_ns=0, repeat_seconds=60)
    'first notification'
    """
    if last is None:
        return "first notification" if firing else ""
    if not firing <= last.firing:
        return "new alerts added" if last.firing else "first notification"
    if not firing:
        return "all alerts resolved" if last.firing else ""
    if send_resolved and not resolved <= last.resolved:
        return "some alerts resolved"
    if now_ns - last.at_ns >= round(repeat_seconds * NANOSECONDS):
        return "repeat interval elapsed"
    return ""


def route(
    last: Entry | None,
    *,
    firing: Mapping[str, int],
    resolved: frozenset[str],
    now_ns: int,
    grouping: Grouping,
) -> Routing:
    """Decide about one group; ``firing`` maps each firing member to the time since when it is announced."""
    members = frozenset(firing)
    reason = reason_to_notify(
        last, firing=members, resolved=resolved, now_ns=now_ns, repeat_seconds=grouping.repeat_seconds
    )
    if not reason:
        told = last is not None and bool(last.firing)
        return Routing(notify=False, reason="told already, nothing new" if told else "nothing to tell")
    if reason == "first notification":
        due = min(firing.values()) + round(grouping.group_wait_seconds * NANOSECONDS)
    elif members and last is not None:
        due = last.at_ns + round(grouping.group_interval_seconds * NANOSECONDS)
    else:
        due = now_ns
    if now_ns < due:
        return Routing(notify=False, reason=f"{reason}, waits for its group until {utc(due)}")
    return Routing(notify=True, reason=reason)


def told(last: Entry | None, firing: Iterable[str], *, at_ns: int, episode: str, number: int) -> Entry:
    """Return the entry after a notice: what fired before and fires no more has been told as resolved."""
    members = frozenset(firing)
    before = frozenset() if last is None else last.firing | last.resolved
    resolved = before - members if members else frozenset()
    return Entry(at_ns=at_ns, firing=members, resolved=resolved, episode=episode, number=number)
