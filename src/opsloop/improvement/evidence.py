"""Evidence: what an alert was about, frozen before it expires.

From the alert's own window and the stream: which events failed, what kind of failure dominates, in which releases, and
a few representative requests with *all* their events copied. Raw events are dropped after a while; the reason why
someone was woken must not be.

Rule
    Only failures of the signals that breached are considered: errors before quality before latency before saturation,
    since an error explains the slowness behind it and not the other way round. In a failed request the culprit is the
    earliest failing step; the ``request`` line only repeats it. The kind that most requests share is the incident's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.errors import EventError
from opsloop.event import Event
from opsloop.filter import And, Compare, Op, equals
from opsloop.improvement.classify import signature_of
from opsloop.improvement.fingerprint import MASKS, Mask, Signature, fingerprint, mask_message
from opsloop.stream import Source
from opsloop.verdict import Reading, Verdict

__all__ = ["Evidence", "Example", "Sighting", "alert_episode", "answer_text", "example_from_events", "gather_evidence"]

MAX_FAILURES: Final = 10_000
"""Failing events that are looked at in one window; a larger storm is judged by its first ten thousand."""
MAX_EVENTS_PER_EXAMPLE: Final = 200
WINDOW_WITHOUT_VOTES_SECONDS: Final = 900
ERROR_GROUPS: Final = frozenset({"errors", "retrieval", "upstream"})
_KIND_ORDER: Final = ("retrieve", "embed", "rerank", "tool", "llm", "guardrail", "agent", "span", "request", "log")


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """The failure in one release."""

    release: str
    n: int
    first_ns: int
    last_ns: int


class Example(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One failing request, with a copy of everything that it did."""

    request_id: str
    route: str = ""
    stage: str = ""
    input: Any = None
    output: Any = None
    """``None`` when it gave no answer."""
    finish_reason: str = ""
    duration_us: int | None = None
    cost_microusd: int | None = None
    events: tuple[dict[str, Any], ...] = ()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an incident rests on."""

    alert: str
    """The alert's episode, as name|key|episode; empty when a person opened the incident."""
    page: str
    """The alert's event: an episode that is opened again pages again."""
    title: str
    severity: int
    signature: Signature
    fingerprint: str
    started_ns: int
    ended_ns: int
    failing: int
    """How many requests failed in this way."""
    sightings: tuple[Sighting, ...]
    others: dict[str, int]
    """Other fingerprints in the same window, with their counts: what was not chosen is shown too."""
    examples: tuple[Example, ...] = ()
    reason: str = ""
    """What the alert said."""

    @property
    def release(self) -> str:
        """The release that it was last seen in."""
        return max(self.sightings, key=lambda seen: (seen.last_ns, seen.release)).release if self.sightings else ""


def alert_episode(alert: Event) -> str:
    """Return the identity of an alert's episode: what makes two events of it one page."""
    return "|".join(str(alert.attributes.get(part, "")) for part in ("alert", "key", "episode"))


def gather_evidence(source: Source, alert: Event, *, examples: int = 3, masks: Sequence[Mask] = MASKS) -> Evidence:
    """Return the evidence of a firing ``alert`` event.

    Raises :class:`EventError` when the event is no alert. A window in which nothing is found to fail still gives
    evidence, of the class ``unclassified``: a page is never lost because its cause is not plain.
    """
    if alert.event != "alert":
        raise EventError(f"event {alert.event!r} is no alert", fix="hand in an alert event")
    votes = _votes(alert)
    start_ns, end_ns = _window(alert, votes)
    failures = _failures(source, votes, start_ns, end_ns)
    groups: dict[str, list[tuple[Event, Signature]]] = {}
    for event, signature in failures:
        groups.setdefault(fingerprint(signature, masks=masks), []).append((event, signature))
    if not groups:
        return _unexplained(alert, votes, start_ns, end_ns, masks)
    chosen = min(groups, key=lambda name: (-len(groups[name]), name))
    members = groups[chosen]
    signature = members[0][1]
    request_ids = list(dict.fromkeys(event.request_id for event, _ in members if event.request_id))
    return Evidence(
        alert=alert_episode(alert),
        page=_page(alert),
        title=_title(signature, masks),
        severity=_severity(alert, votes),
        signature=signature,
        fingerprint=chosen,
        started_ns=min(event.ts_ns for event, _ in members),
        ended_ns=max(event.ts_ns for event, _ in members),
        failing=len(members),
        sightings=_sightings(event for event, _ in members),
        others={name: len(rest) for name, rest in sorted(groups.items()) if name != chosen},
        examples=tuple(
            example_from_events(
                source.query(equals(request_id=request_id), limit=MAX_EVENTS_PER_EXAMPLE), stage=signature.stage
            )
            for request_id in request_ids[:examples]
        ),
        reason=str(alert.attributes.get("reason", alert.message)),
    )


def example_from_events(events: Sequence[Event], *, stage: str = "") -> Example:
    """Return one request as an example: its input and output, and a copy of all its events."""
    line = next((event for event in events if event.event == "request"), events[0])
    return Example(
        request_id=line.request_id,
        route=line.route,
        stage=stage,
        input=line.attributes.get("input"),
        output=line.attributes.get("output"),
        finish_reason=str(line.attributes.get("finish_reason", "")),
        duration_us=line.duration_us,
        cost_microusd=line.cost_microusd,
        events=tuple(msgspec.to_builtins(event) for event in events),
    )


def _page(alert: Event) -> str:
    return alert.event_id or f"{alert_episode(alert)}@{alert.ts_ns}"


