"""The event: the one record that every instrument writes and reads.

A log line, a span, a limiter decision, a score, a breach, an incident and a guard's result are all an :class:`Event`.
It follows the OpenTelemetry log data model: promoted columns with a type each, everything else in ``attributes``.

Three rules hold for every field:

* **The unit is in the name.** Times are integer nanoseconds since the epoch in UTC, durations integer microseconds,
  money integer millionths of a US dollar. Integers, because sums of them are exact and sketches over them are right.
* **Absent is not zero.** A number that was not measured is ``None``; a text that is not known is ``""``.
* **Writing twice is once.** An event with an ``event_id`` is stored once, however often it is delivered. Spans, scores,
  alerts and incidents have one that follows from what they describe; plain log lines have none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from opsloop.clock import parse_time
from opsloop.errors import EventError

__all__ = [
    "FIELDS",
    "KINDS",
    "SCHEMA_VERSION",
    "SEVERITIES",
    "Event",
    "Severity",
    "decode_event",
    "encode_event",
    "event_from_mapping",
    "flatten",
]

SCHEMA_VERSION: Final = 1
"""Raised when a promoted column is added or changes its meaning; stores migrate forward from every earlier one."""

Severity = Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
"""The six OpenTelemetry severities; their numbers are 1, 5, 9, 13, 17, 21."""

SEVERITIES: Final[tuple[str, ...]] = get_args(Severity)

INT64_MAX: Final = 2**63 - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]

KINDS: Final[Mapping[str, str]] = {
    "request": "the one canonical line of a request, with its outcome; all golden signals derive from it",
    "llm": "one model call, where it happens; the only kind besides embed whose tokens and cost are counted",
    "embed": "one embedding call",
    "retrieve": "one retrieval; attributes.documents holds [{id, score, content}]",
    "rerank": "one reranking of retrieved documents",
    "tool": "one tool call; the tool's name is in tool",
    "agent": "an agent, chain or workflow step that wraps others",
    "guardrail": "a check of an input or output that may stop it",
    "span": "any other span",
    "log": "a log line of the application",
    "limit": "an admission decision: attributes.allowed, violated, limits",
    "score": "one scorer's verdict on one answer; attributes.status tells scored from unscored",
    "breach": "a reading of a signal against its objective whose verdict changed",
    "alert": "a transition of an alert's life cycle, or a notice that was sent, held back or failed",
    "incident": "a transition of an incident, with its problem and frozen evidence",
    "problem": "a person's decision about a problem: merged, taken apart, accepted, obsolete",
    "guard": "a transition of a guard: proposed, proved, active, quarantined, retired",
    "gate": "one guard's result in one gate run of a change",
    "deploy": "a release went live: release names it",
    "gauge": "a measured level: attributes.name, value, and limit where there is one",
}
"""The known kinds. The set is open: an unknown kind is kept, never an error."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One thing that happened.

    >>> failed = Event(ts_ns=1, event="tool", tool="retrieve", request_id="req-B", error=True)
    >>> decode_event(encode_event(failed)) == failed
    True
    """

    ts_ns: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
    """When it began, in nanoseconds since the epoch, UTC. A request's line carries the request's start."""
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    """The kind, one of :data:`KINDS` or the application's own."""
    event_id: str = ""
    """Identity for deduplication; empty for an event that has none."""
    service: str = ""
    """The service that it happened in (OpenTelemetry ``service.name``)."""
    environment: str = ""
    """``deployment.environment.name``: production, staging, …"""
    release: str = ""
    """``service.version``: the release that was running."""
    request_id: str = ""
    """The id that every event of one request shares."""
    trace_id: str = ""
    """32 lower-case hex digits (W3C Trace Context), or empty."""
    span_id: str = ""
    """16 lower-case hex digits, or empty."""
    parent_span_id: str = ""
    """The span that this one happened under, or empty for a root."""
    tenant: str = ""
    """Whose request it was: the unit of quotas and of blame."""
    user_id: str = ""
    """The person, as the application names them."""
    session_id: str = ""
    """The conversation."""
    route: str = ""
    """The route or feature, low in cardinality: ``/chat``, ``support.answer``."""
    severity: Severity = "INFO"
    """How much it matters to a reader of logs."""
    status_code: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    """The HTTP status that the caller saw."""
    error: bool = False
    """Whether it failed. A 429 of our own limiter is a rejection, not an error."""
    error_type: str = ""
    """The class of the failure, low in cardinality: ``TimeoutError``, ``upstream_429``."""
    duration_us: Count | None = None
    """How long it took, in microseconds."""
    time_to_first_token_us: Count | None = None
    """From the start to the first token of the answer, in microseconds."""
    model: str = ""
    """The model that answered."""
    provider: str = ""
    """Who served the model."""
    input_tokens: Count | None = None
    """Tokens read, cached ones included."""
    output_tokens: Count | None = None
    """Tokens written, reasoning included."""
    cost_microusd: Count | None = None
    """Cost in millionths of a US dollar."""
    tool: str = ""
    """The tool's name."""
    message: str = ""
    """One line for people."""
    attributes: dict[str, Any] = {}
    """Everything else, as JSON. Well-known names: input, output, documents, finish_reason, prompt_version."""

    def replace(self, **changes: Any) -> Event:
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


