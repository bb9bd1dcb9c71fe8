"""A limit as a dependency of a FastAPI route (or of any Starlette handler).

::

    limited = rate_limit(limiter, context=lambda request: Context(tenant=request.headers["x-tenant"]))


    @app.post("/chat")
    async def chat(question: Question, decision: Annotated[Decision, Depends(limited)]): ...

A refusal is an ``HTTPException`` with the status, the reason and the limit headers. The slot is given back when the
route has answered. A streamed answer outlives that in some versions of FastAPI: guard those with
:class:`opsloop.rate_limit.RateLimitMiddleware`, which holds the slot until the last byte is sent.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from opsloop.errors import StoreError
from opsloop.rate_limit import Amounts, Context, Limiter, RateLimitedError, limit_headers
from opsloop.rate_limit.estimate import Estimator, estimate_of
from opsloop.rate_limit.headers import Dialect
from opsloop.rate_limit.waiting import Waiting

__all__ = ["body_estimate", "rate_limit"]


def rate_limit(
    limiter: Limiter,
    *,
    context: Callable[[Any], Context],
    estimate: Callable[[Any], Amounts | Awaitable[Amounts]] | None = None,
    dialects: Iterable[Dialect] = ("ietf",),
    wait_seconds: float = 0.0,
) -> Callable[..., AsyncIterator[Any]]:
    """Return a dependency that admits the request, yields its decision, and releases.

    ``context(request)`` says who asks, from what the application has authenticated; ``estimate(request)`` for how much,
    at once or awaited. Raises ``starlette.exceptions.HTTPException`` for a refusal, 503 when the limits' store fails.
    Needs Starlette, which FastAPI brings.
    """
    from starlette.exceptions import HTTPException  # noqa: PLC0415 - an extra: only who calls this needs it
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415

    kinds = tuple(dialects)
    waiting = Waiting(limiter)

    async def limited(request: Request, response: Response) -> AsyncIterator[Any]:
        asked = estimate(request) if estimate else None
        amounts = await asked if inspect.isawaitable(asked) else asked
        slot = waiting.slot(context(request), amounts, wait_seconds=wait_seconds)
        try:
            decision = await slot.__aenter__()
        except RateLimitedError as refused:
            told = dict(limit_headers(refused.decision, dialects=kinds))
            raise HTTPException(refused.decision.status_code, refused.decision.reason, told) from refused
        except StoreError as failed:
            raise HTTPException(503, str(failed), {"retry-after": "1"}) from failed
        try:
            response.headers.update(dict(limit_headers(decision, dialects=kinds)))
            yield decision
        finally:
            await slot.__aexit__(None, None, None)

    # Frameworks look the types of parameters up, and these are known here only.
    limited.__annotations__ = {"request": Request, "response": Response}
    return limited


def body_estimate(
    estimator: Estimator | None = None, *, count_tokens: Callable[[str], int] | None = None
) -> Callable[[Any], Awaitable[Amounts]]:
    """Return an ``estimate`` that reads an OpenAI or Anthropic body, tightened by what ``estimator`` has learned.

    A body that is no JSON object is estimated as nothing known: it costs one of each unit.
    """

    async def estimated(request: Any) -> Amounts:
        try:
            body = await request.json()
        except ValueError:  # no JSON, or no UTF-8
            return {}
        if not isinstance(body, dict):
            return {}
        found = estimate_of(body, count_tokens=count_tokens)
        if estimator is None:
            return found
        return estimator.estimate(found, model=str(body.get("model", "")), route=request.url.path)

    return estimated
