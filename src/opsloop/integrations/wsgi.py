"""One canonical event per request of any WSGI application (Flask, Django, Pyramid)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opsloop.structured_logging import Logger, isolated

__all__ = ["EventMiddleware"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class EventMiddleware:
    """Opens a request scope around each request, until its answer's last byte or its close.

    The caller's ``traceparent`` and ``baggage`` are continued. ``fields(environ)`` adds more, such as the tenant and
    the route's template; paths in ``exempt`` are let through unseen.
    """

    def __init__(
        self,
        app: App,
        logger: Logger,
        *,
        fields: Callable[[Environ], dict[str, Any]] | None = None,
        exempt: Iterable[str] = (),
    ) -> None:
        """Wrap ``app``."""
        self.app = app
        self._logger = logger
        self._fields = fields
        self._exempt = frozenset(exempt)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if environ.get("PATH_INFO") in self._exempt:
            return self.app(environ, start_response)
        return self._serve(environ, start_response)

    @isolated
    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        headers = {
            name.removeprefix("HTTP_").lower(): value for name, value in environ.items() if name.startswith("HTTP_")
        }
        given = self._fields(environ) if self._fields else {}
        method, path = environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", "")
        with self._logger.request(headers=headers, method=method, path=path, **given) as request:

            def starting(status: str, headers: Any, *exc_info: Any) -> Any:
                code = status.partition(" ")[0]
                if code.isdecimal():
                    request.set(status_code=int(code))
                return start_response(status, headers, *exc_info)

            answer = self.app(environ, starting)
            try:
                yield from answer
            finally:
                close = getattr(answer, "close", None)
                if close is not None:
                    close()