def answer_text(output: Any) -> str:
    """Return an answer as one text: as it is, as JSON when it is structured, empty when there was none.

    >>> answer_text({"refund": False})
    '{"refund":false}'
    """
    if output is None:
        return ""
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def _votes(alert: Event) -> list[Reading]:
    try:
        votes = msgspec.convert(alert.attributes.get("votes", []), list[Reading])
    except msgspec.ValidationError as cause:
        raise EventError(f"alert event {alert.event_id!r}: votes: {cause}", fix="votes are readings") from cause
    return [vote for vote in votes if vote.verdict is Verdict.BREACH] or votes


def _window(alert: Event, votes: Sequence[Reading]) -> tuple[int, int]:
    if not votes:
        return max(0, alert.ts_ns - WINDOW_WITHOUT_VOTES_SECONDS * NANOSECONDS), alert.ts_ns
    return min(vote.window_start_ns for vote in votes), max(vote.window_end_ns for vote in votes)


def _failures(source: Source, votes: Sequence[Reading], start_ns: int, end_ns: int) -> list[tuple[Event, Signature]]:
    """Return one (culprit, signature) per failing request, of the first group of signals that explains anything."""
    groups = {vote.group for vote in votes}
    finders = (
        (not votes or bool(groups & ERROR_GROUPS), _errors),
        ("quality" in groups, _poor_answers),
        ("latency" in groups, _slow_requests),
        ("saturation" in groups, _rejections),
        (True, _errors),
    )
    for wanted, find in finders:
        found = list(find(source, votes, start_ns, end_ns)) if wanted else []
        if found:
            return found
    return []


def _query(source: Source, start_ns: int, end_ns: int, *tests: Compare, **fields: str | bool) -> list[Event]:
    where = And((equals(**fields), *tests))
    return source.query(where, start_ns=start_ns, end_ns=end_ns, limit=MAX_FAILURES)


def _errors(source: Source, votes: Sequence[Reading], start_ns: int, end_ns: int) -> Iterator[tuple[Event, Signature]]:
    del votes
    steps: dict[str, list[Event]] = {}
    for number, event in enumerate(_query(source, start_ns, end_ns, error=True)):
        if event.event not in {"score", "alert", "incident"}:
            steps.setdefault(event.request_id or f"#{number}", []).append(event)
    for failing in steps.values():
        culprit = min(failing, key=_culprit_order)
        yield culprit, signature_of(culprit, "errors")


def _culprit_order(event: Event) -> tuple[int, int, int]:
    known = event.event in _KIND_ORDER
    order = _KIND_ORDER.index(event.event) if known else len(_KIND_ORDER)
    repeats_others = event.event in {"request", "log", "agent", "span"}
    return int(repeats_others), event.ts_ns, order


def _poor_answers(
    source: Source, votes: Sequence[Reading], start_ns: int, end_ns: int
) -> Iterator[tuple[Event, Signature]]:
    thresholds = [vote.threshold for vote in votes if vote.group == "quality" and vote.threshold is not None]
    below = Compare("score", Op.LT, max(thresholds, default=0.5))
    seen: set[str] = set()
    for event in _query(source, start_ns, end_ns, below, event="score", status="scored"):
        if event.request_id not in seen:
            seen.add(event.request_id)
            yield event, signature_of(event, f"quality:{event.attributes.get('scorer', '')}")


def _slow_requests(
    source: Source, votes: Sequence[Reading], start_ns: int, end_ns: int
) -> Iterator[tuple[Event, Signature]]:
    limits = [vote.threshold for vote in votes if vote.group == "latency" and vote.unit == "us" and vote.threshold]
    if limits:
        slow = Compare("duration_us", Op.GT, int(min(limits)))
        for event in _query(source, start_ns, end_ns, slow, event="request"):
            yield event, signature_of(event, "latency")


def _rejections(
    source: Source, votes: Sequence[Reading], start_ns: int, end_ns: int
) -> Iterator[tuple[Event, Signature]]:
    del votes
    for event in _query(source, start_ns, end_ns, event="limit", phase="admit", allowed=False):
        yield event, signature_of(event, "saturation")


def _sightings(events: Iterable[Event]) -> tuple[Sighting, ...]:
    times: dict[str, list[int]] = {}
    for event in events:
        times.setdefault(event.release, []).append(event.ts_ns)
    return tuple(
        Sighting(release=release, n=len(seen), first_ns=min(seen), last_ns=max(seen))
        for release, seen in sorted(times.items())
    )


def _unexplained(alert: Event, votes: Sequence[Reading], start_ns: int, end_ns: int, masks: Sequence[Mask]) -> Evidence:
    signals = "+".join(sorted({vote.group for vote in votes})) or str(alert.attributes.get("alert", "alert"))
    signature = Signature(service=alert.service, route=alert.route, signal=signals)
    return Evidence(
        alert=alert_episode(alert),
        page=_page(alert),
        title=f"{signals}: nothing in the window explains it",
        severity=_severity(alert, votes),
        signature=signature,
        fingerprint=fingerprint(signature, masks=masks),
        started_ns=start_ns,
        ended_ns=end_ns,
        failing=0,
        sightings=(Sighting(release=alert.release, n=0, first_ns=start_ns, last_ns=end_ns),),
        others={},
        reason=str(alert.attributes.get("reason", alert.message)),
    )


def _severity(alert: Event, votes: Sequence[Reading]) -> int:
    if any(vote.severe for vote in votes):
        return 1
    return 2 if alert.attributes.get("severity") == "page" else 3


def _title(signature: Signature, masks: Sequence[Mask]) -> str:
    where = signature.stage or signature.route or signature.service or "service"
    what = signature.error_type or signature.signal or signature.failure_class
    message = mask_message(signature.message, masks=masks)
    return f"{where}: {what}, {message}" if message else f"{where}: {what}"
