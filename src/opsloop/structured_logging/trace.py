"""A story for other tools: OTLP traces in JSON, and the Trace Event Format that Perfetto and Chrome open.

A span begins at its event's time and lasts its duration; what only happened in a span is an event of it (OTLP) or an
instant (Perfetto). Spans without ids of the right form get none made up: they are left out of OTLP and counted there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from opsloop.event import Event, flatten
from opsloop.structured_logging.otlp import RESOURCE, attributes_of, is_hex, pairs, resource_of
from opsloop.structured_logging.story import Story
from opsloop.structured_logging.tree import Node, end_ns, is_span, walk

__all__ = ["TRACE_FORMATS", "encode_otlp_traces", "encode_trace_events"]

TRACE_FORMATS: Final = ("otlp", "perfetto")
_SERVER, _INTERNAL, _CLIENT = 2, 1, 3
_KINDS: Final = {"request": _SERVER, "llm": _CLIENT, "embed": _CLIENT}


def encode_otlp_traces(story: Story) -> bytes:
    """Return the body of an OTLP/HTTP JSON request for ``/v1/traces``.

    >>> span = Event(ts_ns=1, event="tool", trace_id="a" * 32, span_id="b" * 16, request_id="r", error=True)
    >>> from opsloop.structured_logging.correlation import tell
    >>> b'"status":{"code":2' in encode_otlp_traces(tell([span], "r"))
    True
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for node in walk(story.tree):
        event = node.event
        if is_span(event) and is_hex(event.trace_id, 32) and is_hex(event.span_id, 16):
            inside = [child.event for child in node.children if not is_span(child.event)]
            groups.setdefault(tuple(getattr(event, name) for name in RESOURCE), []).append(_span(event, inside))
    resources = [
        {
            "resource": resource_of(origin),
            "scopeSpans": [{"scope": {"name": "opsloop"}, "spans": spans}],
        }
        for origin, spans in groups.items()
    ]
    return msgspec.json.encode({"resourceSpans": resources})


def _span(event: Event, inside: Sequence[Event]) -> dict[str, Any]:
    span: dict[str, Any] = {
        "traceId": event.trace_id,
        "spanId": event.span_id,
        "name": _name(event),
        "kind": _KINDS.get(event.event, _INTERNAL),
        "startTimeUnixNano": str(event.ts_ns),
        "endTimeUnixNano": str(end_ns(event)),
        "attributes": pairs(attributes_of(event)),
        "status": {"code": 2, "message": event.error_type or event.message} if event.error else {},
        "events": [
            {"timeUnixNano": str(one.ts_ns), "name": one.message or one.event, "attributes": pairs(attributes_of(one))}
            for one in inside
        ],
    }
    return span | ({"parentSpanId": event.parent_span_id} if is_hex(event.parent_span_id, 16) else {})


def encode_trace_events(story: Story) -> bytes:
    """Return a JSON object of the Trace Event Format: open it at ui.perfetto.dev or in chrome://tracing.

    What overlaps without being nested lies on a track of its own, since a track shows only what is nested.

    >>> from opsloop.structured_logging.correlation import tell
    >>> encode_trace_events(tell([Event(ts_ns=5000, event="tool", span_id="s", duration_us=2)], "r"))[:62]
    b'{"displayTimeUnit":"ms","traceEvents":[{"name":"tool","cat":"t'
    """
    ends: list[list[int]] = []
    found = [_trace_event(node, _track(node.event, ends)) for node in _by_time(walk(story.tree))]
    return msgspec.json.encode({"displayTimeUnit": "ms", "traceEvents": found})


def _by_time(nodes: Iterable[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: (node.event.ts_ns, -end_ns(node.event)))


def _track(event: Event, ends: list[list[int]]) -> int:
    """Return the first track on which the event is nested or alone; ``ends`` holds what is open on each track."""
    for number, open_ends in enumerate(ends):
        while open_ends and open_ends[-1] <= event.ts_ns:
            open_ends.pop()
        if not open_ends or end_ns(event) <= open_ends[-1]:
            open_ends.append(end_ns(event))
            return number
    ends.append([end_ns(event)])
    return len(ends) - 1


def _trace_event(node: Node, track: int) -> dict[str, Any]:
    event = node.event
    common = {
        "name": _name(event),
        "cat": f"{event.event},error" if event.error else event.event,
        "ts": event.ts_ns / 1000,
        "pid": event.service or "opsloop",
        "tid": track,
    }
    details = {**{name: str(getattr(event, name)) for name in ("request_id", "message", "error_type", "model")
                  if getattr(event, name)}, **flatten(event.attributes)}  # fmt: skip
    kind = {"ph": "X", "dur": event.duration_us or 0} if is_span(event) else {"ph": "i", "s": "t"}
    return {**common, **kind, "args": details}


def _name(event: Event) -> str:
    return event.tool or event.model or (event.route if event.event == "request" else "") or event.event
