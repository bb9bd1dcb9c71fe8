"""The limiter in front of any ASGI application: admit, tell, answer the refusal, and release whatever happens.

It is the one choke point: every HTTP request and WebSocket goes through it, unless ``exempt`` names its path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import msgspec

from opsloop.errors import StoreError
from opsloop.rate_limit.context import Amounts, Context
from opsloop.rate_limit.decision import Decision
from opsloop.rate_limit.headers import Dialect, limit_headers, problem, unavailable
from opsloop.rate_limit.limiter import Limiter, RateLimitedError, Slot
from opsloop.rate_limit.waiting import Waiting

__all__ = ["DECISION_KEY", "App", "Message", "RateLimitMiddleware", "Receive", "Scope", "Send", "encoded"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DECISION_KEY: Final = "opsloop.decision"
"""Where the application finds its decision in the ASGI scope, for ``limiter.settle(decision.reservation, actual)``."""
TRY_AGAIN_LATER: Final = 1013
"""The WebSocket close code for a refusal (IANA registry)."""


class RateLimitMiddleware:
    """ASGI middleware around ``app``.

    ``context(scope)`` says who asks, from what the application has authenticated; ``estimate(scope)`` for how much. A
    refusal is answered with its status, headers and problem details, and the application never sees the request. When
    the limiter's store fails the request is refused with 503.
    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        context: Callable[[Scope], Context],
        estimate: Callable[[Scope], Amounts] | None = None,
        dialects: Iterable[Dialect] = ("ietf",),
        exempt: Iterable[str] = (),
        wait_seconds: float = 0.0,
    ) -> None:
        """Guard ``app`` with ``limiter``; paths in ``exempt`` (health checks) are let through uncounted.

        With ``wait_seconds`` a request waits up to so long, in a fair order over the tenants, before it is refused.
        """
        self.app = app
        self.limiter = limiter
        self._context = context
        self._estimate = estimate
        self._dialects = tuple(dialects)
        self._exempt = frozenset(exempt)
        self._waiting = Waiting(limiter) if wait_seconds > 0 else None
        self._wait_seconds = wait_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"} or scope.get("path") in self._exempt:
            await self.app(scope, receive, send)
            return
        slot = self._slot(self._context(scope), self._estimate(scope) if self._estimate else None)
        try:
            decision = await slot.__aenter__()
        except RateLimitedError as refused:
            headers = limit_headers(refused.decision, dialects=self._dialects)
            await _answer(scope, send, refused.decision.status_code, problem(refused.decision), headers)
            return
        except StoreError as failed:
            await _answer(scope, send, 503, unavailable(failed), [("retry-after", "1")])
            return
        try:
            scope[DECISION_KEY] = decision
            await self.app(scope, receive, self._telling(decision, send))
        finally:
            await slot.__aexit__(None, None, None)

    def _slot(self, context: Context, estimate: Amounts | None) -> Slot:
        if self._waiting is None:
            return self.limiter.slot(context, estimate)
        return self._waiting.slot(context, estimate, wait_seconds=self._wait_seconds)

    def _telling(self, decision: Decision, send: Send) -> Send:
        """Return a ``send`` that adds the limit headers to the response's start."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = encoded(limit_headers(decision, dialects=self._dialects))
                message = {**message, "headers": [*message.get("headers", ()), *told]}
            await send(message)

        return tell


async def _answer(scope: Scope, send: Send, status: int, body: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": body["title"]})
        return
    payload = msgspec.json.encode(body)
    plain = [("content-type", "application/problem+json"), ("content-length", str(len(payload))), *headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded(plain)})
    await send({"type": "http.response.body", "body": payload})


def encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI carries them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