FIELDS: Final[tuple[str, ...]] = Event.__struct_fields__
"""The promoted columns, in order."""

_ENCODER = msgspec.json.Encoder()
_TIME_ALIASES = ("ts", "timestamp", "time", "@timestamp")
_BAD_FIELD = re.compile(r"(?P<what>.*) - at `\$\.(?P<field>[^`]*)`")


def encode_event(event: Event) -> bytes:
    """Return the event as one line of JSON, without the line end; fields at their default are left out."""
    return _ENCODER.encode(event)


def decode_event(line: bytes | str) -> Event:
    """Read one event from a JSON object.

    A key that is no field goes into ``attributes``, so any JSON log line can come in. ``ts``, ``timestamp``, ``time``
    and ``@timestamp`` are read as an ISO 8601 time when ``ts_ns`` is missing. Raises :class:`EventError` for JSON that
    is not an object or a field of the wrong type, naming the field.
    """
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise EventError(f"not a JSON object: {cause}", fix="send one JSON object per line") from cause
    return event_from_mapping(record)


def event_from_mapping(record: Any) -> Event:
    """Build a checked event from a mapping; see :func:`decode_event` for what is accepted.

    >>> event_from_mapping({"ts_ns": 5, "event": "log", "colour": "red"}).attributes
    {'colour': 'red'}
    """
    if not isinstance(record, Mapping):
        raise EventError(f"expected a JSON object, got {type(record).__name__}", fix="send one JSON object per event")
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in record.items():
        (known if key in _FIELD_SET else extra)[key] = value
    _resolve_time(known, extra)
    if extra:
        attributes = known.get("attributes", {})
        if not isinstance(attributes, Mapping):
            raise EventError("attributes: expected an object", fix="send attributes as {name: value}")
        known["attributes"] = {**attributes, **extra}
    elif isinstance(known.get("attributes"), Mapping):
        known["attributes"] = dict(known["attributes"])
    bad = _not_finite(known.get("attributes", {}), "attributes")
    if bad:
        raise EventError(f"{bad}: NaN and infinity are not values", fix="leave out what was not measured")
    try:
        return msgspec.convert(known, Event)
    except msgspec.ValidationError as cause:
        match = _BAD_FIELD.fullmatch(str(cause))
        text = f"{match['field']}: {match['what']}" if match else str(cause)
        raise EventError(text, fix="see the event's fields in docs/event.md") from cause


_FIELD_SET = frozenset(FIELDS)


def _resolve_time(known: dict[str, Any], extra: dict[str, Any]) -> None:
    """Fill ``ts_ns`` from the first time alias that holds a text, and take that alias out of the extras."""
    if "ts_ns" in known:
        return
    for alias in _TIME_ALIASES:
        if isinstance(extra.get(alias), str):
            try:
                known["ts_ns"] = parse_time(extra.pop(alias))
            except ValueError as cause:
                raise EventError(
                    f"{alias}: {cause}", fix="send ISO 8601 with a zone, or ts_ns as an integer"
                ) from cause
            return


def _not_finite(value: Any, path: str) -> str:
    """Return the path of the first NaN or infinity below ``value``, or an empty text."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else path
    pairs: Any = ()
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    for key, item in pairs:
        if isinstance(item, float | Mapping | list | tuple):
            found = _not_finite(item, f"{path}.{key}")
            if found:
                return found
    return ""


def flatten(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return every leaf of nested attributes under its dotted path, as text: what filters compare with.

    A text stays as it is; a list, number, boolean or null becomes its JSON. An empty object has no leaf.

    >>> flatten({"retry": {"count": 2}, "tags": ["a"], "cached": True})
    {'retry.count': '2', 'tags': '["a"]', 'cached': 'true'}
    """
    leaves: dict[str, str] = {}
    _flatten_into(leaves, "", attributes)
    return leaves


def _flatten_into(leaves: dict[str, str], prefix: str, node: Mapping[str, Any]) -> None:
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, str):
            leaves[path] = value
        elif isinstance(value, Mapping):
            _flatten_into(leaves, f"{path}.", value)
        else:
            leaves[path] = _ENCODER.encode(value).decode()
