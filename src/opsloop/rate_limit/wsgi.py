"""The limiter in front of any WSGI application (PEP 3333): Flask, Django, and whatever else speaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final

import msgspec

from opsloop.errors import StoreError
from opsloop.rate_limit.context import Amounts, Context
from opsloop.rate_limit.decision import Decision
from opsloop.rate_limit.headers import Dialect, limit_headers, problem, unavailable
from opsloop.rate_limit.limiter import Limiter, RateLimitedError, Slot
from opsloop.rate_limit.waiting import Waiting

__all__ = ["ENVIRON_KEY", "WsgiRateLimitMiddleware"]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None

ENVIRON_KEY: Final = "opsloop.decision"
"""Where the application finds its decision in the environ."""


class WsgiRateLimitMiddleware:
    """WSGI middleware around ``app``; see :class:`opsloop.rate_limit.RateLimitMiddleware` for what it does.

    A slot is held until the server closes the response, so a streamed answer holds it to its end. With
    ``wait_seconds`` the worker thread waits.
    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        context: Callable[[Environ], Context],
        estimate: Callable[[Environ], Amounts] | None = None,
        dialects: Iterable[Dialect] = ("ietf",),
        exempt: Iterable[str] = (),
        wait_seconds: float = 0.0,
    ) -> None:
        """Guard ``app`` with ``limiter``; paths in ``exempt`` (health checks) are let through uncounted."""
        self.app = app
        self.limiter = limiter
        self._context = context
        self._estimate = estimate
        self._dialects = tuple(dialects)
        self._exempt = frozenset(exempt)
        self._waiting = Waiting(limiter) if wait_seconds > 0 else None
        self._wait_seconds = wait_seconds

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if environ.get("PATH_INFO") in self._exempt:
            return self.app(environ, start_response)
        slot = self._slot(self._context(environ), self._estimate(environ) if self._estimate else None)
        try:
            decision = slot.__enter__()
        except RateLimitedError as refused:
            headers = limit_headers(refused.decision, dialects=self._dialects)
            return _answer(start_response, refused.decision.status_code, problem(refused.decision), headers)
        except StoreError as failed:
            return _answer(start_response, 503, unavailable(failed), [("retry-after", "1")])
        environ[ENVIRON_KEY] = decision
        with ExitStack() as undo:  # an application that fails gives the slot back at once
            undo.callback(slot.__exit__, None, None, None)
            parts = self.app(environ, self._telling(decision, start_response))
            return _Held(parts, undo.pop_all())

    def _slot(self, context: Context, estimate: Amounts | None) -> Slot:
        if self._waiting is None:
            return self.limiter.slot(context, estimate)
        return self._waiting.slot(context, estimate, wait_seconds=self._wait_seconds)

    def _telling(self, decision: Decision, start_response: StartResponse) -> StartResponse:
        """Return a ``start_response`` that adds the limit headers."""

        def tell(status: str, headers: Headers, exc_info: ExcInfo = None) -> Any:
            told = [*headers, *limit_headers(decision, dialects=self._dialects)]
            return start_response(status, told, exc_info) if exc_info else start_response(status, told)

        return tell


class _Held:
    """A response that gives its slot back when the server closes it, which it does in any case."""

    def __init__(self, parts: Iterable[bytes], held: ExitStack) -> None:
        self._parts = parts
        self._held = held

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def close(self) -> None:
        try:
            close = getattr(self._parts, "close", None)
            if close is not None:
                close()
        finally:
            self._held.close()


def _answer(
    start_response: StartResponse, status: int, body: dict[str, Any], headers: list[tuple[str, str]]
) -> list[bytes]:
    payload = msgspec.json.encode(body)
    plain = [("content-type", "application/problem+json"), ("content-length", str(len(payload))), *headers]
    start_response(f"{status} {HTTPStatus(status).phrase}", plain)
    return [payload]
