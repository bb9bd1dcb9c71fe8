"""The logger: what an application calls."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO, Any, Final

from opsloop.clock import Clock, Ids, SystemClock, SystemIds
from opsloop.errors import ConfigError
from opsloop.event import SEVERITIES, Event
from opsloop.settings import LogSettings, load_settings
from opsloop.stream import Sink
from opsloop.structured_logging.context import Context, current, use
from opsloop.structured_logging.output import Output, rules_of
from opsloop.structured_logging.redact import Rules
from opsloop.structured_logging.scope import RequestScope, StepScope, observed
from opsloop.structured_logging.sinks import JsonLinesSink

__all__ = ["DefaultLogger", "Logger", "log"]

_DEBUG, _INFO, _WARN, _ERROR = (SEVERITIES.index(name) for name in ("DEBUG", "INFO", "WARN", "ERROR"))
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Logger:
    """Writes events to a sink. It never raises into its caller: what could not be written is counted in ``failed``.

    Fields that are promoted columns go there, all others into ``attributes``. ``writer`` is a stream that gets every
    event as a line of JSON as well.

    >>> from opsloop.testing import ManualClock, MemoryStream, SeededIds
    >>> stream = MemoryStream()
    >>> log = Logger(stream, service="bot", clock=ManualClock(), ids=SeededIds())
    >>> with log.request(request_id="req-1", route="/chat") as request:
    ...     log.info("question received", words=5)
    ...     request.set(status_code=200)
    >>> [(event.event, event.request_id, event.route, event.status_code) for event in stream]
    [('log', 'req-1', '/chat', None), ('request', 'req-1', '/chat', 200)]
    """

    __slots__ = ("_bound", "_output")

    def __init__(
        self,
        sink: Sink,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        service: str = "",
        environment: str = "",
        release: str = "",
        level: str = "INFO",
        redact: bool | Rules = True,
        writer: IO[str] | IO[bytes] | None = None,
    ) -> None:
        """Set up; raises :class:`ConfigError` for a ``level`` that is no severity, and for nothing else."""
        self._bound = _NOTHING
        self._output = Output(
            sink,
            clock=clock or SystemClock(),
            ids=ids or SystemIds(),
            stamp={"service": service, "environment": environment, "release": release},
            level=level,
            rules=rules_of(redact),
            writer=writer,
        )

    @property
    def failed(self) -> int:
        """How many writes the sink refused."""
        return self._output.failed

    @property
    def last_error(self) -> str:
        """Why the last one was refused; empty when none was."""
        return self._output.last_error

    def bind(self, **fields: Any) -> Logger:
        """Return a logger that puts these fields on every event of its own."""
        return _BoundLogger(self._output, {**self._bound, **fields})

    def event(self, kind: str, /, *, ts_ns: int | None = None, **fields: Any) -> Event:
        """Write an event of any kind, now unless ``ts_ns`` says when; return it as it was written."""
        context = current()
        merged = {**self._bound, **fields} if self._bound else fields
        return observed(self._output.write(kind, merged, context, ts_ns=ts_ns), context)

    def debug(self, message: str, /, **fields: Any) -> None:
        """Write a ``log`` event of severity DEBUG."""
        self._log(_DEBUG, message, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        """Write a ``log`` event of severity INFO."""
        self._log(_INFO, message, fields)

    def warning(self, message: str, /, **fields: Any) -> None:
        """Write a ``log`` event of severity WARN."""
        self._log(_WARN, message, fields)

    def error(self, message: str, /, **fields: Any) -> None:
        """Write a ``log`` event of severity ERROR."""
        self._log(_ERROR, message, fields)

    def _log(self, severity: int, message: str, fields: dict[str, Any]) -> None:
        output = self._output
        if severity >= output.threshold:
            merged = {**self._bound, "severity": SEVERITIES[severity], **fields, "message": message}
            output.write("log", merged, current())

    def request(
        self, *, request_id: str | None = None, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> RequestScope:
        """Open a request for a ``with`` block; when that ends, one canonical ``request`` event is written.

        ``headers`` are the caller's: its ``traceparent`` and ``baggage`` are continued. ``tenant``, ``user_id``,
        ``session_id`` and ``route`` go on every event inside, the other fields on the canonical one.
        """
        return RequestScope(self._output, {**self._bound, **fields}, request_id=request_id, headers=headers)

    def step(self, kind: str, /, **fields: Any) -> StepScope:
        """Open a step for a ``with`` block; when that ends, one span event is written, with duration and failure."""
        return StepScope(self._output, kind, {**self._bound, **fields})

    @contextmanager
    def scope(self, **fields: Any) -> Iterator[Context]:
        """Put fields on every event within a ``with`` block, whichever logger of this process writes it."""
        with use(current().extended(**fields)) as context:
            yield context


class _BoundLogger(Logger):
    """A logger over another one's output, with more fields."""

    __slots__ = ()

    def __init__(self, output: Output, bound: Mapping[str, Any]) -> None:
        self._output = output
        self._bound = MappingProxyType(dict(bound))


class DefaultLogger(Logger):
    """JSON lines on standard output, set up from the settings when it is first used.

    Settings that cannot be read do not stop the application: the defaults serve, and the first line says what is wrong.
    """

    __slots__ = ()

    def __init__(self) -> None:
        """Do nothing yet, so that importing it costs nothing and fails for nothing."""
        self._bound = _NOTHING

    def __getattr__(self, name: str) -> Any:
        """Set up on first use: Python asks here only while the slot is empty."""
        if name != "_output":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        problem = ""
        try:
            settings = load_settings().log
        except ConfigError as cause:
            settings, problem = LogSettings(), str(cause)
        stamp = {"service": settings.service, "environment": settings.environment, "release": settings.release}
        self._output = Output(
            JsonLinesSink(sys.stdout),
            clock=SystemClock(),
            ids=SystemIds(),
            stamp=stamp,
            level=settings.level,
            rules=rules_of(settings.redact),
        )
        if problem:
            self.warning(f"default log settings are in use: {problem}")
        return self._output


log: Final = DefaultLogger()
"""The ready logger of an application."""
