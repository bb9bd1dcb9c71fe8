"""The way of every event out of the process: stamp, make, redact, write, and count what could not be written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final

from opsloop.clock import Clock, Ids
from opsloop.errors import ConfigError, OpsloopError
from opsloop.event import SEVERITIES, Event
from opsloop.stream import Sink
from opsloop.structured_logging.context import Context
from opsloop.structured_logging.record import make_event, severity_of
from opsloop.structured_logging.redact import DEFAULT_RULES, Rules, redact
from opsloop.structured_logging.sinks import JsonLinesSink

__all__ = ["SINK_FAILURES", "SPAN_KINDS", "Output", "rules_of"]

SPAN_KINDS: Final = frozenset({"request", "llm", "embed", "retrieve", "rerank", "tool", "agent", "guardrail", "span"})
"""The kinds that are spans of their own; any other event of a request happens in the span that is open."""
SINK_FAILURES: Final = (OpsloopError, OSError, RuntimeError, TypeError, ValueError)
"""What a sink may fail with. The host must not pay for it, so it is counted and shown, never raised."""


class Output:
    """What all loggers of one sink share. Its counters are for people: ``written``, ``failed``, ``last_error``."""

    def __init__(
        self,
        sink: Sink,
        *,
        clock: Clock,
        ids: Ids,
        stamp: Mapping[str, str],
        level: str,
        rules: Rules | None,
        writer: IO[str] | IO[bytes] | None = None,
    ) -> None:
        """Set up; raises :class:`ConfigError` for a level that is no severity."""
        severity = severity_of(level)
        if not severity:
            raise ConfigError(f"unknown log level {level!r}", fix=f"use one of {', '.join(SEVERITIES)}")
        self.clock = clock
        self.ids = ids
        self.threshold = SEVERITIES.index(severity)
        self.written = 0
        self.failed = 0
        self.last_error = ""
        self._stamp = {name: value for name, value in stamp.items() if value}
        self._rules = rules
        self._sinks: tuple[Sink, ...] = (sink,) if writer is None else (sink, JsonLinesSink(writer))

    def write(self, kind: str, fields: Mapping[str, Any], context: Context, *, ts_ns: int | None = None) -> Event:
        """Make an event of a call's fields and the context's, write it, and return it as it was written.

        ``log`` events below the level are not written. The level never thins the others: they are measurements, and
        what is derived from them would be wrong.
        """
        merged = {**self._stamp, **context.fields, **fields}
        if kind in SPAN_KINDS and merged.get("trace_id"):
            if "span_id" not in fields:
                merged["parent_span_id"] = merged.get("span_id", "")
                merged["span_id"] = self.ids.span_id()
            merged.setdefault("event_id", f"{merged['trace_id']}:{merged['span_id']}")
        event = make_event(self.clock.now_ns() if ts_ns is None else ts_ns, kind, merged)
        if self._rules is not None:
            event = redact(event, self._rules, context.tokens)
        if kind != "log" or SEVERITIES.index(event.severity) >= self.threshold:
            self._append(event)
        return event

    def _append(self, event: Event) -> None:
        for sink in self._sinks:
            try:
                sink.append((event,))
            except SINK_FAILURES as cause:
                self.failed += 1
                self.last_error = f"{type(cause).__name__}: {cause}"
            else:
                self.written += 1


def rules_of(option: bool | Rules) -> Rules | None:  # noqa: FBT001 - it is the option of that name
    """Return the rules that ``redact=`` means: ``True`` the default ones, ``False`` none."""
    if isinstance(option, Rules):
        return option
    return DEFAULT_RULES if option else None
