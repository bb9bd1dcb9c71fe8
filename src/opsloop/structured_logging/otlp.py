"""Events as OTLP/HTTP JSON log records, for any OpenTelemetry backend.

The event's columns go where the OpenTelemetry log data model has a place for them (time, severity, body, trace, span,
service) and under the semantic conventions' names where those have one; the others keep our names as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from opsloop.event import FIELDS, SEVERITIES, Event

__all__ = ["RESOURCE", "attributes_of", "encode_otlp_logs", "is_hex", "pairs", "resource_of"]

_NAMES: Final = {
    "status_code": "http.response.status_code",
    "route": "http.route",
    "error_type": "error.type",
    "tool": "gen_ai.tool.name",
    "model": "gen_ai.response.model",
    "provider": "gen_ai.provider.name",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "session_id": "session.id",
    "user_id": "user.id",
}
RESOURCE: Final = {
    "service": "service.name",
    "environment": "deployment.environment.name",
    "release": "service.version",
}
_PLACED: Final = frozenset({*RESOURCE, "ts_ns", "severity", "message", "trace_id", "span_id", "attributes"})
_KEPT: Final = tuple(name for name in FIELDS if name not in _PLACED)


def encode_otlp_logs(events: Iterable[Event]) -> bytes:
    """Return the body of an OTLP/HTTP JSON request for ``/v1/logs``, one resource per service, environment, release.

    >>> b'"severityNumber":17' in encode_otlp_logs([Event(ts_ns=1, event="log", severity="ERROR")])
    True
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for event in events:
        origin = tuple(getattr(event, name) for name in RESOURCE)
        groups.setdefault(origin, []).append(_record(event))
    return msgspec.json.encode(
        {
            "resourceLogs": [
                {
                    "resource": resource_of(origin),
                    "scopeLogs": [{"scope": {"name": "opsloop"}, "logRecords": records}],
                }
                for origin, records in groups.items()
            ]
        }
    )


def resource_of(origin: Sequence[str]) -> dict[str, Any]:
    """Return the resource of events whose service, environment and release are these; what is empty is left out.

    >>> resource_of(("bot", "", ""))
    {'attributes': [{'key': 'service.name', 'value': {'stringValue': 'bot'}}]}
    """
    return {"attributes": pairs({name: text for name, text in zip(RESOURCE.values(), origin, strict=True) if text})}


def attributes_of(event: Event) -> dict[str, Any]:
    """Return an event's attributes, and the columns that OpenTelemetry has no place for under its names."""
    attributes: dict[str, Any] = dict(event.attributes)
    for name in _KEPT:
        value = getattr(event, name)
        if value not in ("", None, False):
            attributes[_NAMES.get(name, name)] = value
    return attributes


def _record(event: Event) -> dict[str, Any]:
    record: dict[str, Any] = {
        "timeUnixNano": str(event.ts_ns),
        "observedTimeUnixNano": str(event.ts_ns),
        "severityNumber": 4 * SEVERITIES.index(event.severity) + 1,
        "severityText": event.severity,
        "body": {"stringValue": event.message},
        "attributes": pairs(attributes_of(event)),
    }
    if is_hex(event.trace_id, 32):
        record["traceId"] = event.trace_id
        if is_hex(event.span_id, 16):
            record["spanId"] = event.span_id
    return record


def is_hex(text: str, digits: int) -> bool:
    """Tell whether a text is an id of so many hex digits, not all of them zero."""
    return len(text) == digits and bool(text.strip("0")) and not text.strip("0123456789abcdef")


def pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return values as OTLP writes them in JSON."""
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)} if abs(value) < 2**63 else {"stringValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case Mapping():
            return {"kvlistValue": {"values": pairs(value)}}
        case Sequence():
            return {"arrayValue": {"values": [_value(item) for item in value]}}
        case _:
            return {"stringValue": str(value)}
