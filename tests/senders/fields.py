"""Which field of a sender becomes which column: found by mapping each of its spans again with that field alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from opsloop.event import FIELDS, Event
from opsloop.ingest.mapping import KIND_FALLBACKS, KIND_NAMES, SpanRecord, map_span

CONTENT = ("input", "output", "documents", "finish_reason")
OURS = {*CONTENT, "span_name", "negative_duration_ns"}
MARKS = {*KIND_NAMES, *KIND_FALLBACKS, "logfire.span_type"}
CHUNK = "the first span event that marks a chunk"
EXCEPTION = "the span event `exception`"
SHOWN = (
    "model",
    "provider",
    "input_tokens",
    "output_tokens",
    "cost_microusd",
    "time_to_first_token_us",
    "error",
    "error_type",
    "release",
    "environment",
    "tenant",
    "user_id",
    "session_id",
)


def fields_of(events: Iterable[Event]) -> dict[str, set[str]]:
    """Return, for every field that a sender's spans carry, the columns and texts that it fills."""
    filled: dict[str, set[str]] = {}
    for event in events:
        if not event.span_id:
            continue
        sent = {name: value for name, value in event.attributes.items() if name not in OURS}
        marks = {name: value for name, value in sent.items() if name in MARKS}
        bare = _mapped(event, marks)
        for name, value in sent.items():
            if name in MARKS:
                changed = {"event"} if _mapped(event, {})["event"] != bare["event"] else set()
            else:
                alone = _mapped(event, {**marks, name: value})
                changed = {column for column in alone if alone[column] != bare[column]}
            filled.setdefault(re.sub(r"\.\d+\.", ".N.", name), set()).update(changed)
        whole = _mapped(event, sent)
        if event.time_to_first_token_us is not None and whole["time_to_first_token_us"] is None:
            filled.setdefault(CHUNK, set()).add("time_to_first_token_us")
        if event.error_type and not whole["error_type"]:
            filled.setdefault(EXCEPTION, set()).add("error_type")
    return filled


def _mapped(event: Event, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return what a span with these attributes and no name becomes, by column and text."""
    span = SpanRecord(
        resource={},
        scope="",
        trace_id=event.trace_id,
        span_id=event.span_id,
        parent_span_id=event.parent_span_id,
        name="",
        kind=0,
        start_ns=event.ts_ns,
        end_ns=event.ts_ns + (event.duration_us or 0) * 1000,
        status=2 if event.error else 0,
        status_message="",
        attributes=attributes,
        span_events=[],
    )
    mapped = next(map_span(span))
    texts = {f"attributes.{name}": mapped.attributes.get(name) for name in CONTENT}
    return {**{name: getattr(mapped, name) for name in FIELDS if name != "attributes"}, **texts}


def field_table(events: Iterable[Event]) -> str:
    """Return a sender's fields as the page shows them."""
    filled = fields_of(events)
    lines = ["| field | becomes |", "|---|---|"]
    for name in sorted(name for name in filled if filled[name]):
        shown = name if name in {CHUNK, EXCEPTION} else f"`{name}`"
        lines.append(f"| {shown} | {', '.join(f'`{column}`' for column in sorted(filled[name]))} |")
    kept = ", ".join(f"`{name}`" for name in sorted(filled) if not filled[name])
    return "\n".join([*lines, "", f"Kept as attributes only: {kept}."])


def column_table(stories: Mapping[str, tuple[str, list[Event]]]) -> str:
    """Return which column which sender fills, for senders by name with their releases and events."""
    lines = [f"| | {' | '.join(stories)} |", f"|---|{'---|' * len(stories)}"]
    lines.append(f"| release | {' | '.join(release for release, _ in stories.values())} |")
    told = [events for _, events in stories.values()]
    kinds = [", ".join(sorted({f"`{event.event}`" for event in events})) for events in told]
    lines.append(f"| events | {' | '.join(kinds)} |")
    for column in SHOWN:
        known = [
            "yes" if any(getattr(event, column) not in {None, "", False} for event in events) else "–"
            for events in told
        ]
        lines.append(f"| `{column}` | {' | '.join(known)} |")
    for name in CONTENT:
        known = ["yes" if any(name in event.attributes for event in events) else "–" for events in told]
        lines.append(f"| `attributes.{name}` | {' | '.join(known)} |")
    return "\n".join(lines)
