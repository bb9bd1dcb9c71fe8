"""What an open scope learns of the events that are written inside it: spans, and what model calls used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opsloop.event import INT64_MAX
from opsloop.structured_logging.context import Context, Seen
from opsloop.structured_logging.record import text_of

__all__ = ["AMOUNTS", "MODEL_CALLS", "SPAN_KINDS", "observe", "seen"]

SPAN_KINDS: Final = frozenset({"request", "llm", "embed", "retrieve", "rerank", "tool", "agent", "guardrail", "span"})
"""The kinds that are spans of their own; any other event of a request happens in the span that is open."""
MODEL_CALLS: Final = frozenset({"llm", "embed"})
"""The only kinds whose tokens and cost are counted."""
AMOUNTS: Final = ("input_tokens", "output_tokens", "cost_microusd")
"""What is counted of them."""


def observe(kind: str, fields: Mapping[str, Any], context: Context) -> None:
    """Tell the open scope of a span event that was written without a scope of its own."""
    if context.scope is not None and kind != "request":
        parent = fields.get("parent_span_id") if "span_id" in fields else context.fields.get("span_id")
        context.scope.observe(seen(kind, fields, parent=parent), counted=False)


def seen(kind: str, fields: Mapping[str, Any], *, parent: Any) -> Seen:
    """Read what a scope needs from an event's fields and its parent's id, each only where it has the column's type.

    >>> seen("llm", {"input_tokens": 7, "output_tokens": "many", "error": 1}, parent=None)
    Seen(kind='llm', stage='llm', parent_span_id='', duration_us=None, amounts={'input_tokens': 7}, error=False, \
error_type='')
    """
    duration_us = fields.get("duration_us")
    counted = AMOUNTS if kind in MODEL_CALLS else ()
    return Seen(
        kind=kind,
        stage=_text(fields.get("tool")) or kind,
        parent_span_id=_text(parent),
        duration_us=duration_us if _is_count(duration_us) else None,
        amounts={name: fields[name] for name in counted if _is_count(fields.get(name))},
        error=fields.get("error") is True,
        error_type=_text(fields.get("error_type")),
    )


def _text(value: Any) -> str:
    return "" if value is None else text_of(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= INT64_MAX
