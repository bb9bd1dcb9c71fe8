"""Spans and log records of any dialect, as events.

Rule
    All dialects at once, decided per attribute, never per span: real spans mix OpenTelemetry ``gen_ai`` (three
    generations), OpenInference, Traceloop, AI SDK, Langfuse, Logfire and pydantic-ai names. Each promoted column has
    one fixed list of names, the first that is not empty wins, and every original attribute is kept.
Limits
    A number that does not parse stays an attribute and leaves its column empty: absent is never zero. Tokens and cost
    stand only on the kinds ``llm`` and ``embed``, since wrappers repeat what the call below them used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from opsloop.event import INT64_MAX, Event, Severity
from opsloop.ingest.attributes import present
from opsloop.ingest.content import content_of

__all__ = ["LogRecord", "SpanRecord", "map_log", "map_span"]

SPAN_KIND_SERVER: Final = 2
STATUS_ERROR: Final = 2


class SpanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished span, of whatever encoding."""

    resource: dict[str, Any]
    scope: str
    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    status_message: str
    attributes: dict[str, Any]
    span_events: list[tuple[int, str, dict[str, Any]]]


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One log record, of whatever encoding."""

    resource: dict[str, Any]
    scope: str
    ts_ns: int
    severity: int
    body: Any
    event_name: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


KIND_NAMES: Final = ("langfuse.observation.type", "openinference.span.kind", "gen_ai.operation.name")
KIND_FALLBACKS: Final = ("llm.request.type", "traceloop.span.kind", "ai.operationId")
KINDS: Final[Mapping[str, str]] = {
    "chat": "llm",
    "generate_content": "llm",
    "text_completion": "llm",
    "completion": "llm",
    "generate": "llm",
    "generation": "llm",
    "llm": "llm",
    "fetch_response": "span",
    "embeddings": "embed",
    "embedding": "embed",
    "ai.embed.doEmbed": "embed",
    "ai.embedMany.doEmbed": "embed",
    "retrieval": "retrieve",
    "retriever": "retrieve",
    "rerank": "rerank",
    "reranker": "rerank",
    "execute_tool": "tool",
    "tool": "tool",
    "ai.toolCall": "tool",
    "guardrail": "guardrail",
    "apply_guardrail": "guardrail",
    "agent": "agent",
    "chain": "agent",
    "workflow": "agent",
    "task": "agent",
    "create_agent": "agent",
    "invoke_agent": "agent",
    "invoke_workflow": "agent",
    "agent_step": "agent",
    "plan": "agent",
    "span": "span",
    "event": "span",
}
MODEL: Final = (
    "langfuse.observation.model.name",
    "gen_ai.response.model",
    "ai.response.model",
    "llm.response.model_name",
    "gen_ai.request.model",
    "llm.request.model_name",
    "llm.model_name",
    "ai.model.id",
    "embedding.model_name",
    "reranker.model_name",
)
PROVIDER: Final = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider")
INPUT_TOKENS: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
    "ai.usage.tokens",
)
OUTPUT_TOKENS: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
)
COST_USD: Final = ("llm.cost.total", "gen_ai.usage.cost", "operation.cost")
FIRST_TOKEN_SECONDS: Final = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
)
FIRST_TOKEN_MILLISECONDS: Final = ("ai.response.msToFirstChunk", "ai.stream.msToFirstChunk")
SESSION: Final = (
    "session.id",
    "gen_ai.conversation.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
    "ai.telemetry.metadata.sessionId",
)
USER: Final = (
    "user.id",
    "enduser.id",
    "langfuse.user.id",
    "traceloop.association.properties.user_id",
    "ai.telemetry.metadata.userId",
)
TENANT: Final = ("tenant", "tenant.id", "tenant_id", "traceloop.association.properties.customer_id")
REQUEST: Final = ("request_id", "request.id", "opsloop.request_id", "http.request.header.x-request-id")
TOOL: Final = ("gen_ai.tool.name", "tool.name", "ai.toolCall.name")
ROUTE: Final = ("http.route", "route")
STATUS_CODE: Final = ("http.response.status_code", "http.status_code")
SEVERITIES: Final[tuple[Severity, ...]] = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
PROVIDERS: Final[Mapping[str, str]] = {
    "az.ai.inference": "azure.ai.inference",
    "az.ai.openai": "azure.ai.openai",
    "vertex_ai": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
    "xai": "x_ai",
}


def map_span(span: SpanRecord) -> Iterator[Event]:
    """Yield the event of a span, then those of its span events: exceptions, messages and evaluation results."""
    attributes = span.attributes
    if _text(attributes, ("logfire.span_type",)) == "pending_span":
        return  # sent again, whole, when it ends
    kind = _span_kind(span)
    counted = kind in {"llm", "embed"}
    exception = next((event[2] for event in span.span_events if event[1] == "exception"), {})
    status_code = _number(attributes, STATUS_CODE, most=999)
    error = span.status == STATUS_ERROR or (status_code or 0) >= 500
    kept = {**content_of(attributes), **attributes}
    kept.setdefault("span_name", span.name)
    if span.end_ns < span.start_ns:
        kept["negative_duration_ns"] = span.end_ns - span.start_ns
    yield Event(
        ts_ns=span.start_ns,
        event=kind,
        event_id=f"{span.trace_id}:{span.span_id}",
        **_origin(span.resource),
        **_identity(attributes, span.trace_id),
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        route=_text(attributes, ROUTE),
        severity="ERROR" if error else "INFO",
        status_code=status_code,
        error=error,
        error_type=(_text(attributes, ("error.type",)) or _text(exception, ("exception.type",))) if error else "",
        duration_us=(span.end_ns - span.start_ns) // 1000 if span.end_ns >= span.start_ns else None,
        time_to_first_token_us=_first_token_us(attributes),
        model=_text(attributes, MODEL),
        provider=_provider(attributes),
        input_tokens=_number(attributes, INPUT_TOKENS) if counted else None,
        output_tokens=_number(attributes, OUTPUT_TOKENS) if counted else None,
        cost_microusd=_cost_microusd(attributes) if counted else None,
        tool=_tool(attributes, kind),
        message=span.status_message or _text(exception, ("exception.message",)) or span.name,
        attributes=kept,
    )
    for position, (ts_ns, name, fields) in enumerate(span.span_events):
        log = LogRecord(
            resource=span.resource,
            scope=span.scope,
            ts_ns=ts_ns or span.start_ns,
            severity=17 if name == "exception" else 9,
            body=fields.get("exception.message", name),
            event_name=name,
            trace_id=span.trace_id,
            span_id=span.span_id,
            attributes=fields,
        )
        for event in map_log(log):
            identity = event.event_id or f"{span.trace_id}:{span.span_id}:{position}"
            yield event.replace(event_id=identity, request_id=_identity(attributes, span.trace_id)["request_id"])


def map_log(log: LogRecord) -> Iterator[Event]:
    """Yield the event of a log record; an evaluation result becomes a ``score``."""
    name = log.event_name or _text(log.attributes, ("event.name",))
    if name == "gen_ai.evaluation.result":
        yield _score(log)
        return
    severity = SEVERITIES[min(max(log.severity - 1, 0) // 4, 5)] if log.severity else "INFO"
    body = log.body if isinstance(log.body, str) else "" if log.body is None else msgspec.json.encode(log.body).decode()
    attributes = dict(log.attributes)
    if log.severity and (log.severity - 1) % 4:
        attributes["severity_number"] = log.severity
    if name:
        attributes["event_name"] = name
    if isinstance(log.body, dict | list):
        attributes["body"] = log.body
    kind = _text(log.attributes, ("event",))
    yield Event(
        ts_ns=log.ts_ns,
        event=kind if 0 < len(kind) <= 64 else "log",
        event_id=_text(log.attributes, ("event_id",)),
        **_origin(log.resource),
        **_identity(log.attributes, log.trace_id),
        trace_id=log.trace_id,
        parent_span_id=log.span_id,
        route=_text(log.attributes, ROUTE),
        severity=severity,
        status_code=_number(log.attributes, STATUS_CODE, most=999),
        error=severity in {"ERROR", "FATAL"},
        error_type=_text(log.attributes, ("error.type", "exception.type")),
        tool=_text(log.attributes, TOOL),
        message=body or _text(log.attributes, ("exception.message",)) or name,
        attributes=attributes,
    )


def _score(log: LogRecord) -> Event:
    """Return the ``score`` event of a ``gen_ai.evaluation.result``: without a value it is unscored, never 0."""
    attributes = log.attributes
    scorer = _text(attributes, ("gen_ai.evaluation.name",)) or "unnamed"
    score = _real(attributes, ("gen_ai.evaluation.score.value",))
    scored = score is not None and score <= 1
    version = _text(attributes, ("gen_ai.evaluation.evaluator.version",)) or "external"
    fields: dict[str, Any] = {
        **attributes,
        "scorer": scorer,
        "scorer_version": version,
        "status": "scored" if scored else "unscored",
        "label": _text(attributes, ("gen_ai.evaluation.score.label",)),
        "explanation": _text(attributes, ("gen_ai.evaluation.explanation",)),
        "probability": 1.0,
    }
    if scored:
        fields["score"] = score
    identity = _identity(attributes, log.trace_id)
    return Event(
        ts_ns=log.ts_ns,
        event="score",
        event_id=f"score:{identity['request_id']}:{scorer}:{version}:{log.span_id}",
        **_origin(log.resource),
        **identity,
        trace_id=log.trace_id,
        parent_span_id=log.span_id,
        error_type=_text(attributes, ("error.type",)),
        message=f"{scorer}: {score if scored else 'unscored'}",
        attributes=fields,
    )


def _span_kind(span: SpanRecord) -> str:
    """Return the event kind of a span: an explicit mark of any dialect first, then its place in the trace."""
    attributes = span.attributes
    for name in KIND_NAMES:
        mark = _text(attributes, (name,))
        kind = KINDS.get(mark) or KINDS.get(mark.lower())
        if kind:
            return kind
    for name in KIND_FALLBACKS:
        mark = _text(attributes, (name,))
        if mark.endswith((".doGenerate", ".doStream")):
            return "llm"
        kind = KINDS.get(mark) or ("agent" if mark.startswith("ai.") else None)
        if kind:
            return kind
    if _text(attributes, ("gen_ai.tool.name", "gen_ai.tool.call.id")):
        return "tool"
    return "request" if span.kind == SPAN_KIND_SERVER or not span.parent_span_id else "span"


def _origin(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "service": _text(resource, ("service.name",)),
        "release": _text(resource, ("service.version",)),
        "environment": _text(resource, ("deployment.environment.name", "deployment.environment")),
    }


def _identity(attributes: Mapping[str, Any], trace_id: str) -> dict[str, Any]:
    """Return whose event it is; a trace without a request id of its own is one request."""
    return {
        "request_id": _text(attributes, REQUEST) or trace_id,
        "tenant": _text(attributes, TENANT),
        "user_id": _text(attributes, USER),
        "session_id": _text(attributes, SESSION),
    }


def _text(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first value that is not empty, as text; a one-element list counts as its element."""
    for name in present(attributes, names):
        value = attributes.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value not in (None, "", [], {}):
            return value if isinstance(value, str) else str(value)
    return ""


