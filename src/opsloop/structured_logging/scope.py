"""The two scopes of work: a request, which ends in exactly one canonical event, and a step within it.

The canonical event is written when the request ends, however it ends, with everything that was learned on the way:
outcome, duration, and the sums of what happened inside. All golden signals derive from it. Tokens and cost are summed
over ``llm`` and ``embed`` events only, and once: a model call that wraps another one is not counted again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextvars import Token
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from opsloop.structured_logging.context import Context, Scope, Seen, current, enter, leave
from opsloop.structured_logging.output import Output
from opsloop.structured_logging.propagation import Incoming, incoming
from opsloop.structured_logging.record import text_of
from opsloop.structured_logging.redact import Tokens
from opsloop.structured_logging.seen import AMOUNTS, seen

__all__ = ["RequestScope", "StepScope"]

INHERITED: Final = ("tenant", "user_id", "session_id", "route")
"""Fields of a request that every event inside it has as well."""
_CANCELLED: Final = frozenset({"CancelledError", "Cancelled", "GeneratorExit"})
_CLIENT_CLOSED: Final = 499
_SERVER_ERROR: Final = 500


class _Timed:
    """What a request and a step have in common: fields, a start, a first token, a failure."""

    def __init__(self, output: Output, fields: Mapping[str, Any]) -> None:
        self.span_id = ""
        self._output = output
        self._fields = dict(fields)
        self._token: Token[Context] | None = None
        self._outer = current()
        self._start_ns = 0
        self._began_ns = 0

    def set(self, **fields: Any) -> None:
        """Add fields to the event that ends this scope; a later value replaces an earlier one."""
        self._fields.update(fields)

    def fail(self, error_type: str, *, message: str = "") -> None:
        """Mark the scope as failed without an exception, such as an answer that could not be used."""
        self._fields.update(error=True, error_type=error_type)
        if type(message) is not str or message:
            self._fields["message"] = message

    def first_token(self) -> None:
        """Mark the first token of a streamed answer; only the first call counts."""
        self._fields.setdefault("time_to_first_token_us", self._elapsed_us())

    def _begin(self, context: Context) -> None:
        clock = self._output.clock
        self._start_ns, self._began_ns = clock.now_ns(), clock.monotonic_ns()
        self._token = enter(context)

    def _end(self) -> bool:
        """Leave the context; return whether the scope was open."""
        token, self._token = self._token, None
        if token is None:
            return False
        self._fields.setdefault("duration_us", self._elapsed_us())
        leave(token)
        return True

    def _elapsed_us(self) -> int:
        return (self._output.clock.monotonic_ns() - self._began_ns) // 1000

    def _blame(self, cause: BaseException | None) -> None:
        """Take error, error_type, severity and message from an exception, where they were not set."""
        if cause is not None:
            cancelled = type(cause).__name__ in _CANCELLED
            self._fields.setdefault("error", not cancelled)
            self._fields.setdefault("error_type", type(cause).__name__)
            self._fields.setdefault("message", cause)
            if cancelled:
                self._fields.setdefault("severity", "WARN")
        if self._fields.get("error") is True:
            self._fields.setdefault("severity", "ERROR")


class RequestScope(_Timed):
    """One request, from :meth:`Logger.request`; use it in ``with``. Its ids are there once it is entered."""

    def __init__(
        self, output: Output, fields: Mapping[str, Any], *, request_id: str | None, headers: Mapping[str, str] | None
    ) -> None:
        """Prepare a request; nothing happens before ``with`` enters it."""
        super().__init__(output, fields)
        self.request_id = "" if request_id is None else text_of(request_id)
        self.trace_id = ""
        self._caller = incoming(headers) if headers else Incoming()
        self._lock = threading.Lock()
        self._sums: dict[str, int] = {}
        self._stages: dict[str, int] = {}
        self._retries = 0
        self._cause = ""
        self._context = Context()

    def __enter__(self) -> Self:
        """Begin: ids are given, and every event from here on carries them."""
        ids, outer = self._output.ids, current()
        self._outer = outer
        self.request_id = self.request_id or self._caller.request_id or ids.request_id()
        self.trace_id = self._caller.trace_id or outer.fields.get("trace_id") or ids.trace_id()
        self.span_id = ids.span_id()
        same_trace = self.trace_id == outer.fields.get("trace_id")
        self._fields["parent_span_id"] = self._caller.parent_span_id or (
            outer.fields.get("span_id", "") if same_trace else ""
        )
        own = {name: text_of(self._fields[name]) for name in INHERITED if self._fields.get(name) is not None}
        bound = outer.fields | {name: text for name, text in own.items() if text}
        bound.update(request_id=self.request_id, trace_id=self.trace_id, span_id=self.span_id)
        self._context = Context(MappingProxyType(bound), self, Tokens())
        self._begin(self._context)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, cause: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End: write the canonical event, once; an exception goes on to the caller."""
        if not self._end():
            return
        with self._lock:
            self._settle(cause)
        self._output.write("request", {**self._fields, "span_id": self.span_id}, self._context, ts_ns=self._start_ns)

    def add(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_microusd: int = 0, retries: int = 0) -> None:
        """Add to the totals what no event of its own reports."""
        with self._lock:
            for name, amount in zip(AMOUNTS, (input_tokens, output_tokens, cost_microusd), strict=True):
                if amount:
                    self._sums[name] = self._sums.get(name, 0) + amount
            self._retries += retries

    def observe(self, seen: Seen, *, counted: bool) -> None:
        """Add an event that was written inside to the totals."""
        with self._lock:
            if not counted:
                for name, amount in seen.amounts.items():
                    self._sums[name] = self._sums.get(name, 0) + amount
            if seen.parent_span_id == self.span_id and seen.duration_us is not None:
                self._stages[seen.stage] = self._stages.get(seen.stage, 0) + seen.duration_us
            if seen.error and not self._cause:
                self._cause = seen.error_type

    def _settle(self, cause: BaseException | None) -> None:
        """Fill what is known at the end and was not set: outcome, totals, stages."""
        fields = self._fields
        if cause is not None:
            status = getattr(cause, "status_code", None)
            if type(cause).__name__ in _CANCELLED:
                fields.setdefault("status_code", _CLIENT_CLOSED)
            elif isinstance(status, int):  # a web framework's way to answer: only 5xx is the service's failure
                fields.setdefault("status_code", status)
                fields.setdefault("error", status >= _SERVER_ERROR)
            else:
                fields.setdefault("status_code", _SERVER_ERROR)
        status = fields.get("status_code")
        if isinstance(status, int) and status >= _SERVER_ERROR:
            fields.setdefault("error", True)
        if fields.get("error") is True and cause is None:
            fields.setdefault("error_type", self._cause or ("" if status is None else text_of(status)))
        self._blame(cause)
        for name, amount in self._sums.items():
            fields.setdefault(name, amount)
        if self._stages:
            fields.setdefault("stages", dict(self._stages))
        if self._retries:
            fields.setdefault("retries", self._retries)


