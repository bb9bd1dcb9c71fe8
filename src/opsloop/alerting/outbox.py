"""The outbox: notices that were decided and stored, and have not been delivered for good.

A notice is stored as pending in the same append as the decision it tells of, so a crash after that append sends it
later, and a crash between sending and marking sends it twice, under the same key: at least once, never lost. A newer
notice of the same alert and receiver replaces an unsent older one, since it tells the newer state.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from opsloop.alerting.ledger import notice_of
from opsloop.alerting.notice import Notice
from opsloop.event import Event

__all__ = ["Waiting", "outbox", "split_replaced"]

FINAL = frozenset({"sent", "failed", "replaced"})


class Waiting(msgspec.Struct, frozen=True):
    """A notice in the outbox."""

    notice: Notice
    attempts: int = 0
    due_ns: int = 0


def outbox(events: Iterable[Event]) -> dict[str, Waiting]:
    """Return the undelivered notices by id from stored ``alert`` events in time order."""
    waiting: dict[str, Waiting] = {}
    done: set[str] = set()
    for event in events:
        attributes = event.attributes
        if event.event != "alert" or attributes.get("phase") != "notice":
            continue
        name, outcome = attributes["notice_id"], attributes["outcome"]
        if outcome in FINAL:
            done.add(name)
        elif outcome == "pending":
            notice = notice_of(event)
            waiting[name] = Waiting(notice, due_ns=notice.at_ns)
        elif name in waiting:
            waiting[name] = Waiting(waiting[name].notice, attributes["attempt"], attributes["retry_at_ns"])
    return {name: item for name, item in waiting.items() if name not in done}


def split_replaced(waiting: Iterable[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """Return (those to deliver, those that a newer notice of the same alert and receiver replaces)."""
    newest: dict[tuple[str, str], Waiting] = {}
    replaced: list[Waiting] = []
    for item in sorted(waiting, key=lambda one: (one.notice.at_ns, one.notice.number)):
        at = (item.notice.alert, item.notice.receiver)
        if at in newest:
            replaced.append(newest[at])
        newest[at] = item
    return list(newest.values()), replaced
