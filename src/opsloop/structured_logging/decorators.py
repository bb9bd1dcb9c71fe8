"""Steps by decoration: a function's every call becomes a span event, whatever kind of function it is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import suppress
from typing import Any

from opsloop.structured_logging.context import isolated
from opsloop.structured_logging.record import FOREIGN_FAILURES
from opsloop.structured_logging.scope import StepScope

__all__ = ["Measure", "traced"]

Measure = Callable[[Any], Mapping[str, Any] | None]
"""Reads fields of the event from a result, such as ``lambda answer: {"input_tokens": answer.usage.input_tokens}``."""


def traced(
    step: Callable[..., StepScope],
    kind: str,
    function: Callable[..., Any] | None,
    measure: Measure | None,
    fields: Mapping[str, Any],
) -> Any:
    """Decorate ``function``, or return the decorator when there is none yet.

    The event has the call's duration and failure. Of a generator, plain or async, it ends with the last item or when
    the consumer closes it, and its first item counts as the first token. What the generator binds stays out of the
    consumer; what the consumer sends and throws reaches the generator. A ``measure`` that fails adds nothing and raises
    nothing.

    >>> from opsloop.stream import MemoryStream
    >>> from opsloop.structured_logging.logger import Logger
    >>> stream = MemoryStream()
    >>> @Logger(stream).tool
    ... def search(query):
    ...     return [query]
    >>> search("lamp"), [(event.event, event.tool) for event in stream]
    (['lamp'], [('tool', 'search')])
    """
    if function is None:
        return functools.partial(_decorated, step, kind, measure, fields)
    return _decorated(step, kind, measure, fields, function)


def _decorated(
    step: Callable[..., StepScope],
    kind: str,
    measure: Measure | None,
    fields: Mapping[str, Any],
    function: Callable[..., Any],
) -> Any:
    given = {"tool": getattr(function, "__name__", kind), **fields} if kind == "tool" else dict(fields)

    def measured(scope: StepScope, result: Any) -> Any:
        if measure is not None:
            with suppress(*FOREIGN_FAILURES):
                scope.set(**(measure(result) or {}))
        return result

    if inspect.isasyncgenfunction(function):

        async def stream_async(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with step(kind, **given) as scope:
                inner = function(*args, **kwargs)
                advance = functools.partial(inner.asend, None)
                while True:  # what ``yield from`` does in a plain generator
                    try:
                        item = await advance()
                    except StopAsyncIteration:
                        return
                    scope.first_token()
                    try:
                        sent = yield measured(scope, item)
                    except GeneratorExit:
                        await inner.aclose()
                        raise
                    except BaseException as cause:  # noqa: BLE001 - it is the generator's to handle
                        advance = functools.partial(inner.athrow, cause)
                    else:
                        advance = functools.partial(inner.asend, sent)

        return functools.wraps(function)(isolated(stream_async))
    if inspect.isgeneratorfunction(function):

        def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with step(kind, **given) as scope:

                def look(item: Any) -> Any:
                    scope.first_token()
                    return measured(scope, item)

                return (yield from _Watched(function(*args, **kwargs), look))

        return functools.wraps(function)(isolated(stream))
    if inspect.iscoroutinefunction(function):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with step(kind, **given) as scope:
                return measured(scope, await function(*args, **kwargs))

        return functools.wraps(function)(call_async)

    def call(*args: Any, **kwargs: Any) -> Any:
        with step(kind, **given) as scope:
            return measured(scope, function(*args, **kwargs))

    return functools.wraps(function)(call)


class _Watched(Generator[Any, Any, Any]):
    """A generator whose every item is looked at."""

    def __init__(self, inner: Any, look: Callable[[Any], Any]) -> None:
        self._inner = inner
        self._look = look

    def send(self, value: Any) -> Any:
        return self._look(self._inner.send(value))

    def throw(self, *cause: Any) -> Any:
        return self._look(self._inner.throw(*cause))
