"""JSON lines: one event, or any JSON log record, per line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from opsloop.errors import EventError, PayloadError
from opsloop.event import Event, event_from_mapping
from opsloop.ingest.batch import Batch
from opsloop.ingest.levels import level_names, with_level
from opsloop.settings import GaugeSettings

__all__ = ["read_json_lines"]

_ALIASES: Final = {"level": "severity", "levelname": "severity", "msg": "message"}
_SEVERITIES: Final = {"WARNING": "WARN", "CRITICAL": "FATAL", "NOTSET": "INFO", "PANIC": "FATAL"}


def read_json_lines(body: bytes, *, first_line: int = 1, gauges: Sequence[GaugeSettings] = ()) -> Batch:
    r"""Read one event per line; empty lines are skipped, a bad line is rejected by its number and the rest kept.

    A key that is no field of an event goes into its attributes; a line without ``event`` is a ``log``; ``level`` and
    ``msg`` are read as other loggers mean them; ``gauges`` are the settings' limits by gauge name. Raises
    :class:`PayloadError` when the body is not UTF-8 or no single line of it can be read.

    >>> batch = read_json_lines(b'{"ts_ns": 1, "event": "log", "colour": "red"}\nnot json\n')
    >>> batch.events[0].attributes, batch.rejected
    ({'colour': 'red'}, 1)
    """
    try:
        lines = body.decode("utf-8").split("\n")
    except UnicodeDecodeError as cause:
        raise PayloadError(f"the body is not UTF-8 at byte {cause.start}", fix="send UTF-8 JSON lines") from cause
    batch = Batch()
    names = level_names(gauges)
    for number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        try:
            batch.events.append(with_level(_read_line(line), names))
        except EventError as error:
            batch.reject(f"line {number}: {error}")
    if batch.rejected and not batch.events:
        raise PayloadError(batch.reason(), fix="send one JSON object per line")
    return batch


def _read_line(line: str) -> Event:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as cause:
        raise EventError(f"not JSON: {cause}") from cause
    return event_from_mapping(_canonical(record) if isinstance(record, dict) else record)


def _canonical(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the names that other loggers use replaced by ours, where ours are missing."""
    renamed = {"event": "log", **record}
    for alias, name in _ALIASES.items():
        if name not in record and isinstance(renamed.get(alias), str):
            renamed[name] = renamed.pop(alias)
    severity = renamed.get("severity")
    if isinstance(severity, str):
        renamed["severity"] = _SEVERITIES.get(severity.upper(), severity.upper())
    return renamed
