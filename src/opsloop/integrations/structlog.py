"""structlog's events as ours: one processor in its chain."""

from __future__ import annotations

import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

from opsloop.structured_logging import Logger

__all__ = ["EventProcessor"]


class EventProcessor:
    """Writes each event dictionary as a ``log`` event, with the request that it happened in, and passes it on.

    Put it before the renderer, after ``merge_contextvars`` and ``add_log_level``. ``event`` becomes the message, what
    is a column goes there, everything else into ``attributes``.

    >>> from opsloop.stream import MemoryStream
    >>> stream = MemoryStream()
    >>> EventProcessor(Logger(stream))(None, "warning", {"event": "stock is low", "left": 3})
    {'event': 'stock is low', 'left': 3}
    >>> [(event.severity, event.message, event.attributes) for event in stream]
    [('WARN', 'stock is low', {'left': 3})]
    """

    def __init__(self, logger: Logger) -> None:
        """Write to ``logger``, whose own level applies as well."""
        self._logger = logger

    def __call__(self, _logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Write one event."""
        fields = {name: value for name, value in event_dict.items() if name not in {"event", "timestamp", "ts_ns"}}
        severity = fields.pop("level", method)
        fields.update(_exception(fields.pop("exc_info", None)))
        self._logger.event("log", **{"severity": severity, **fields, "message": event_dict.get("event", "")})
        return event_dict


def _exception(exc_info: Any) -> dict[str, Any]:
    cause = sys.exc_info()[1] if exc_info is True else exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if not isinstance(cause, BaseException):
        return {}
    return {"error_type": type(cause).__name__, "exception": "".join(traceback.format_exception(cause))}
