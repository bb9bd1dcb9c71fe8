"""Spans and log records of any dialect, as events.

Rule
    All dialects at once, decided per attribute, never per span: real spans mix OpenTelemetry ``gen_ai`` (three
    generations), OpenInference, Traceloop, AI SDK, Langfuse, Logfire, MLflow and pydantic-ai names. Each promoted
    column has one fixed list of names, the first that is not empty wins, and every original attribute is kept. A name
    is an attribute's, or a path into one that holds JSON; a text in JSON quotes is what it quotes. The marks of a
    stream's chunks are no log lines: the first of them is the time to first token.
Limits
    A number that does not parse stays an attribute and leaves its column empty: absent is never zero. Tokens and cost
    stand only on the kinds ``llm`` and ``embed``, since wrappers repeat what the call below them used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from opsloop.clock import parse_time
from opsloop.event import INT64_MAX, Event, Severity
from opsloop.ingest.attributes import Name, of_names, present
from opsloop.ingest.content import content_of, values_of

__all__ = ["LogRecord", "SpanRecord", "map_log", "map_span", "origin_of", "span_kind"]

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


KIND_NAMES: Final = (
    "langfuse.observation.type",
    "openinference.span.kind",
    "mlflow.spanType",
    "gen_ai.operation.name",
)
KIND_FALLBACKS: Final = ("llm.request.type", "traceloop.span.kind", "ai.operationId")
ROOT_KINDS: Final = frozenset({"agent", "span"})
"""The kinds that stand for the whole request when nothing stands above them."""
KINDS: Final[Mapping[str, str]] = {
    "chat": "llm",
    "chat_model": "llm",
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
MODEL: Final[tuple[Name, ...]] = (
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
    "mlflow.llm.model",
    ("llm.invocation_parameters", "model"),
    ("mlflow.spanInputs", "model"),
)
PROVIDER: Final = (
    "gen_ai.provider.name",
    "gen_ai.system",
    "llm.provider",
    "llm.system",
    "ai.model.provider",
    "mlflow.llm.provider",
)
INPUT_TOKENS: Final[tuple[Name, ...]] = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
    "ai.usage.tokens",
    ("langfuse.observation.usage_details", "prompt_tokens"),
    ("langfuse.observation.usage_details", "input_tokens"),
    ("langfuse.observation.usage_details", "input"),
    ("mlflow.chat.tokenUsage", "input_tokens"),
    ("mlflow.spanOutputs", "usage", "prompt_tokens"),
)
OUTPUT_TOKENS: Final[tuple[Name, ...]] = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
    ("langfuse.observation.usage_details", "completion_tokens"),
    ("langfuse.observation.usage_details", "output_tokens"),
    ("langfuse.observation.usage_details", "output"),
    ("mlflow.chat.tokenUsage", "output_tokens"),
)
COST_USD: Final[tuple[Name, ...]] = (
    ("langfuse.observation.cost_details", "total"),
    "llm.cost.total",
    "gen_ai.usage.cost",
    "operation.cost",
    ("mlflow.llm.cost", "total_cost"),
)
FIRST_TOKEN_SECONDS: Final = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
)
FIRST_TOKEN_MILLISECONDS: Final = ("ai.response.msToFirstChunk", "ai.stream.msToFirstChunk")
FIRST_TOKEN_TIMES: Final = ("langfuse.observation.completion_start_time",)
CHUNK_MARKS: Final = (
    "First Token Stream Event",
    "gen_ai.content.completion.chunk",
    "llm.content.completion.chunk",
    "mlflow.chunk.item.",
)
"""How the span events begin that mark a chunk of a streamed answer."""
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
TENANT: Final[tuple[Name, ...]] = (
    "tenant",
    "tenant.id",
    "tenant_id",
    "traceloop.association.properties.customer_id",
    "langfuse.trace.metadata.tenant",
    "mlflow.traceTag.tenant",
    ("metadata", "tenant"),
)
REQUEST: Final[tuple[Name, ...]] = (
    "request_id",
    "request.id",
    "opsloop.request_id",
    "http.request.header.x-request-id",
    "langfuse.trace.metadata.request_id",
    "mlflow.traceTag.request_id",
    ("metadata", "request_id"),
)
ENVIRONMENT: Final = ("deployment.environment.name", "deployment.environment")
RELEASE: Final = ("service.version",)
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
    written_by_logfire = _text(attributes, ("logfire.span_type",))
    if written_by_logfire == "pending_span":
        return  # sent again, whole, when it ends
    kind = span_kind(span)
    counted = kind in {"llm", "embed"}
    if written_by_logfire == "log" and not counted:
        yield from _log_span(span)
        yield from _span_events(span)
        return
    exception = next((event[2] for event in span.span_events if event[1] == "exception"), {})
    status_code = _number(attributes, STATUS_CODE, most=999)
    error = span.status == STATUS_ERROR or (status_code or 0) >= 500
    kept = {**content_of(attributes, kind=kind), **attributes}
    kept.setdefault("span_name", span.name)
    start_ns = _start_ns(span)
    if span.end_ns < start_ns:
        kept["negative_duration_ns"] = span.end_ns - start_ns
    yield Event(
        ts_ns=start_ns,
        event=kind,
        event_id=f"{span.trace_id}:{span.span_id}",
        **origin_of(span.resource, attributes),
        **_identity(attributes, span.trace_id),
        **_served(attributes),
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        severity="ERROR" if error else "INFO",
        status_code=status_code,
        error=error,
        error_type=(_text(attributes, ("error.type",)) or _text(exception, ("exception.type",))) if error else "",
        duration_us=(span.end_ns - start_ns) // 1000 if span.end_ns >= start_ns else None,
        time_to_first_token_us=_first_token_us(span),
        input_tokens=_number(attributes, INPUT_TOKENS) if counted else None,
        output_tokens=_number(attributes, OUTPUT_TOKENS) if counted else None,
        cost_microusd=_cost_microusd(attributes) if counted else None,
        tool=_tool(span, kind),
        message=span.status_message or _text(exception, ("exception.message",)) or _title(span),
        attributes=kept,
    )
    yield from _span_events(span)


def _span_events(span: SpanRecord) -> Iterator[Event]:
    """Yield an event for each span event but the marks of chunks; whose it is, the span says."""
    if not span.span_events:
        return
    owner = {name: value for name, value in _identity(span.attributes, span.trace_id).items() if value}
    for position, (ts_ns, name, fields) in enumerate(span.span_events):
        if name.startswith(CHUNK_MARKS):
            continue
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
            yield event.replace(event_id=identity, **owner)


def _log_span(span: SpanRecord) -> Iterator[Event]:
    """Yield the log line that Logfire sends as a span without a duration."""
    log = LogRecord(
        resource=span.resource,
        scope=span.scope,
        ts_ns=span.start_ns,
        severity=_number(span.attributes, ("logfire.level_num",), most=24) or 9,
        body=_title(span),
        event_name="",
        trace_id=span.trace_id,
        span_id=span.parent_span_id,
        attributes=span.attributes,
    )
    for event in map_log(log):
        yield event.replace(event_id=f"{span.trace_id}:{span.span_id}", span_id=span.span_id)


def map_log(log: LogRecord) -> Iterator[Event]:
    """Yield the event of a log record; an evaluation result becomes a ``score``."""
    name = log.event_name or _text(log.attributes, ("event.name",))
    if name == "gen_ai.evaluation.result":
        yield _score(log)
        return
    severity = SEVERITIES[min(max(log.severity - 1, 0) // 4, 5)] if log.severity else "INFO"
    body = log.body if isinstance(log.body, str) else "" if log.body is None else msgspec.json.encode(log.body).decode()
    attributes = (
        {**content_of(log.attributes), **log.attributes} if name.startswith("gen_ai.") else dict(log.attributes)
    )
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
        **origin_of(log.resource, log.attributes),
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
        **origin_of(log.resource, log.attributes),
        **identity,
        trace_id=log.trace_id,
        parent_span_id=log.span_id,
        error_type=_text(attributes, ("error.type",)),
        message=f"{scorer}: {score if scored else 'unscored'}",
        attributes=fields,
    )


def span_kind(span: SpanRecord) -> str:
    """Return the event kind of a span: an explicit mark of any dialect first, then its place in the trace."""
    kind = _marked_kind(span.attributes)
    if span.kind == SPAN_KIND_SERVER:
        kind = kind or "request"
    if not span.parent_span_id and (not kind or kind in ROOT_KINDS):
        return "request"
    return "span" if kind == "llm" and _is_stream_head(span) else kind or "span"


def _marked_kind(attributes: Mapping[str, Any]) -> str:
    """Return the kind that a dialect's mark names, or an empty text."""
    for name in present(attributes, KIND_NAMES):
        mark = _text(attributes, (name,))
        kind = KINDS.get(mark) or KINDS.get(mark.lower())
        if kind:
            return kind
    for name in present(attributes, KIND_FALLBACKS):
        mark = _text(attributes, (name,))
        if mark.endswith((".doGenerate", ".doStream")):
            return "llm"
        kind = KINDS.get(mark) or ("agent" if mark.startswith("ai.") else None)
        if kind:
            return kind
    return "tool" if _text(attributes, ("gen_ai.tool.name", "gen_ai.tool.call.id")) else ""


