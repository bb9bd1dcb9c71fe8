"""The way of every event out of the process: stamp, make, redact, thin, write, and count what could not be written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import IO, Any, Protocol

from opsloop.clock import Clock, Ids
from opsloop.errors import ConfigError
from opsloop.event import SEVERITIES, Event
from opsloop.stream import Sink
from opsloop.structured_logging.context import NOTHING, Context, current
from opsloop.structured_logging.record import FOREIGN_FAILURES, frozen, make_event, severity_of, text_of, thawed
from opsloop.structured_logging.redact import DEFAULT_RULES, Rules, redact
from opsloop.structured_logging.sample import Sampling
from opsloop.structured_logging.seen import SPAN_KINDS, observe
from opsloop.structured_logging.sinks import JsonLinesSink

__all__ = ["Bound", "Emit", "Log", "Output", "rules_of"]


class Log(Protocol):
    """Writes a ``log`` event of one severity."""

    def __call__(self, message: str, /, **fields: Any) -> None:
        """Write it; nothing is raised."""
        ...


class Emit(Protocol):
    """Writes an event of any kind."""

    def __call__(self, kind: str, /, *, ts_ns: int | None = None, **fields: Any) -> None:
        """Write it, now unless ``ts_ns`` says when; nothing is raised."""
        ...


class Bound:
    """The fields that a logger puts on every event of its own: a copy."""

    __slots__ = ("fields",)

    def __init__(self, fields: Mapping[str, Any] = NOTHING) -> None:
        """Keep a copy of the fields."""
        self.fields: MappingProxyType[str, Any] = MappingProxyType(thawed(frozen(dict(fields))))


class Output:
    """What all loggers of one sink share. ``failed`` and ``last_error`` are for people.

    This one makes each event at once and appends it to any sink: it says what the faster ones must do.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        clock: Clock,
        ids: Ids,
        stamp: Mapping[str, str],
        level: str,
        rules: Rules | None,
        sampling: Sampling | None = None,
        writer: IO[str] | IO[bytes] | None = None,
    ) -> None:
        """Set up; raises :class:`ConfigError` for a level that is no severity."""
        severity = severity_of(level)
        if not severity:
            raise ConfigError(f"unknown log level {level!r}", fix=f"use one of {', '.join(SEVERITIES)}")
        self.clock = clock
        self.ids = ids
        self.threshold = SEVERITIES.index(severity)
        self.failed = 0
        self.last_error = ""
        self._stamp = {name: value for name, value in stamp.items() if value}
        self._rules = rules
        self._sampling = sampling
        self._sinks: tuple[Sink, ...] = (sink,) if writer is None else (sink, JsonLinesSink(writer))

    def logs(self, bound: Bound, *severities: str) -> Iterator[Log]:
        """Yield what a logger with these fields calls for each severity: below the level that does nothing."""
        for name in severities:
            severity = SEVERITIES.index(name)
            yield _ignore if severity < self.threshold else self.log(severity, bound)

    def log(self, severity: int, bound: Bound) -> Log:
        """Return a function that writes a ``log`` event of a severity, by its index.

        A function for each, because a call spends its time on what it has to look up first.
        """
        name = SEVERITIES[severity]

        def log(message: str, /, **fields: Any) -> None:
            self.write("log", {**bound.fields, "severity": name, **fields, "message": message}, current())

        return log

    def event(self, bound: Bound) -> Emit:
        """Return a function that writes an event of any kind."""

        def event(kind: str, /, *, ts_ns: int | None = None, **fields: Any) -> None:
            name = kind if type(kind) is str else text_of(kind)
            given = bound.fields | fields if ts_ns is None else {**bound.fields, **fields, "ts_ns": ts_ns}
            self.write(name, given, current())
            if name in SPAN_KINDS:
                observe(name, given, current())

        return event

    def write(self, kind: str, fields: dict[str, Any], context: Context, *, ts_ns: int | None = None) -> None:
        """Write an event of fields that are merged already."""
        event = self.make(kind, fields, context, self.clock.now_ns() if ts_ns is None else ts_ns)
        if event is not None:
            self._append(event)

    def make(self, kind: str, fields: dict[str, Any], context: Context, ts_ns: int) -> Event | None:
        """Make an event of a call's fields and the context's; ``None`` when it is not to be written.

        ``log`` events below the level are not written. The level never thins the others: they are measurements, and
        what is derived from them would be wrong.
        """
        merged = self._stamp | context.fields | fields
        if kind in SPAN_KINDS and merged.get("trace_id"):
            if "span_id" not in fields:
                merged["parent_span_id"] = merged.get("span_id", "")
                merged["span_id"] = self.ids.span_id()
            merged.setdefault("event_id", f"{merged['trace_id']}:{merged['span_id']}")
        event = make_event(ts_ns, kind, merged)
        if kind == "log" and SEVERITIES.index(event.severity) < self.threshold:
            return None
        if self._sampling is not None:
            sampled = self._sampling.apply(event)
            if sampled is None:
                return None
            event = sampled
        return event if self._rules is None else redact(event, self._rules, context.tokens)

    def _append(self, event: Event) -> None:
        for sink in self._sinks:
            try:
                sink.append((event,))
            except FOREIGN_FAILURES as cause:
                self.fail(cause)

    def fail(self, cause: BaseException) -> None:
        """Count what could not be written, and keep the reason."""
        self.failed += 1
        self.last_error = f"{type(cause).__name__}: {cause}"


def _ignore(_message: str, /, **_fields: Any) -> None:
    return


def rules_of(option: bool | Rules) -> Rules | None:  # noqa: FBT001 - it is the option of that name
    """Return the rules that ``redact=`` means: ``True`` the default ones, ``False`` none."""
    if isinstance(option, Rules):
        return option
    return DEFAULT_RULES if option else None