class StepScope(_Timed):
    """One step of a request, from :meth:`Logger.step`; use it in ``with``. It ends in one span event."""

    def __init__(self, output: Output, kind: str, fields: Mapping[str, Any]) -> None:
        """Prepare a step; nothing happens before ``with`` enters it."""
        super().__init__(output, fields)
        self.kind = kind if type(kind) is str else text_of(kind)
        self._counted = False
        self._parent: Scope | None = None
        if self.kind == "retrieve":
            self._fields.setdefault("tool", "retrieve")

    def __enter__(self) -> Self:
        """Begin a span below the one that is open."""
        outer = self._outer = current()
        ids = self._output.ids
        self._parent = outer.scope
        self.span_id = ids.span_id()
        bound = {**outer.fields, "span_id": self.span_id}
        bound.setdefault("trace_id", ids.trace_id())
        self._fields.setdefault("trace_id", bound["trace_id"])
        self._fields["parent_span_id"] = outer.fields.get("span_id", "")
        self._begin(Context(MappingProxyType(bound), self, outer.tokens))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, cause: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End: write the span's event, once; an exception goes on to the caller."""
        if not self._end():
            return
        self._blame(cause)
        fields = {**self._fields, "span_id": self.span_id}
        self._output.write(self.kind, fields, self._outer, ts_ns=self._start_ns)
        if self._parent is not None:
            self._parent.observe(seen(self.kind, fields, parent=fields.get("parent_span_id")), counted=self._counted)

    def observe(self, seen: Seen, *, counted: bool) -> None:
        """Hand an event on to the request, and remember whether it brought the tokens that this step repeats."""
        self._counted = self._counted or bool(seen.amounts)
        if self._parent is not None:
            self._parent.observe(seen, counted=counted)
