"""``correlate``: one request's whole story, from every event that belongs to it.

An event belongs when it has the request's id, or the trace id of one that has. Alerts, incidents, guards and gate
results that name the request are linked. Lines stand in the order in which they were written, a span at its end, so
the last line is the outcome. The story also says what is *missing*: it never passes a part for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from opsloop.errors import InputError, NotFoundError
from opsloop.event import SEVERITIES, Event
from opsloop.filter import And, Compare, Filter, Op, Or
from opsloop.stream import Database, Source
from opsloop.structured_logging.baseline import siblings_of, slow_steps, usual
from opsloop.structured_logging.links import surroundings
from opsloop.structured_logging.seen import MODEL_CALLS
from opsloop.structured_logging.sql import ids_statement
from opsloop.structured_logging.story import Story, Totals
from opsloop.structured_logging.tree import Node, critical_path, end_ns, is_span, plant, walk

__all__ = ["correlate", "tell"]

MAX_EVENTS: Final = 5_000
"""A story reads at most this many events; more are said to be missing."""
_ERROR: Final = SEVERITIES.index("ERROR")


def correlate(
    source: Source,
    request_id: str = "",
    *,
    trace_id: str = "",
    session_id: str = "",
    user_id: str = "",
    limit: int = MAX_EVENTS,
) -> Story:
    """Return the story of a request, or of all requests of a trace, a session or a person.

    Raises :class:`InputError` when no id is given, :class:`NotFoundError` when no event has it.

    >>> from opsloop.stream import MemoryStream
    >>> stream = MemoryStream([Event(ts_ns=1, event="request", request_id="req-1", status_code=200)])
    >>> correlate(stream, "req-1").request.status_code
    200
    """
    wanted = {"request_id": request_id, "trace_id": trace_id, "session_id": session_id, "user_id": user_id}
    keys = {name: value for name, value in wanted.items() if value}
    if not keys:
        raise InputError("correlate needs an id", fix="give request_id, trace_id, session_id or user_id")
    by_keys = tuple(Compare(name, Op.EQ, value) for name, value in keys.items())
    own = _ids(source, And(by_keys), limit=limit)
    if not own:
        named = ", ".join(f"{name} {value!r}" for name, value in keys.items())
        raise NotFoundError(f"no event has {named}", fix="check the id and the store's retention")
    traces = dict.fromkeys(trace for trace, _ in own if trace)
    many = (session_id or user_id) and not request_id
    requests = {request for _, request in own if request} if many else set()
    wider: list[Filter] = [Compare("trace_id", Op.EQ, trace) for trace in traces]
    wider += [Compare("request_id", Op.EQ, name) for name in sorted(requests)]
    if len(keys) > 1 or not all(trace or request in requests for trace, request in own):
        wider += by_keys  # events that no other part finds: to look into one index less is a fifth of the time
    found = source.query(Or(tuple(wider)), limit=limit)
    name = request_id or next((request for _, request in own if request), "")
    links, lost = surroundings(source, {name, *requests} - {""}, found)
    story = tell(found, name, links=links, lost=lost)
    story = msgspec.structs.replace(
        story,
        slow=slow_steps(story.events, usual(source, story.request)) if story.request is not None else (),
        siblings=siblings_of(source, story.failure) if story.failure is not None else None,
    )
    if len(found) < limit:
        return story
    sentence = f"everything after the first {limit} events"
    return msgspec.structs.replace(story, missing=(*story.missing, sentence), complete=False)


def _ids(source: Source, where: Filter, *, limit: int) -> list[tuple[str, str]]:
    """Return the ids of trace and request of the first matching events, each pair once, in their order."""
    if isinstance(source, Database):
        pairs = [(trace, request) for trace, request in source.rows(ids_statement(where, limit=limit))]
    else:
        pairs = [(event.trace_id, event.request_id) for event in source.query(where, limit=limit)]
    return list(dict.fromkeys(pairs))


def tell(
    events: Sequence[Event], request_id: str = "", *, links: Iterable[Event] = (), lost: Sequence[str] = ()
) -> Story:
    """Return the story that events in time order tell: the pure part of :func:`correlate`."""
    linked_events = tuple(links)
    own = [event for event in events if event not in linked_events]
    requests = tuple(event for event in own if event.event == "request")
    spans = {event.span_id for event in own if is_span(event)}
    mine = [event for event in requests if event.request_id == request_id] or list(requests)
    request = next((event for event in mine if event.parent_span_id not in spans), mine[0] if mine else None)
    tree = plant(own, request)
    ordered = _written_order(tree)
    notes = [f"a circle of spans was cut at {node.event.span_id}" for node in walk(tree) if node.cycle]
    missing = (*_missing(own, tree, request), *lost)
    root = next((node for node in walk(tree) if node.event is request), None)
    return Story(
        request_id=request_id,
        trace_ids=tuple(dict.fromkeys(event.trace_id for event in own if event.trace_id)),
        request=request,
        requests=requests,
        events=ordered,
        tree=tree,
        failure=_first_failure(ordered, request),
        critical_path=critical_path(root) if root else (),
        totals=_totals(tree, request),
        limits=tuple(event for event in own if event.event == "limit"),
        scores=tuple(event for event in own if event.event == "score"),
        links=linked_events,
        missing=missing,
        notes=tuple(notes),
        complete=not missing,
    )


def _written_order(tree: Sequence[Node]) -> tuple[Event, ...]:
    """Order by end; what ends together, inner before outer, then as it arrived."""
    depths: list[tuple[int, int, int, Event]] = []
    stack = [(0, node) for node in reversed(tree)]
    while stack:
        depth, node = stack.pop()
        depths.append((end_ns(node.event), -depth, len(depths), node.event))
        stack.extend((depth + 1, child) for child in reversed(node.children))
    return tuple(event for *_, event in sorted(depths, key=lambda entry: entry[:3]))


def _first_failure(ordered: Sequence[Event], request: Event | None) -> Event | None:
    """Return the failed step that ended first; without one a line of severity ERROR, then the request itself."""
    steps = [event for event in ordered if event.event != "request"]
    failed = next((event for event in steps if event.error), None)
    loud = next((event for event in steps if SEVERITIES.index(event.severity) >= _ERROR), None)
    return failed or loud or (request if request is not None and request.error else None)


def _totals(tree: Sequence[Node], request: Event | None) -> Totals:
    """Sum tokens and cost over model calls, the innermost of those that wrap each other."""
    nodes = list(walk(tree))
    innermost = [node.event for node in nodes if node.event.event in MODEL_CALLS and not _wraps(node)]

    def total(name: str) -> int | None:
        known = [getattr(event, name) for event in innermost if getattr(event, name) is not None]
        return sum(known) if known else None

    retries = request.attributes.get("retries", 0) if request is not None else 0
    return Totals(
        events=len(nodes),
        errors=sum(node.event.error and node.event.event != "request" for node in nodes),
        model_calls=len(innermost),
        input_tokens=total("input_tokens"),
        output_tokens=total("output_tokens"),
        cost_microusd=total("cost_microusd"),
        retries=retries if isinstance(retries, int) else 0,
        duration_us=request.duration_us if request is not None else None,
    )


def _wraps(node: Node) -> bool:
    """Tell whether a model call repeats the numbers of one inside it."""
    counts = ("input_tokens", "output_tokens", "cost_microusd")
    return any(
        inner.event.event in MODEL_CALLS and any(getattr(inner.event, name) is not None for name in counts)
        for inner in walk(node.children)
    )


def _missing(own: Sequence[Event], tree: Sequence[Node], request: Event | None) -> list[str]:
    """Say what the events themselves prove to be absent."""
    missing: list[str] = []
    if request is None:
        missing.append("the canonical request event: it still runs, or its line was lost")
    parents = {node.event.parent_span_id for node in walk(tree) if node.orphan}
    missing += [f"span {span}, the parent of others" for span in sorted(parents)]
    if request is not None and isinstance(request.attributes.get("stages"), dict):
        seen = {event.tool or event.event for event in own}
        missing += [
            f"stage {name!r}, timed by the request" for name in request.attributes["stages"] if name not in seen
        ]
    admitted, settled = set(), set()
    for event in own:
        if event.event == "limit" and event.attributes.get("reservation"):
            if event.attributes.get("phase") == "settle":
                settled.add(str(event.attributes["reservation"]))
            elif event.attributes.get("allowed"):
                admitted.add(str(event.attributes["reservation"]))
    missing += _sampled_away(own)
    if request is not None:
        missing += [f"the settlement of reservation {name!r}" for name in sorted(admitted - settled)]
    return missing


def _sampled_away(own: Sequence[Event]) -> list[str]:
    """Say which kinds a sampler may have thinned: only failures of them are here, kept for being failures."""
    kept: dict[str, bool] = {}
    for event in own:
        if "sample_probability" in event.attributes:
            failed = event.error or SEVERITIES.index(event.severity) >= _ERROR
            kept[event.event] = kept.get(event.event, False) or not failed
    return [f"{kind} events that did not fail, if there were any: sampled" for kind, whole in kept.items() if not whole]
