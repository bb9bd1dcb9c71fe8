"""What every event of a piece of work shares, carried across calls, tasks and threads.

One ``ContextVar`` holds one immutable :class:`Context`: a single read per log call, whatever is bound in it. Tasks,
``asyncio.to_thread`` and ``call_soon`` carry it by themselves. ``threading.Thread``, ``Executor.submit`` and
``loop.run_in_executor`` do not (Python 3.11): give them :func:`wrap`. A ``ContextVar`` set inside a generator leaks
into whoever consumes it, which a streamed answer does: decorate such a generator with :func:`isolated`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import msgspec

from opsloop.structured_logging.record import frozen, thawed
from opsloop.structured_logging.redact import Tokens

__all__ = ["CURRENT", "NOTHING", "Context", "Scope", "Seen", "current", "enter", "isolated", "leave", "use", "wrap"]

P = ParamSpec("P")
R = TypeVar("R")
NOTHING: Final[MappingProxyType[str, Any]] = MappingProxyType({})
"""No fields."""


class Seen(msgspec.Struct, frozen=True):
    """What a scope learns of an event that is written under it."""

    kind: str
    stage: str
    parent_span_id: str
    duration_us: int | None
    amounts: dict[str, int]
    """Tokens and cost, where they were measured."""
    error: bool
    error_type: str


class Scope(Protocol):
    """An open request or step: it hears of every event that is written under it."""

    def observe(self, seen: Seen, *, counted: bool) -> None:
        """Add an event to the scope's totals; ``counted`` tells that its tokens and cost are in already."""
        ...


class Context(msgspec.Struct, frozen=True, eq=False):
    """What is bound: fields for every event, the innermost open scope, and the request's redaction tokens."""

    fields: MappingProxyType[str, Any] = NOTHING
    scope: Scope | None = None
    tokens: Tokens | None = None
    encoded: dict[Any, Any] = msgspec.field(default_factory=dict)
    """What :class:`opsloop.structured_logging.lines.LineOutput` worked out for each logger in this context."""

    def extended(self, **fields: Any) -> Context:
        """Return a context with more fields; those that are there already are replaced."""
        return Context(MappingProxyType(self.fields | thawed(frozen(fields))), self.scope, self.tokens)


_EMPTY: Final = Context()
CURRENT: Final[ContextVar[Context]] = ContextVar("opsloop_context", default=_EMPTY)


def current() -> Context:
    """Return the context of the running task or thread; it is empty outside of every request.

    >>> with use(Context().extended(request_id="req-1")):
    ...     current().fields["request_id"]
    'req-1'
    >>> dict(current().fields)
    {}
    """
    return CURRENT.get()


def enter(context: Context) -> Token[Context]:
    """Make ``context`` the current one; hand the token to :func:`leave`."""
    return CURRENT.set(context)


def leave(token: Token[Context]) -> None:
    """Restore what was current before ``token``.

    A generator may be closed by another task than the one that began it. That task never saw the context, so there is
    nothing to restore in it.
    """
    try:
        CURRENT.reset(token)
    except ValueError:
        return


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Make ``context`` the current one within a ``with`` block."""
    token = enter(context)
    try:
        yield context
    finally:
        leave(token)


def wrap(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` bound to the context of now, for a thread, an executor or a callback.

    The result may run many times and in many threads at once. A coroutine function stays one.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with use(Context().extended(request_id="req-1")), ThreadPoolExecutor(1) as pool:
    ...     pool.submit(wrap(lambda: current().fields["request_id"])).result()
    'req-1'
    """
    carried = current()
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_later(*args: P.args, **kwargs: P.kwargs) -> Any:
            with use(carried):
                return await function(*args, **kwargs)

        return run_later  # type: ignore[return-value]

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with use(carried):
            return function(*args, **kwargs)

    return run


def isolated(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a generator or async generator function so that what it binds never reaches its consumer.

    Its own context is put in place for each step and taken away before the item is handed over. What the consumer
    sends or throws reaches the generator, and what it returns the consumer.

    >>> @isolated
    ... def answer():
    ...     with use(Context().extended(request_id="req-1")):
    ...         yield current().fields["request_id"]
    >>> [(inside, dict(current().fields)) for inside in answer()]
    [('req-1', {})]
    """
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def start_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            return _IsolatedAsync(function(*args, **kwargs))

        return start_async
    if not inspect.isgeneratorfunction(function):
        raise TypeError(f"{function!r} is no generator function: wrap() carries a context into a plain one")

    @functools.wraps(function)
    def start(*args: P.args, **kwargs: P.kwargs) -> Any:
        return _Isolated(function(*args, **kwargs))

    return start


class _Isolated(Generator[Any, Any, Any]):
    """A generator in its own context; ``close`` and ``next`` come with the base class."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._own = current()

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *cause: Any) -> Any:
        return self._step(self._inner.throw, *cause)

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        with use(self._own):
            try:
                return step(*args)
            finally:
                self._own = current()

    def __del__(self) -> None:
        """Close it in its own context, as the interpreter would in the last consumer's."""
        self.close()


class _IsolatedAsync(AsyncGenerator[Any, Any]):
    """An async generator in its own context. One that is left open is closed by the event loop, as any other."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._own = current()

    async def asend(self, value: Any) -> Any:
        return await self._step(self._inner.asend, value)

    async def athrow(self, *cause: Any) -> Any:
        return await self._step(self._inner.athrow, *cause)

    async def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        with use(self._own):
            try:
                return await step(*args)
            finally:
                self._own = current()
