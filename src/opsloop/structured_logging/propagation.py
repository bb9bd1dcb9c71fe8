"""How a request goes on in another process: W3C ``traceparent`` and ``baggage`` headers.

The trace continues by ``traceparent`` (https://www.w3.org/TR/trace-context/), the request id rides in ``baggage``
(https://www.w3.org/TR/baggage/). A header that breaks the rules is ignored, as the recommendation asks: the receiver
begins a trace of its own. What arrives is a claim of the sender, so only its form is trusted: an id is at most 128
visible characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from opsloop.structured_logging.context import current

__all__ = ["Incoming", "TraceParent", "format_traceparent", "incoming", "outgoing", "parse_traceparent"]

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_VISIBLE: Final = re.compile(r"[!-~]{1,128}")
_BAGGAGE_KEY: Final = "request_id"
_BAGGAGE_BYTES: Final = 8192
_SAMPLED: Final = 0x01


class TraceParent(msgspec.Struct, frozen=True):
    """The three facts of a ``traceparent`` header."""

    trace_id: str
    span_id: str
    """The caller's span: the parent of what happens here."""
    sampled: bool = True


class Incoming(msgspec.Struct, frozen=True):
    """What a caller's headers say; empty texts for what they do not."""

    trace_id: str = ""
    parent_span_id: str = ""
    request_id: str = ""


def parse_traceparent(text: str) -> TraceParent | None:
    """Read a ``traceparent`` header; ``None`` when it is malformed, as the recommendation asks.

    >>> parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").span_id
    '00f067aa0ba902b7'
    >>> parse_traceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01") is None
    True
    """
    match = _TRACEPARENT.fullmatch(text.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def format_traceparent(parent: TraceParent) -> str:
    """Return the header, in version 00.

    >>> format_traceparent(TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"))
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    """
    return f"00-{parent.trace_id}-{parent.span_id}-{int(parent.sampled):02x}"


def outgoing() -> dict[str, str]:
    """Return the headers that let another process go on with the current request; empty outside of one."""
    fields = current().fields
    headers: dict[str, str] = {}
    if fields.get("trace_id") and fields.get("span_id"):
        headers["traceparent"] = format_traceparent(TraceParent(fields["trace_id"], fields["span_id"]))
    if fields.get("request_id"):
        headers["baggage"] = f"{_BAGGAGE_KEY}={quote(fields['request_id'], safe='')}"
    return headers


def incoming(headers: Mapping[str, str]) -> Incoming:
    """Read a caller's headers, whatever the case of their names; what is no text counts as not sent.

    >>> incoming({"Baggage": "tier=gold, request_id=req-7;ttl=1"}).request_id
    'req-7'
    """
    given: Mapping[Any, Any] = headers
    lower = {name.lower(): value for name, value in given.items() if isinstance(name, str) and isinstance(value, str)}
    parent = parse_traceparent(lower.get("traceparent", ""))
    request_id = ""
    baggage = lower.get("baggage", "")
    for member in baggage.split(",") if len(baggage) <= _BAGGAGE_BYTES else ():
        name, _, value = member.partition(";")[0].partition("=")
        decoded = unquote(value.strip())
        if name.strip() == _BAGGAGE_KEY and _VISIBLE.fullmatch(decoded):
            request_id = decoded
    if parent is None:
        return Incoming(request_id=request_id)
    return Incoming(parent.trace_id, parent.span_id, request_id)
