"""OpenTelemetry's spans and log records as events, without a collector: one processor for each provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from opsloop.event import SEVERITIES
from opsloop.structured_logging import Logger
from opsloop.structured_logging.context import current

__all__ = ["LogEvents", "SpanEvents"]

_KINDS: Final = {
    "chat": "llm",
    "generate_content": "llm",
    "text_completion": "llm",
    "embeddings": "embed",
    "retrieval": "retrieve",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "create_agent": "agent",
    "invoke_workflow": "agent",
}
_COLUMNS: Final = {
    "route": ("http.route",),
    "status_code": ("http.response.status_code", "http.status_code"),
    "error_type": ("error.type",),
    "model": ("gen_ai.response.model", "gen_ai.request.model"),
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "input_tokens": ("gen_ai.usage.input_tokens",),
    "output_tokens": ("gen_ai.usage.output_tokens",),
    "tool": ("gen_ai.tool.name",),
    "session_id": ("session.id", "gen_ai.conversation.id"),
    "user_id": ("user.id", "enduser.id"),
    "tenant": ("tenant.id", "tenant"),
}


class SpanEvents(SpanProcessor):
    """Writes each span as an event when it ends: ``provider.add_span_processor(SpanEvents(log))``.

    The kind follows from ``gen_ai.operation.name``; an outermost span is the ``request``, unless one of ours is open.
    Every attribute is kept under ``attributes`` as well. Stored once by trace and span id, however it arrives, so an
    exporter beside it does no harm.
    """

    def __init__(self, logger: Logger) -> None:
        """Write to ``logger``."""
        self._logger = logger

    def on_end(self, span: ReadableSpan) -> None:
        """Write one span."""
        context = span.context
        if context is None or span.start_time is None:
            return
        attributes = dict(span.attributes or {})
        failed = span.status.status_code is StatusCode.ERROR
        fields: dict[str, Any] = {
            **_columns(attributes),
            "attributes": {**attributes, "span_name": span.name},
            "trace_id": format_trace_id(context.trace_id),
            "span_id": format_span_id(context.span_id),
            "parent_span_id": format_span_id(span.parent.span_id) if span.parent else "",
            "duration_us": max(0, (span.end_time or span.start_time) - span.start_time) // 1000,
            "error": failed,
            "severity": "ERROR" if failed else "INFO",
            "message": span.status.description or span.name,
        }
        exception = next((event.attributes or {} for event in span.events if event.name == "exception"), {})
        if failed and exception:
            fields.setdefault("error_type", exception.get("exception.type", ""))
        if "request_id" not in current().fields:
            fields["request_id"] = str(attributes.get("request_id") or fields["trace_id"])
        self._logger.event(_kind(span, attributes), ts_ns=span.start_time, **fields)


class LogEvents(LogRecordProcessor):
    """Writes each OpenTelemetry log record as a ``log`` event."""

    def __init__(self, logger: Logger) -> None:
        """Write to ``logger``, whose own level applies as well."""
        self._logger = logger

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Write one record."""
        record = log_record.log_record
        attributes = dict(record.attributes or {})
        number = record.severity_number.value if record.severity_number else 9
        fields: dict[str, Any] = {
            **_columns(attributes),
            "attributes": attributes | ({"event_name": record.event_name} if record.event_name else {}),
            "severity": SEVERITIES[min(max(number - 1, 0) // 4, len(SEVERITIES) - 1)],
            "message": record.body if record.body is not None else record.event_name or "",
        }
        if record.trace_id:
            fields |= {
                "trace_id": format_trace_id(record.trace_id),
                "parent_span_id": format_span_id(record.span_id or 0),
            }
        self._logger.event("log", ts_ns=record.timestamp or record.observed_timestamp, **fields)

    def shutdown(self) -> None:
        """Do nothing: the logger's sink ends by itself."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the interface's own
        """Do nothing, and say that it worked."""
        return True


def _columns(attributes: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        column: next((attributes[name] for name in names if attributes.get(name) not in (None, "")), None)
        for column, names in _COLUMNS.items()
    }
    return {column: value for column, value in found.items() if value is not None}


def _kind(span: ReadableSpan, attributes: Mapping[str, Any]) -> str:
    kind = _KINDS.get(str(attributes.get("gen_ai.operation.name", "")))
    if kind:
        return kind
    outermost = span.kind is SpanKind.SERVER or span.parent is None
    return "request" if outermost and current().scope is None else "span"