def _number(attributes: Mapping[str, Any], names: tuple[str, ...], *, most: int = INT64_MAX) -> int | None:
    """Return the first value that is a whole number in range, or ``None``."""
    for name in present(attributes, names):
        value = attributes.get(name)
        if isinstance(value, str) and value.isdigit() and len(value) < 20:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
    return None


def _real(attributes: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """Return the first value that is a number from 0 up, or ``None``."""
    for name in present(attributes, names):
        value = attributes.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
            return float(value)
    return None


def _cost_microusd(attributes: Mapping[str, Any]) -> int | None:
    """Return the cost in micro-USD; senders give float USD, rounded here once."""
    details = attributes.get("langfuse.observation.cost_details")
    if isinstance(details, str):
        try:
            details = msgspec.json.decode(details)
        except msgspec.DecodeError:
            details = None
    usd = _real(details, ("total",)) if isinstance(details, Mapping) else None
    usd = _real(attributes, COST_USD) if usd is None else usd
    return None if usd is None else round(usd * 1_000_000)


def _first_token_us(attributes: Mapping[str, Any]) -> int | None:
    """Return the time to first token in µs: two names give seconds, two give milliseconds."""
    seconds = _real(attributes, FIRST_TOKEN_SECONDS)
    if seconds is not None:
        return round(seconds * 1_000_000)
    milliseconds = _real(attributes, FIRST_TOKEN_MILLISECONDS)
    return None if milliseconds is None else round(milliseconds * 1000)


def _provider(attributes: Mapping[str, Any]) -> str:
    """Return the provider under its present name; older senders used others."""
    name = _text(attributes, PROVIDER)
    return PROVIDERS.get(name, name)


def _tool(attributes: Mapping[str, Any], kind: str) -> str:
    """Return the tool's name; a retrieval is the tool ``retrieve``, as the log room calls it."""
    name = _text(attributes, TOOL)
    if not name and kind == "tool":
        name = _text(attributes, ("traceloop.entity.name",))
    return name or ("retrieve" if kind == "retrieve" else "")
