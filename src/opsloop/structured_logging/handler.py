"""The standard library's ``logging`` as ``log`` events, with the request they happened in."""

from __future__ import annotations

import logging
import traceback
from contextvars import ContextVar
from typing import Any, Final

from opsloop.structured_logging.logger import Logger

__all__ = ["LoggingHandler"]

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_LEVELS: Final = ((50, "FATAL"), (40, "ERROR"), (30, "WARN"), (20, "INFO"), (10, "DEBUG"))
_EMITTING: Final[ContextVar[bool]] = ContextVar("opsloop_logging_handler", default=False)


class LoggingHandler(logging.Handler):
    """Writes each record as a ``log`` event; what was passed in ``extra`` becomes attributes or columns.

    A record that is made while another one is written, such as a sink's own, is left to the other handlers: it cannot
    dead-lock and cannot feed itself. Nothing is raised into the caller.

    >>> from opsloop.stream import MemoryStream
    >>> stream = MemoryStream()
    >>> logger = logging.Logger("shop")
    >>> logger.addHandler(LoggingHandler(Logger(stream)))
    >>> logger.warning("stock is %d", 3, extra={"tenant": "acme"})
    >>> [(event.severity, event.message, event.tenant, event.attributes) for event in stream]
    [('WARN', 'stock is 3', 'acme', {'logger': 'shop'})]
    """

    def __init__(self, logger: Logger, *, level: int = logging.NOTSET) -> None:
        """Write to ``logger``, whose own level applies as well."""
        super().__init__(level)
        self._logger = logger

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """Take no lock: the logger needs none, and a lock held while writing is what dead-locks."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if _EMITTING.get():
            return
        token = _EMITTING.set(True)
        try:
            fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
            fields |= {"logger": record.name, "severity": _severity(record.levelno), **_exception(record)}
            fields.pop("kind", None)
            self._logger.event("log", **{**fields, "ts_ns": round(record.created * 1e9), "message": _message(record)})
        finally:
            _EMITTING.reset(token)


def _severity(level: int) -> str:
    return next((name for least, name in _LEVELS if level >= least), "TRACE")


def _message(record: logging.LogRecord) -> str:
    """Return the message; one whose arguments do not fit its format is shown with them beside it."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return f"{record.msg} {record.args!r}"


def _exception(record: logging.LogRecord) -> dict[str, Any]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    text = "".join(traceback.format_exception(*record.exc_info))
    return {"error_type": record.exc_info[0].__name__, "exception": text}
