"""loguru's records as our events: one sink for ``logger.add``."""

from __future__ import annotations

import traceback
from typing import Any

from opsloop.structured_logging import Logger

__all__ = ["EventSink"]

_SEVERITIES = {"SUCCESS": "INFO", "WARNING": "WARN", "CRITICAL": "FATAL"}


class EventSink:
    """Writes each record as a ``log`` event: ``logger.add(EventSink(log), format="{message}")``.

    What was bound or passed becomes columns and attributes, ``name`` and ``line`` tell where it was written. Leave
    ``enqueue`` off: put a :class:`BufferedSink` under the logger instead, which is bounded and counts what it drops.
    """

    def __init__(self, logger: Logger) -> None:
        """Write to ``logger``, whose own level applies as well."""
        self._logger = logger

    def __call__(self, message: Any) -> None:
        """Write one record."""
        record = message.record
        fields = {name: value for name, value in record["extra"].items() if name != "ts_ns"}
        cause = record["exception"].value if record["exception"] else None
        if cause is not None:
            fields |= {"error_type": type(cause).__name__, "exception": "".join(traceback.format_exception(cause))}
        level = record["level"].name
        own = {
            "severity": _SEVERITIES.get(level, level),
            "message": record["message"],
            "logger": record["name"],
            "line": record["line"],
        }
        self._logger.event("log", **{**fields, **own, "ts_ns": round(record["time"].timestamp() * 1e9)})
