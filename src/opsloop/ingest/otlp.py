"""OTLP/HTTP bodies, protobuf and JSON, as neutral records.

Both encodings end in the same two records, so there is one mapping to events and one place for its rules. A record
whose ids or times are wrong is rejected alone; a body that does not decode raises :class:`PayloadError`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import ArrayValue

from opsloop.errors import PayloadError
from opsloop.event import INT64_MAX
from opsloop.ingest.attributes import Attributes
from opsloop.ingest.batch import Batch
from opsloop.ingest.mapping import LogRecord, SpanRecord, map_log, map_span, origin_of

__all__ = ["list_of", "origins_of", "parse_traces", "read_logs", "read_traces"]

MAX_DEPTH: Final = 32
SIGNALS: Final = {"resourceSpans": "/v1/traces", "resourceLogs": "/v1/logs", "resourceMetrics": "/v1/metrics"}
_HEX: Final = re.compile(r"[0-9a-f]*")


def read_traces(body: bytes, *, json: bool) -> Batch:
    """Return the events of an ``ExportTraceServiceRequest``; spans with wrong ids or times are rejected alone."""
    if json:
        return _mapped(_json_records(body, "resourceSpans", "scopeSpans", "spans"))
    return _mapped(_proto_spans(parse_traces(body)))


def parse_traces(body: bytes) -> Any:
    """Return the decoded protobuf request; raises :class:`PayloadError` when it is none."""
    return _parse(ExportTraceServiceRequest(), body, "/v1/traces")


def origins_of(request: Any) -> list[dict[str, str]]:
    """Return the service, release and environment that each resource of a decoded request names."""
    return [origin_of(_proto_attributes(group.resource.attributes), {}) for group in request.resource_spans]


def _mapped(spans: Iterable[SpanRecord | _Raw]) -> Batch:
    batch = Batch()
    for span in spans:
        record = span if isinstance(span, SpanRecord) else _span(span, batch)
        if record is not None:
            batch.extend(map_span(record))
    return batch


def read_logs(body: bytes, *, json: bool) -> Batch:
    """Return the events of an ``ExportLogsServiceRequest``."""
    logs = _json_records(body, "resourceLogs", "scopeLogs", "logRecords") if json else _proto_logs(body)
    batch = Batch()
    for log in logs:
        record = _log(log, batch)
        if record is not None:
            batch.extend(map_log(record))
    return batch


class _Raw(msgspec.Struct, frozen=True):
    """One span or log record with its surroundings, keys as in OTLP/JSON, attribute values decoded."""

    resource: dict[str, Any]
    scope: str
    fields: Mapping[str, Any]


def _span(raw: _Raw, batch: Batch) -> SpanRecord | None:
    fields = raw.fields
    name = fields.get("name", "")
    try:
        trace_id = _identifier(fields.get("traceId", ""), 32, "trace_id")
        span_id = _identifier(fields.get("spanId", ""), 16, "span_id")
        parent = fields.get("parentSpanId") or ""
        parent_span_id = _identifier(parent, 16, "parent_span_id") if parent and parent.strip("0") else ""
        start_ns = _nanoseconds(fields.get("startTimeUnixNano", 0), "start_time_unix_nano")
        end_ns = _nanoseconds(fields.get("endTimeUnixNano", 0), "end_time_unix_nano")
    except ValueError as error:
        batch.reject(f"span {name!r}: {error}")
        return None
    if not start_ns:
        batch.reject(f"span {name!r}: start_time_unix_nano is missing; were logs sent to the traces path?")
        return None
    status = fields.get("status") or {}
    return SpanRecord(
        resource=raw.resource,
        scope=raw.scope,
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent_span_id,
        name=str(name),
        kind=int(fields.get("kind", 0) or 0),
        start_ns=start_ns,
        end_ns=end_ns,
        status=int(status.get("code", 0) or 0),
        status_message=str(status.get("message", "")),
        attributes=fields["attributes"],
        span_events=fields.get("events", []),
    )


def _log(raw: _Raw, batch: Batch) -> LogRecord | None:
    fields = raw.fields
    try:
        time_ns = _nanoseconds(fields.get("timeUnixNano", 0), "time_unix_nano")
        observed_ns = _nanoseconds(fields.get("observedTimeUnixNano", 0), "observed_time_unix_nano")
        severity = int(fields.get("severityNumber", 0) or 0)
        trace_id, span_id = fields.get("traceId") or "", fields.get("spanId") or ""
        trace_id = _identifier(trace_id, 32, "trace_id") if trace_id.strip("0") else ""
        span_id = _identifier(span_id, 16, "span_id") if span_id.strip("0") else ""
    except ValueError as error:
        batch.reject(f"log record: {error}")
        return None
    if not time_ns and not observed_ns:
        batch.reject("log record: both time_unix_nano and observed_time_unix_nano are missing")
        return None
    return LogRecord(
        resource=raw.resource,
        scope=raw.scope,
        ts_ns=time_ns or observed_ns,
        severity=severity,
        body=fields.get("body"),
        event_name=str(fields.get("eventName", "")),
        trace_id=trace_id,
        span_id=span_id,
        attributes=fields["attributes"],
    )


def _identifier(text: str, digits: int, name: str) -> str:
    lower = text.lower()
    if len(lower) != digits or not _HEX.fullmatch(lower) or not lower.strip("0"):
        raise ValueError(f"{name} needs {digits // 2} bytes that are not all zero, got {text!r}")
    return lower


def _nanoseconds(value: Any, name: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is no integer: {value!r}") from None
    if not 0 <= number <= INT64_MAX:
        raise ValueError(f"{name} is out of range: {number}")
    return number


# ---- protobuf ----------------------------------------------------------------------------------------------------


def _parse(message: Any, body: bytes, path: str) -> Any:
    try:
        message.ParseFromString(body)
    except DecodeError as cause:
        fix = f"send an OTLP export request, or JSON as application/json, to {path}"
        raise PayloadError(f"the body is not OTLP protobuf: {cause}", fix=fix) from cause
    return message


def _proto_spans(request: Any) -> Iterable[SpanRecord | _Raw]:
    for group in request.resource_spans:
        resource = _proto_attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _proto_span(resource, scope.scope.name, span)


def _proto_span(resource: dict[str, Any], scope: str, span: Any) -> SpanRecord | _Raw:
    """Return the record of a span that is plainly right; any other goes the way that says what is wrong with it."""
    trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
    start_ns, end_ns = span.start_time_unix_nano, span.end_time_unix_nano
    if not (
        len(trace_id) == 16
        and len(span_id) == 8
        and (len(parent) == 8 or not parent)
        and any(trace_id)
        and any(span_id)
        and (not parent or any(parent))
        and 0 < start_ns <= INT64_MAX
        and end_ns <= INT64_MAX
    ):
        return _Raw(resource, scope, _proto_fields(span))
    return SpanRecord(
        resource=resource,
        scope=scope,
        trace_id=trace_id.hex(),
        span_id=span_id.hex(),
        parent_span_id=parent.hex(),
        name=span.name,
        kind=span.kind,
        start_ns=start_ns,
        end_ns=end_ns,
        status=span.status.code,
        status_message=span.status.message,
        attributes=_proto_attributes(span.attributes),
        span_events=_proto_events(span.events),
    )


def _proto_events(events: Iterable[Any]) -> list[tuple[int, str, dict[str, Any]]]:
    return [(event.time_unix_nano, event.name, _proto_attributes(event.attributes)) for event in events]


def _proto_fields(span: Any) -> dict[str, Any]:
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano,
        "endTimeUnixNano": span.end_time_unix_nano,
        "status": {"code": span.status.code, "message": span.status.message},
        "attributes": _proto_attributes(span.attributes),
        "events": _proto_events(span.events),
    }


def _proto_logs(body: bytes) -> Iterable[_Raw]:
    request = _parse(ExportLogsServiceRequest(), body, "/v1/logs")
    for group in request.resource_logs:
        resource = _proto_attributes(group.resource.attributes)
        for scope in group.scope_logs:
            for log in scope.log_records:
                fields = {
                    "timeUnixNano": log.time_unix_nano,
                    "observedTimeUnixNano": log.observed_time_unix_nano,
                    "severityNumber": log.severity_number,
                    "body": _proto_value(log.body, 0),
                    "eventName": log.event_name,
                    "traceId": log.trace_id.hex(),
                    "spanId": log.span_id.hex(),
                    "attributes": _proto_attributes(log.attributes),
                }
                yield _Raw(resource, scope.scope.name, fields)


def _proto_attributes(pairs: Iterable[Any]) -> Attributes:
    """Return the attributes of a record; most values are texts, and only a text reads as one that is not empty."""
    values = {}
    for pair in pairs:
        value = pair.value
        values[pair.key] = value.string_value or _proto_value(value, 0)
    return Attributes(values)


def _proto_value(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise PayloadError(f"an attribute nests deeper than {MAX_DEPTH} levels", fix="flatten it, or send it as text")
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_proto_value(item, depth + 1) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: _proto_value(pair.value, depth + 1) for pair in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value":
            return _finite(value.double_value)
        case kind:
            return getattr(value, kind)


def list_of(value: bytes) -> list[Any]:
    """Return the values of a list, given as the protobuf of an ``ArrayValue``."""
    return [_proto_value(item, 1) for item in ArrayValue.FromString(value).values]


def _finite(number: float) -> float | str:
    """Return a number as it is, or its name as text: NaN and infinity are not values, yet nothing is lost."""
    return number if number - number == 0 else str(number)


# ---- JSON --------------------------------------------------------------------------------------------------------


def _json_records(body: bytes, groups: str, scopes: str, records: str) -> Iterable[_Raw]:
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise PayloadError(f"the body is not JSON: {cause}", fix="send an OTLP export request") from cause
    _check_signal(_object(request, "the body"), groups)
    for group in _list(request, groups):
        resource = Attributes(_json_attributes(_object(group.get("resource") or {}, "resource"), "resource"))
        for scope in _list(group, scopes):
            name = str((scope.get("scope") or {}).get("name", ""))
            for record in _list(scope, records):
                yield _Raw(resource, name, _json_record(record, records))


def _check_signal(request: dict[str, Any], groups: str) -> None:
    """Refuse a body of another signal: without its own groups it would be an empty request, and all of it lost."""
    for other, path in SIGNALS.items():
        if other in request and groups not in request:
            raise PayloadError(f"the body holds {other}, not {groups}", fix=f"send it to {path}")


def _json_record(record: dict[str, Any], where: str) -> dict[str, Any]:
    fields = dict(record)
    fields["attributes"] = Attributes(_json_attributes(record, where))
    if "body" in record:
        fields["body"] = _json_value(record["body"], 0)
    fields["events"] = [
        (_count(event.get("timeUnixNano", 0)), str(event.get("name", "")), _json_attributes(event, "span event"))
        for event in _list(record, "events")
    ]
    return fields


def _count(value: Any) -> int:
    return (
        int(value)
        if isinstance(value, int) or (isinstance(value, str) and value.isdecimal() and len(value) < 20)
        else 0
    )


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PayloadError(f"{what} is not a JSON object", fix="send OTLP/JSON as the specification shapes it")
    return value


def _list(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = parent.get(name)
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PayloadError(f"{name} is not a list of objects", fix="send OTLP/JSON as the specification shapes it")
    return items


def _json_attributes(parent: dict[str, Any], where: str, depth: int = 0) -> dict[str, Any]:
    pairs = parent.get("attributes", parent.get("values")) or []
    if isinstance(pairs, dict):
        fix = 'write [{"key": "name", "value": {"stringValue": "text"}}]'
        raise PayloadError(f"attributes of {where} is an object, OTLP wants a list of key and value", fix=fix)
    return {str(pair.get("key", "")): _json_value(pair.get("value"), depth) for pair in _list({"a": pairs}, "a")}


_JSON_SCALARS: Final[dict[str, Callable[[Any], Any]]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,
    "doubleValue": lambda value: _finite(float(value)),
    "bytesValue": str,
}


def _json_value(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise PayloadError(f"an attribute nests deeper than {MAX_DEPTH} levels", fix="flatten it, or send it as text")
    if not isinstance(value, dict):
        return None
    for name, item in value.items():
        if name == "arrayValue":
            return [_json_value(entry, depth + 1) for entry in _list(_object(item, name), "values")]
        if name == "kvlistValue":
            return _json_attributes(_object(item, name), name, depth + 1)
        if name in _JSON_SCALARS:
            try:
                return _JSON_SCALARS[name](item)
            except (TypeError, ValueError, binascii.Error):
                return str(item)
    return None
