"""What the rest of the stream says about a request: records that name it, and losses while it ran."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from opsloop.event import Event
from opsloop.filter import And, Compare, Filter, Op, Or
from opsloop.stream import Source
from opsloop.structured_logging.tree import end_ns

__all__ = ["linked", "losses"]

_RECORDS: Final = ("alert", "incident", "guard", "gate", "breach")
_PLACES: Final = (
    "message",
    "reason",
    "request_id",
    "request_ids",
    "evidence",
    "evidence.examples",
    "evidence.request_ids",
    "provenance.request_id",
)
"""The fields in which a decision names requests."""
_MOST_LINKS: Final = 100
_REPORT_NS: Final = 600 * 1_000_000_000
"""A loss is reported within this time."""


def linked(source: Source, request_ids: Iterable[str], own: Sequence[Event]) -> tuple[Event, ...]:
    """Return alerts, incidents, guards and gates that name one of the requests, or that belong to such an incident.

    An incident freezes the requests that it rests on and the page that opened it; its problem leads to its guards.
    """
    names = sorted(request_ids)
    kinds = _any_of("event", _RECORDS)
    mentions = Or(tuple(Compare(place, Op.CONTAINS, name) for place in _PLACES for name in names))
    start_ns = min((event.ts_ns for event in own), default=0) - 1
    candidates = source.query(And((kinds, mentions)), start_ns=start_ns, limit=_MOST_LINKS)
    whole = re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in names))
    found = [event for event in candidates if whole.search(_everything(event))]
    problems = {str(event.attributes["problem_id"]) for event in found if event.attributes.get("problem_id")}
    pages = {_page(event) for event in found} - {""}
    if problems or pages:
        same = Or((_any_of("problem_id", sorted(problems)), _any_of("event_id", sorted(pages))))
        found += source.query(And((kinds, same)), start_ns=start_ns, limit=_MOST_LINKS)
    return tuple(sorted(_once(found), key=lambda event: event.ts_ns))


def losses(source: Source, own: Sequence[Event]) -> tuple[str, ...]:
    """Return a sentence for every loss report of a process whose span of time touches the story's."""
    first = min(event.ts_ns for event in own)
    last = max(end_ns(event) for event in own)
    services = {event.service for event in own}
    reports = source.query(
        Compare("event", Op.EQ, "log.dropped"), start_ns=first - 1, end_ns=last + _REPORT_NS, limit=_MOST_LINKS
    )
    return tuple(
        f"up to {report.attributes.get('count', '?')} events that {report.service or 'a process'} dropped"
        for report in reports
        if report.service in services and _since_ns(report) <= last
    )


def _since_ns(report: Event) -> int:
    """Return when the losses began; a report that does not say it has lost since ever."""
    since_ns = report.attributes.get("since_ns")
    return since_ns if isinstance(since_ns, int) else 0


def _any_of(field: str, values: Iterable[str]) -> Filter:
    return Or(tuple(Compare(field, Op.EQ, value) for value in values))


def _page(incident: Event) -> str:
    evidence = incident.attributes.get("evidence")
    return str(evidence.get("page", "")) if isinstance(evidence, dict) else ""


def _everything(event: Event) -> str:
    return f"{event.message}\n{event.request_id}\n{msgspec.json.encode(event.attributes).decode()}"


def _once(events: Iterable[Event]) -> list[Event]:
    kept: list[Event] = []
    for event in events:
        if event not in kept:
            kept.append(event)
    return kept
