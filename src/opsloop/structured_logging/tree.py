"""The tree of one request's events, by their spans: what happened inside what.

A span is placed under the span that it names as its parent; a log line, score or limiter decision under the span that
it happened in. Whatever arrives, every event is in the tree exactly once: a span whose parent was never seen is an
orphan and stands under the root, a circle of parents is cut at its earliest span, and both are said so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from opsloop.event import Event
from opsloop.structured_logging.seen import SPAN_KINDS

__all__ = ["MAX_DEPTH", "Node", "PathStep", "critical_path", "end_ns", "is_span", "plant", "walk"]

MAX_DEPTH: Final = 100
"""A trace may be as deep as its sender likes; a tree that is to be written as JSON may not."""
_ANNOTATIONS: Final = frozenset(
    {"log", "limit", "score", "breach", "alert", "incident", "guard", "gate", "deploy", "gauge", "log.dropped"}
)


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event and what happened inside it, in order of start."""

    event: Event
    children: tuple[Node, ...] = ()
    orphan: bool = False
    """Its parent span was never seen."""
    cycle: bool = False
    """Its parents led back to itself, so it was cut loose."""


class PathStep(msgspec.Struct, frozen=True):
    """A stretch of the critical path: the time that nothing but this span accounts for."""

    name: str
    span_id: str
    self_ns: int


def is_span(event: Event) -> bool:
    """Tell whether an event is a span of its own, or only happened in one."""
    if not event.span_id or event.event in _ANNOTATIONS:
        return False
    return event.event in SPAN_KINDS or event.duration_us is not None


def end_ns(event: Event) -> int:
    """Return when an event ended: its start plus its duration, which counts as zero where there is none."""
    return event.ts_ns + (event.duration_us or 0) * 1000


def plant(events: Sequence[Event], root: Event | None = None) -> tuple[Node, ...]:
    """Return the tree of events that are in time order; orphans and loose events stand under ``root``.

    >>> a = Event(ts_ns=1, event="request", span_id="a")
    >>> b = Event(ts_ns=2, event="tool", span_id="b", parent_span_id="a")
    >>> [node.event.event for node in walk(plant([a, b], a))]
    ['request', 'tool']
    """
    owners: dict[tuple[str, str], int] = {}
    for index, event in enumerate(events):
        if is_span(event):
            owners.setdefault((event.trace_id, event.span_id), index)
    root_index = next((index for index, event in enumerate(events) if event is root), None)
    parents = [_parent(index, event, owners) for index, event in enumerate(events)]
    above_root: set[int | None] = {root_index}
    at = root_index
    while at is not None and parents[at] not in above_root:
        at = parents[at]
        above_root.add(at)
    orphans: set[int] = set()
    for index, event in enumerate(events):
        if parents[index] is None and index not in above_root:
            parents[index] = root_index
            if event.parent_span_id and event.event != "request":
                orphans.add(index)
    cycles = _cut(parents, root_index, above_root)
    children: dict[int | None, list[int]] = {}
    for index, parent in enumerate(parents):
        children.setdefault(parent, []).append(index)
    return _grow(events, children, orphans, cycles)


def _parent(index: int, event: Event, owners: dict[tuple[str, str], int]) -> int | None:
    """Return the event that this one happened in, if it is there; a circle is dealt with later."""
    owner = owners.get((event.trace_id, event.span_id)) if event.span_id else None
    if owner is not None and owner != index:
        return owner
    return owners.get((event.trace_id, event.parent_span_id)) if event.parent_span_id else None


def _cut(parents: list[int | None], root: int | None, above_root: set[int | None]) -> set[int]:
    """Cut every circle at its earliest event, in place; return where. The events are in time order."""
    cut: set[int] = set()
    settled: set[int] = set()
    for start in range(len(parents)):
        trail: dict[int, None] = {}
        at: int | None = start
        while at is not None and at not in settled and at not in trail:
            trail[at] = None
            at = parents[at]
        if at is not None and at in trail:
            circle = list(trail)[list(trail).index(at) :]
            first = root if root in circle else min(circle)
            cut.add(first)
            parents[first] = None if first in above_root else root
        settled.update(trail)
    return cut


def _grow(
    events: Sequence[Event], children: dict[int | None, list[int]], orphans: set[int], cycles: set[int]
) -> tuple[Node, ...]:
    """Build the nodes from the leaves up, without recursion; what is deeper than MAX_DEPTH lies flat at that depth."""
    order: list[int] = []
    held: dict[int, list[int]] = {}
    stack = [(index, 0, index) for index in children.get(None, ())]
    while stack:
        index, depth, holder = stack.pop()
        order.append(index)
        if depth:
            held.setdefault(holder, []).append(index)
        inner = index if depth < MAX_DEPTH else holder
        stack.extend((child, depth + (inner == index), inner) for child in reversed(children.get(index, ())))
    nodes: dict[int, Node] = {}
    for index in reversed(order):
        below = tuple(nodes[child] for child in held.get(index, ()))
        nodes[index] = Node(events[index], below, index in orphans, index in cycles)
    return tuple(nodes[index] for index in children.get(None, ()))


def walk(nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield every node, parents before children, in order of start."""
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def critical_path(root: Node) -> tuple[PathStep, ...]:
    """Return the stretches of the span that its duration consists of, in order of time; they add up to it exactly.

    From the end backward: the child that ended last was waited for; before it began, the one that ended last by then;
    what no child covers is the span's own. (B. Eaton et al., Distributed Latency Profiling through Critical Path
    Tracing, ACM Queue 20(1), 2022.)

    >>> a = Event(ts_ns=0, event="request", span_id="a", duration_us=10)
    >>> b = Event(ts_ns=2000, event="tool", tool="retrieve", span_id="b", parent_span_id="a", duration_us=5)
    >>> [(step.name, step.self_ns) for step in critical_path(plant([a, b], a)[0])]
    [('request', 2000), ('retrieve', 5000), ('request', 3000)]
    """
    steps: list[PathStep] = []
    stack: list[tuple[Node | None, Event, int, int]] = [(root, root.event, root.event.ts_ns, end_ns(root.event))]
    while stack:
        node, event, low, high = stack.pop()
        if node is None:
            if high > low:
                steps.append(PathStep(event.tool or event.event, event.span_id, high - low))
            continue
        pieces: list[tuple[Node | None, Event, int, int]] = []
        cursor = high
        for child in sorted((c for c in node.children if is_span(c.event)), key=lambda c: -end_ns(c.event)):
            start, end = max(child.event.ts_ns, low), min(end_ns(child.event), cursor)
            if start < end:
                pieces += [(None, event, end, cursor), (child, child.event, start, end)]
                cursor = start
        pieces.append((None, event, low, cursor))
        stack.extend(reversed(pieces))
    return tuple(reversed(steps))
