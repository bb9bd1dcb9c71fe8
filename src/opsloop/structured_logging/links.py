"""What the rest of the stream says about a request: records that name it, and losses while it ran.

Most requests have neither, and to read whole events costs the engine thrice as much as to look whether there are any.
So :func:`surroundings` asks a database first of which kinds there may be some, when, and naming whom; what belongs is
decided over whole events alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from opsloop.event import Event
from opsloop.filter import And, Compare, Filter, Op, Or
from opsloop.stream import Database, Source
from opsloop.structured_logging.sql import mentions_statement
from opsloop.structured_logging.tree import end_ns

__all__ = ["surroundings"]

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
_LOSS: Final = "log.dropped"
_MOST_LINKS: Final = 100
_REPORT_NS: Final = 600 * 1_000_000_000
"""A loss is reported within this time."""
_EVER_NS: Final = 2**63 - 1


def surroundings(
    source: Source, request_ids: Iterable[str], own: Sequence[Event]
) -> tuple[tuple[Event, ...], tuple[str, ...]]:
    """Return (records that name one of the requests, a sentence for every loss that may have hit the story)."""
    names = sorted(request_ids)
    start_ns = min(event.ts_ns for event in own) - 1
    last_ns = max(end_ns(event) for event in own)
    reported_ns = min(last_ns + _REPORT_NS, _EVER_NS)  # an engine that reads beyond 64 bits begins anew below zero
    windows = dict.fromkeys(_RECORDS, (start_ns, _EVER_NS)) | {_LOSS: (start_ns, reported_ns)}
    said: Iterable[str] = names
    if isinstance(source, Database):
        look = mentions_statement(_RECORDS, names, near=_LOSS, start_ns=start_ns, end_ns=reported_ns)
        rows = source.rows(look)
        windows = {kind: (first_ns - 1, latest_ns) for kind, first_ns, latest_ns, _ in rows}
        said = sorted({name for kind, *_, some in rows if kind != _LOSS for name in some})
    lost = _losses(source, own, windows.pop(_LOSS), last_ns) if _LOSS in windows else ()
    if not names or not windows:
        return (), lost
    starts, ends = zip(*windows.values(), strict=True)
    mentions = Or(tuple(Compare(place, Op.CONTAINS, name) for place in _PLACES for name in said))
    where = And((_any_of("event", _RECORDS), mentions))
    candidates = source.query(where, start_ns=min(starts), end_ns=max(ends), limit=_MOST_LINKS)
    return _linked(source, names, candidates, start_ns), lost


def _linked(source: Source, names: Sequence[str], candidates: Sequence[Event], start_ns: int) -> tuple[Event, ...]:
    """Return alerts, incidents, guards and gates that name one of the requests, or that belong to such an incident.

    An incident freezes the requests that it rests on and the page that opened it; its problem leads to its guards.
    """
    whole = re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in names))
    found = [event for event in candidates if whole.search(_everything(event))]
    problems = {str(event.attributes["problem_id"]) for event in found if event.attributes.get("problem_id")}
    pages = {_page(event) for event in found} - {""}
    if problems or pages:
        same = Or((_any_of("problem_id", sorted(problems)), _any_of("event_id", sorted(pages))))
        found += source.query(And((_any_of("event", _RECORDS), same)), start_ns=start_ns, limit=_MOST_LINKS)
    return tuple(sorted(_once(found), key=lambda event: event.ts_ns))


def _losses(source: Source, own: Sequence[Event], window: tuple[int, int], last_ns: int) -> tuple[str, ...]:
    """Return a sentence for every loss report of a process whose span of time touches the story's."""
    services = {event.service for event in own}
    where = Compare("event", Op.EQ, _LOSS)
    reports = source.query(where, start_ns=window[0], end_ns=window[1], limit=_MOST_LINKS)
    return tuple(
        f"up to {report.attributes.get('count', '?')} events that {report.service or 'a process'} dropped"
        for report in reports
        if report.service in services and _since_ns(report) <= last_ns
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
