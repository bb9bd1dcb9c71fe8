"""From the fields of a log call to an event: it always succeeds, because the host must never pay for its logging.

A field that is a promoted column goes there, every other one into ``attributes``. Attributes become exactly what JSON
can carry, as a copy: a later change of the caller's objects does not reach the event. A value that does not fit its
column is kept under ``attributes.rejected``, where a person finds it, instead of failing the call or the insert.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from opsloop.event import FIELDS, SEVERITIES, Event
from opsloop.filter import TEXT_FIELDS

__all__ = ["FOREIGN_FAILURES", "frozen", "make_event", "severity_of", "text_of", "thawed"]

_COLUMNS: Final = frozenset(FIELDS) - {"attributes"}
_SPELLINGS: Final = {"WARNING": "WARN", "CRITICAL": "FATAL", "EXCEPTION": "ERROR", "NOTSET": "TRACE"}
FOREIGN_FAILURES: Final = (Exception,)
"""What anybody's code may fail with: an object that is encoded or asked for its text, a sink, a callback.

The host must not pay for it, so it is caught where that code is called, and nowhere else.
"""
_KIND_LENGTH: Final = 64
_ATOMS: Final = frozenset({int, float, bool, str, type(None)})


def severity_of(value: Any) -> str:
    """Return the OpenTelemetry severity that a spelling means, or ``""``.

    >>> severity_of("warning"), severity_of("loud")
    ('WARN', '')
    """
    upper = text_of(value).upper()
    upper = _SPELLINGS.get(upper, upper)
    return upper if upper in SEVERITIES else ""


def frozen(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a call's fields so that nothing the caller does later can change them; :func:`thawed` reads them.

    CPython tracks a dictionary for garbage collection once it holds anything but plain numbers and texts (3.11 to 3.13;
    later ones track every dictionary), so the usual call is told from one with a list in it in a single step.

    >>> frozen({"words": 5}), thawed(frozen({"words": [5]}))
    ({'words': 5}, {'words': [5]})
    """
    if not gc.is_tracked(fields):
        return fields
    return {name: value if type(value) in _ATOMS else _frozen(name, value) for name, value in fields.items()}


def _frozen(name: str, value: Any) -> Any:
    if name in TEXT_FIELDS:
        return text_of(value)
    try:
        return msgspec.Raw(_ENCODER.encode(value))
    except FOREIGN_FAILURES:
        return text_of(value)


def thawed(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that :func:`frozen` kept."""
    return {name: msgspec.json.decode(value) if type(value) is msgspec.Raw else value for name, value in fields.items()}


def make_event(ts_ns: int, kind: str, fields: Mapping[str, Any]) -> Event:
    """Return the event that a call's fields mean; never raises for what a caller put into them.

    >>> make_event(5, "tool", {"tool": "retrieve", "top_k": 4, "status_code": "soon"}).attributes
    {'top_k': 4, 'rejected': {'status_code': 'soon'}}
    """
    known: dict[str, Any] = {"ts_ns": ts_ns, "event": kind}
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in _COLUMNS:
            extra[name] = value
        elif value is not None:
            known[name] = text_of(value) if name in TEXT_FIELDS and type(value) is not str else value
    nested = extra.pop("attributes", None)
    if isinstance(nested, Mapping):
        extra = {**nested, **extra}
    elif nested is not None:
        extra["rejected"] = {"attributes": nested}
    if "severity" in known:
        known["severity"] = severity_of(known["severity"]) or known["severity"]
    if extra:
        known["attributes"] = _json(extra)
    try:
        return msgspec.convert(_encodable(known), Event)
    except msgspec.ValidationError:
        return _salvaged(known, ts_ns)


def _salvaged(known: dict[str, Any], ts_ns: int) -> Event:
    """Return the event of the fields that fit, with the others under ``attributes.rejected``."""
    fit: dict[str, Any] = {"ts_ns": max(0, ts_ns), "event": "log"}
    rejected: dict[str, Any] = {}
    for name, value in known.items():
        try:
            msgspec.convert({"ts_ns": 0, "event": "log", name: value}, Event)
        except msgspec.ValidationError:
            rejected[name] = value
        else:
            fit[name] = value
    if "event" in rejected:
        fit["event"] = text_of(rejected["event"])[:_KIND_LENGTH] or "log"
    fit["attributes"] = {**fit.get("attributes", {}), "rejected": _json(rejected)}
    return msgspec.convert(_encodable(fit), Event)


def _encodable(known: dict[str, Any]) -> dict[str, Any]:
    """Replace lone surrogates in texts: they have no UTF-8 form and would fail at the sink."""
    for name, value in known.items():
        if type(value) is str and not value.isascii():
            known[name] = value.encode("utf-8", "replace").decode()
    return known


def _json(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a copy that holds only what JSON can carry; NaN and infinity become null, objects their text."""
    try:
        return dict(msgspec.json.decode(_ENCODER.encode(values)))
    except FOREIGN_FAILURES:
        return {text_of(name): _json_value(value) for name, value in values.items()}


def _json_value(value: Any) -> Any:
    try:
        return msgspec.json.decode(_ENCODER.encode(value))
    except FOREIGN_FAILURES:
        return text_of(value)


def text_of(value: Any) -> str:
    """Return a value's text, an enum member's as JSON has it, or the name of its type when the value cannot say.

    >>> text_of(ValueError("no such index")), text_of(chr(0xD800))
    ('no such index', '?')
    """
    if type(value) is str and value.isascii():  # as most are
        return value
    try:
        return str(value.value if isinstance(value, Enum) else value).encode("utf-8", "replace").decode()
    except FOREIGN_FAILURES:
        return f"<{type(value).__name__}>"


_ENCODER: Final = msgspec.json.Encoder(enc_hook=text_of)
