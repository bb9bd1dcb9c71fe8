"""Our limits in front of anything that speaks OpenAI's or Anthropic's HTTP: vLLM's server, a gateway, a proxy of yours.

::

    app = ModelGateway(
        proxy,
        Limiter(policy, sink=sink),
        context=lambda scope, body: Context(tenant=tenant_of(scope), model=str(body.get("model", ""))),
    )

Each call is estimated from its body, admitted on every limit or on none, and settled with the usage that its answer
tells. A stream is counted as it passes and never held back; one that the client leaves settles with what came through.
An answer that failed costs no tokens. Refusals are in the form that the provider's own SDKs understand and retry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from opsloop.errors import StoreError
from opsloop.rate_limit import Context, Decision, Limiter, limit_headers
from opsloop.rate_limit.answer import AnswerReader
from opsloop.rate_limit.asgi import App, Message, Receive, Scope, Send, encoded
from opsloop.rate_limit.estimate import Estimator, estimate_of
from opsloop.rate_limit.headers import Dialect
from opsloop.rate_limit.metered import Metered
from opsloop.rate_limit.waiting import Waiting

__all__ = ["PATHS", "ModelGateway"]

PATHS: Final[Mapping[str, Dialect]] = {
    "/v1/chat/completions": "openai",
    "/v1/completions": "openai",
    "/v1/responses": "openai",
    "/v1/embeddings": "openai",
    "/v1/messages": "anthropic",
}
"""The paths that cost something, with the dialect in which a refusal is told."""
MAX_BODY_BYTES: Final = 32 << 20
NOTHING_USED: Final = {"input_tokens": 0, "output_tokens": 0}


class ModelGateway:
    """ASGI middleware around ``app``; ``context(scope, body)`` says who asks, from what was authenticated.

    ``estimator`` learns how long answers are; ``count_tokens`` counts a text in place of 4 bytes per token. With
    ``wait_seconds`` a call waits up to so long, in a fair order over the tenants. Other paths pass untouched.
    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        context: Callable[[Scope, Mapping[str, Any]], Context],
        estimator: Estimator | None = None,
        count_tokens: Callable[[str], int] | None = None,
        paths: Mapping[str, Dialect] = PATHS,
        wait_seconds: float = 0.0,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Guard the calls of ``app`` with ``limiter``; a body over ``max_body_bytes`` is refused with 413."""
        self.app = app
        self.limiter = limiter
        self._context = context
        self._estimator = estimator or Estimator()
        self._count_tokens = count_tokens
        self._paths = dict(paths)
        self._waiting = Waiting(limiter)
        self._wait_seconds = wait_seconds
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        dialect = self._paths.get(scope.get("path", "")) if scope["type"] == "http" else None
        if dialect is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, whole = await _read(receive, self._max_body_bytes)
        if not whole:
            said = f"the body is over {self._max_body_bytes} bytes"
            await _answer(send, 413, _refusal(dialect, "request_too_large", said))
            return
        asked = _decoded(body)
        who = self._context(scope, asked)
        bound = estimate_of(asked, count_tokens=self._count_tokens)
        estimate = self._estimator.estimate(bound, model=who.model, route=who.route)
        try:
            decision = await self._waiting.admit_async(who, estimate, wait_seconds=self._wait_seconds)
        except StoreError as failed:
            await _answer(send, 503, _refusal(dialect, "overloaded_error", str(failed)), [("retry-after", "1")])
            return
        headers = limit_headers(decision, dialects=("ietf", dialect))
        if not decision.allowed:
            kind = "request_too_large" if decision.status_code == 413 else "rate_limit_error"
            await _answer(send, decision.status_code, _refusal(dialect, kind, decision.reason), headers)
            return
        await self._serve(scope, _again(body, receive), send, decision, headers)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, decision: Decision, headers: Iterable[tuple[str, str]]
    ) -> None:
        """Let the application answer, read along, and settle however it ends."""
        self.limiter.keep_alive(decision)
        answer = _Watched(send, headers)
        ended = False
        try:
            await self.app(scope, receive, answer.send)
            ended = answer.ended
        finally:
            self._settle(decision, answer, ended=ended)

    def _settle(self, decision: Decision, answer: _Watched, *, ended: bool) -> None:
        if not decision.reservation:
            return
        meter = Metered(self.limiter, decision, estimator=self._estimator)
        reader = answer.reader
        if answer.status >= 400:
            meter.tell(NOTHING_USED)
        elif reader is not None:
            meter.add(reader.written)
            meter.tell(reader.usage)
        succeeded = ended and answer.status < 400
        if succeeded and (reader is None or not (reader.usage or reader.written)):
            self.limiter.release(decision.reservation)  # a complete answer that tells nothing: its estimate stands
        else:
            meter.close(completed=succeeded)


class _Watched:
    """An application's answer as it passes: limit headers added, and its bytes read along."""

    def __init__(self, send: Send, headers: Iterable[tuple[str, str]]) -> None:
        self._send = send
        self._headers = encoded(headers)
        self.status = 200
        self.reader: AnswerReader | None = None
        self.ended = False

    async def send(self, message: Message) -> None:
        """Pass a message on, then read it: nobody waits for us."""
        if message["type"] == "http.response.start":
            given = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
            self.status = message["status"]
            kind = given.get(b"content-type", b"")
            stream = kind.startswith(b"text/event-stream")
            if b"content-encoding" not in given and (stream or b"json" in kind):
                self.reader = AnswerReader(stream=stream)
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        await self._send(message)
        if message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
            if self.reader is not None:
                self.reader.feed(message.get("body", b""))
                if self.ended:
                    self.reader.end()


async def _read(receive: Receive, most: int) -> tuple[bytes, bool]:
    """Return a request's body, and whether that is all of it."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most or message["type"] != "http.request":
            return b"", False
        if not message.get("more_body", False):
            return b"".join(parts), True


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body once more, and then what the server says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _decoded(body: bytes) -> dict[str, Any]:
    """Return a JSON object; anything else is the application's to refuse, and is estimated as nothing known."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(dialect: Dialect, kind: str, said: str) -> dict[str, Any]:
    """Return the body in which the provider would refuse."""
    if dialect == "anthropic":
        return {"type": "error", "error": {"type": kind, "message": said}}
    code = "rate_limit_exceeded" if kind == "rate_limit_error" else kind
    return {"error": {"message": said, "type": kind, "param": None, "code": code}}


async def _answer(send: Send, status: int, body: dict[str, Any], headers: Iterable[tuple[str, str]] = ()) -> None:
    payload = msgspec.json.encode(body)
    plain = (("content-type", "application/json"), ("content-length", str(len(payload))), *headers)
    await send({"type": "http.response.start", "status": status, "headers": encoded(plain)})
    await send({"type": "http.response.body", "body": payload})
