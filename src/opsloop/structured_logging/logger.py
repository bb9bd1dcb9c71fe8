"""The logger: what an application calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Final

from opsloop.clock import Clock, Ids, SystemClock, SystemIds
from opsloop.stream import Sink
from opsloop.structured_logging.buffered import BufferedSink
from opsloop.structured_logging.context import Context, current, use
from opsloop.structured_logging.decorators import Measure, traced
from opsloop.structured_logging.handed import HandedOutput
from opsloop.structured_logging.lines import LineOutput
from opsloop.structured_logging.output import Bound, Emit, Log, Output, rules_of
from opsloop.structured_logging.redact import Rules
from opsloop.structured_logging.sample import Sampling
from opsloop.structured_logging.scope import RequestScope, StepScope
from opsloop.structured_logging.sinks import JsonLinesSink

__all__ = ["DefaultLogger", "Logger", "log"]


class Logger:
    """Writes events to a sink. It never raises into its caller: what could not be written is counted in ``failed``.

    Fields that are promoted columns go there, all others into ``attributes``. ``sample`` is the probability with which
    a ``log`` event is kept, or one per kind (:class:`Sampling`). ``writer`` is a stream that gets every event as a line
    of JSON as well.

    What a call costs its caller depends on the sink. Over a :class:`BufferedSink` it only hands over what was said;
    over a :class:`JsonLinesSink` it encodes the call's own fields and writes; any other sink gets the finished event.

    >>> from opsloop.testing import ManualClock, MemoryStream, SeededIds
    >>> stream = MemoryStream()
    >>> log = Logger(stream, service="bot", clock=ManualClock(), ids=SeededIds())
    >>> with log.request(request_id="req-1", route="/chat") as request:
    ...     log.info("question received", words=5)
    ...     request.set(status_code=200)
    >>> [(event.event, event.request_id, event.route, event.status_code) for event in stream]
    [('log', 'req-1', '/chat', None), ('request', 'req-1', '/chat', 200)]
    """

    __slots__ = {  # noqa: RUF023 - the levels in their order
        "_bound": "The fields of this logger.",
        "_output": "What all loggers of one sink share.",
        "event": "Write an event of any kind, now unless ``ts_ns`` says when.",
        "debug": "Write a ``log`` event of severity DEBUG.",
        "info": "Write a ``log`` event of severity INFO.",
        "warning": "Write a ``log`` event of severity WARN.",
        "error": "Write a ``log`` event of severity ERROR.",
    }

    event: Emit
    debug: Log
    info: Log
    warning: Log
    error: Log

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
        sample: float | Mapping[str, float] | None = None,
        writer: IO[str] | IO[bytes] | None = None,
    ) -> None:
        """Set up; raises :class:`ConfigError` for a ``level`` that is no severity or a ``sample`` outside of [0, 1]."""
        output = _output(
            sink,
            clock=clock or SystemClock(),
            ids=ids or SystemIds(),
            stamp={"service": service, "environment": environment, "release": release},
            level=level,
            rules=rules_of(redact),
            sampling=None if sample is None else Sampling(sample),
            writer=writer,
        )
        self._set_up(output, Bound())

    def _set_up(self, output: Output, bound: Bound) -> None:
        self._output, self._bound = output, bound
        self.event = output.event(bound)
        self.debug, self.info, self.warning, self.error = output.logs(bound, "DEBUG", "INFO", "WARN", "ERROR")

    @property
    def failed(self) -> int:
        """How many writes the sink refused. A :class:`BufferedSink` counts what its own thread could not write."""
        return self._output.failed

    @property
    def last_error(self) -> str:
        """Why the last one was refused; empty when none was."""
        return self._output.last_error

    def bind(self, **fields: Any) -> Logger:
        """Return a logger that puts these fields on every event of its own."""
        return _BoundLogger(self._output, self._bound.fields | fields)

    def request(
        self, *, request_id: str | None = None, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> RequestScope:
        """Open a request for a ``with`` block; when that ends, one canonical ``request`` event is written.

        ``headers`` are the caller's: its ``traceparent`` and ``baggage`` are continued. ``tenant``, ``user_id``,
        ``session_id`` and ``route`` go on every event inside, the other fields on the canonical one.
        """
        return RequestScope(self._output, self._bound.fields | fields, request_id=request_id, headers=headers)

    def step(self, kind: str, /, **fields: Any) -> StepScope:
        """Open a step for a ``with`` block; when that ends, one span event is written, with duration and failure."""
        return StepScope(self._output, kind, self._bound.fields | fields)

    def tool(self, function: Any = None, /, *, measure: Measure | None = None, **fields: Any) -> Any:
        """Decorate a function, plain, async or a generator, so that each call is a ``tool`` step; see :func:`traced`.

        ``@log.tool`` names the tool as the function is named, ``@log.tool(tool="search")`` as it says.
        """
        return traced(self.step, "tool", function, measure, fields)

    def model_call(self, function: Any = None, /, *, measure: Measure | None = None, **fields: Any) -> Any:
        """Decorate a function so that each call is an ``llm`` step; a generator's first item is the first token.

        ``measure(result)`` returns what to add, such as the tokens; of a stream it is asked for every item.
        """
        return traced(self.step, "llm", function, measure, fields)

    @contextmanager
    def scope(self, **fields: Any) -> Iterator[Context]:
        """Put fields on every event within a ``with`` block, whichever logger of this process writes it."""
        with use(current().extended(**fields)) as context:
            yield context


class _BoundLogger(Logger):
    """A logger over another one's output, with more fields."""

    __slots__ = ()

    def __init__(self, output: Output, bound: Mapping[str, Any]) -> None:
        self._set_up(output, Bound(bound))


class DefaultLogger(Logger):
    """JSON lines on standard output, set up from the settings when it is first used.

    Settings that cannot be read do not stop the application: the defaults serve, and the first line says what is wrong.
    """

    __slots__ = ()

    def __init__(self) -> None:
        """Do nothing yet, so that importing it costs nothing and fails for nothing."""

    def __getattr__(self, name: str) -> Any:
        """Set up on first use: Python asks here only while the slot is empty."""
        if name not in Logger.__slots__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._read_settings()
        return getattr(self, name)

    def _read_settings(self) -> None:
        from opsloop.structured_logging.configured import configured  # noqa: PLC0415 - an own Logger needs no settings

        settings, sink, problem = configured()
        stamp = {"service": settings.service, "environment": settings.environment, "release": settings.release}
        output = _output(
            sink,
            clock=SystemClock(),
            ids=SystemIds(),
            stamp=stamp,
            level=settings.level,
            rules=rules_of(settings.redact),
        )
        self._set_up(output, Bound())
        if problem:
            self.warning(f"default log settings are in use: {problem}")


def _output(sink: Sink, **options: Any) -> Output:
    """Choose the cheapest way that a sink allows; a second ``writer`` takes the plain one."""
    if options.get("writer") is not None:
        return Output(sink, **options)
    if isinstance(sink, BufferedSink):
        return HandedOutput(sink, **options)
    return LineOutput(sink, **options) if isinstance(sink, JsonLinesSink) else Output(sink, **options)


log: Final = DefaultLogger()
"""The ready logger of an application."""
