"""One canonical event per HTTP request of any ASGI application (FastAPI, Starlette, Django, Litestar)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from opsloop.structured_logging import Logger

__all__ = ["EventMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class EventMiddleware:
    """Opens a request scope around each HTTP request, so that everything inside shares its id and trace.

    The caller's ``traceparent`` and ``baggage`` are continued. The event has the status, the duration, ``in_flight``,
    the route's template where the framework leaves it in the scope (``route``), and for a streamed answer the time to
    its first bytes. ``fields(scope)`` adds more, such as the tenant; paths in ``exempt`` are let through unseen.
    """

    def __init__(
        self,
        app: App,
        logger: Logger,
        *,
        fields: Callable[[Scope], dict[str, Any]] | None = None,
        exempt: Iterable[str] = (),
    ) -> None:
        """Wrap ``app``."""
        self.app = app
        self._logger = logger
        self._fields = fields
        self._exempt = frozenset(exempt)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope.get("path") in self._exempt:
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        given = self._fields(scope) if self._fields else {}
        self._in_flight += 1
        try:
            with self._logger.request(
                headers=headers,
                method=scope.get("method", ""),
                path=scope.get("path", ""),
                in_flight=self._in_flight,
                **given,
            ) as request:

                async def sending(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        request.set(status_code=message["status"])
                    elif message["type"] == "http.response.body" and message.get("more_body") and message.get("body"):
                        request.first_token()
                    await send(message)

                try:
                    await self.app(scope, receive, sending)
                finally:
                    route = getattr(scope.get("route"), "path", "")
                    if route and "route" not in given:
                        request.set(route=route)
        finally:
            self._in_flight -= 1