def _is_stream_head(span: SpanRecord) -> bool:
    """Tell whether Logfire means only the opening of a stream: the call comes, whole, as a log when the stream ends."""
    attributes = span.attributes
    return (
        span.scope.startswith(
            "logfire."
        )  # its instrumentations of model clients; other senders' spans end with the answer
        and _text(attributes, ("logfire.span_type",)) == "span"
        and span.status != STATUS_ERROR
        and not _text(attributes, ("gen_ai.response.id", "response_data"))
        and _number(attributes, OUTPUT_TOKENS) is None
    )


def _start_ns(span: SpanRecord) -> int:
    """Return when it began; the log that ends a stream of Logfire says how many seconds that is ago."""
    seconds = _real(span.attributes, ("duration",))
    if seconds is None or _text(span.attributes, ("logfire.span_type",)) != "log":
        return span.start_ns
    return max(span.start_ns - round(seconds * 1e9), 0)


def _title(span: SpanRecord) -> str:
    """Return what to call a span: Logfire's span names are templates, its messages are filled in."""
    return _text(span.attributes, ("logfire.msg",)) or span.name


def origin_of(resource: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the service, release and environment of a record, as far as its resource or itself names them."""
    return {**_texts(attributes, _OWN_ORIGIN), **_texts(resource, _ORIGIN)}


def _identity(attributes: Mapping[str, Any], trace_id: str) -> dict[str, Any]:
    """Return whose event it is; a trace without a request id of its own is one request."""
    return {"request_id": trace_id, **_texts(attributes, _IDENTITY)}


def _served(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked for and who answered, providers under their present names; older senders used others."""
    found = _texts(attributes, _SERVED)
    if "provider" in found:
        found["provider"] = PROVIDERS.get(found["provider"], found["provider"])
    return found


class _Columns:
    """The names that each of some columns may have its text from."""

    def __init__(self, **tables: tuple[Name, ...]) -> None:
        self._tables = tables

    def __call__(self, attributes: Mapping[str, Any]) -> list[tuple[str, tuple[Name, ...]]]:
        """Return the columns of which a name is there, with these names."""
        return [(column, found) for column, names in self._tables.items() if (found := present(attributes, names))]


_ORIGIN: Final = _Columns(service=("service.name",), release=RELEASE, environment=ENVIRONMENT)
_OWN_ORIGIN: Final = _Columns(release=("langfuse.release",), environment=("langfuse.environment",))
_IDENTITY: Final = _Columns(request_id=REQUEST, tenant=TENANT, user_id=USER, session_id=SESSION)
_SERVED: Final = _Columns(route=ROUTE, model=MODEL, provider=PROVIDER)


def _texts(attributes: Mapping[str, Any], columns: _Columns) -> dict[str, Any]:
    """Return the columns that have a text."""
    there = of_names(attributes, columns)
    return {column: text for column, names in there if (text := _text(attributes, names))}


def _text(attributes: Mapping[str, Any], names: tuple[Name, ...]) -> str:
    """Return the first value that is not empty, as text; a one-element list counts as its element."""
    for value in values_of(attributes, names):
        if value and isinstance(value, str):
            return value
        only = value[0] if isinstance(value, list) and len(value) == 1 else value
        if only not in (None, "", [], {}):
            return only if isinstance(only, str) else str(only)
    return ""


def _number(attributes: Mapping[str, Any], names: tuple[Name, ...], *, most: int = INT64_MAX) -> int | None:
    """Return the first value that is a whole number in range, or ``None``."""
    for value in values_of(attributes, names):
        number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= most:
            return number
    return None


def _real(attributes: Mapping[str, Any], names: tuple[Name, ...]) -> float | None:
    """Return the first value that is a number from 0 up, or ``None``."""
    for value in values_of(attributes, names):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
            return float(value)
    return None


def _cost_microusd(attributes: Mapping[str, Any]) -> int | None:
    """Return the cost in micro-USD; senders give float USD, rounded here once."""
    usd = _real(attributes, COST_USD)
    return None if usd is None else round(usd * 1_000_000)


def _first_token_us(span: SpanRecord) -> int | None:
    """Return the time to first token in µs: some names give seconds, some milliseconds, some the moment."""
    seconds = _real(span.attributes, FIRST_TOKEN_SECONDS)
    if seconds is not None:
        return round(seconds * 1_000_000)
    milliseconds = _real(span.attributes, FIRST_TOKEN_MILLISECONDS)
    if milliseconds is not None:
        return round(milliseconds * 1000)
    moments = [ts_ns for ts_ns, name, _ in span.span_events if name.startswith(CHUNK_MARKS)]
    text = _text(span.attributes, FIRST_TOKEN_TIMES)
    if text:
        try:
            moments.append(parse_time(text))
        except ValueError:
            return None
    return (min(moments) - span.start_ns) // 1000 if moments and min(moments) >= span.start_ns else None


def _tool(span: SpanRecord, kind: str) -> str:
    """Return the tool's name; a retrieval is the tool ``retrieve``, as the log room calls it."""
    name = _text(span.attributes, TOOL)
    if not name and kind == "tool":
        name = _text(span.attributes, ("traceloop.entity.name",)) or span.name
    return name or ("retrieve" if kind == "retrieve" else "")
