"""The middleware is the one choke point, and releases whatever happens behind it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from opsloop.clock import SeededIds
from opsloop.errors import StoreError
from opsloop.rate_limit import Context, Limiter, MemoryStore, RateLimitMiddleware, policy_from_settings
from opsloop.rate_limit.asgi import DECISION_KEY
from opsloop.settings import LimitSettings

LIMITS = (
    LimitSettings(id="rpm", lever="rate", amount=60, burst=3),
    LimitSettings(id="tokens", lever="quota", amount=1000, per="day", unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=2),
)


def who(scope):
    """The tenant of a scope."""
    return Context(tenant=dict(scope["headers"]).get(b"x-tenant", b"").decode(), route=scope["path"])


def serve(app, path="/chat", kind="http"):
    """Send one request and return the messages that came back."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    asyncio.run(app({"type": kind, "path": path, "headers": [(b"x-tenant", b"acme")]}, receive, send))
    return sent


@pytest.fixture
def limiter(clock):
    """A rate, a quota and slots."""
    return Limiter(policy_from_settings(LIMITS), clock=clock, ids=SeededIds(1))


def answer(limiter, *, fail=False):
    """An application that settles ten tokens, or fails."""

    async def app(scope, _, send):
        if fail:
            raise RuntimeError("broken")
        if DECISION_KEY in scope:
            limiter.settle(scope[DECISION_KEY].reservation, {"tokens": 10})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
        await send({"type": "http.response.body", "body": b"ok"})

    return RateLimitMiddleware(
        app, limiter, context=who, estimate=lambda _: {"tokens": 100}, dialects=["ietf", "openai"], exempt=["/health"]
    )


def test_an_admitted_request_is_served_with_its_limits(limiter):
    """The response carries the application's headers and the limits', and the slot is free afterwards."""
    start, body = serve(answer(limiter))
    assert (start["status"], body["body"]) == (200, b"ok")
    headers = dict(start["headers"])
    assert headers[b"x-app"] == b"1"
    assert headers[b"ratelimit"] == b'"rpm";r=2;t=1, "tokens";r=900;t=54000, "slots";r=1;t=30'
    assert headers[b"x-ratelimit-remaining-tokens"] == b"900"
    after = limiter.peek(who({"headers": [(b"x-tenant", b"acme")], "path": "/"}), {"tokens": 10**9}).limits
    assert (after["slots"].remaining, after["tokens"].remaining) == (2, 990)


def test_a_refused_request_never_reaches_the_application(limiter):
    """The fourth of a burst of three gets a 429 with Retry-After and problem details."""
    app = answer(limiter)
    for _ in range(3):
        serve(app)
    start, body = serve(app)
    headers = dict(start["headers"])
    assert (start["status"], headers[b"retry-after"]) == (429, b"1")
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert msgspec.json.decode(body["body"])["violated-policies"] == ["rpm"]


def test_an_application_that_fails_keeps_no_slot(limiter):
    """Its error comes through, and its slots come back."""
    app = answer(limiter, fail=True)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            serve(app)
    assert not limiter._store._leases[("slots", "acme")]


def test_a_cancelled_connection_keeps_no_slot(limiter):
    """The client goes away in the middle of a stream."""

    async def main():
        streaming = asyncio.Event()

        async def forever(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200})
            streaming.set()
            await asyncio.Event().wait()

        async def ignore(_):
            await asyncio.sleep(0)

        app = RateLimitMiddleware(forever, limiter, context=who)
        task = asyncio.create_task(app({"type": "http", "path": "/", "headers": []}, ignore, ignore))
        await streaming.wait()
        assert limiter._store._leases[("slots", "")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert not limiter._store._leases[("slots", "")]


def test_every_route_passes_and_only_the_exempt_do_not(limiter):
    """Unknown paths and WebSockets are counted; a health check and the lifespan are not."""
    app = answer(limiter)
    for _ in range(9):
        assert serve(app, "/health")[0]["status"] == 200
    serve(app, "/no/such/route")
    serve(app, kind="lifespan")
    serve(app, "/ws", kind="websocket")
    serve(app, "/chat")
    assert serve(app, "/ws", kind="websocket") == [
        {"type": "websocket.close", "code": 1013, "reason": "A limit is exceeded"}
    ]


class Unreachable(MemoryStore):
    """A store that is down."""

    def admit(self, request):
        """Fail as a store does."""
        raise StoreError("the limits cannot be reached", fix="look at the store")


def test_a_store_that_is_down_is_a_503_and_not_the_callers_fault(clock):
    """Closed, with Retry-After, and never a 429."""
    limiter = Limiter(policy_from_settings(LIMITS), store=Unreachable(clock=clock), clock=clock)
    start, body = serve(answer(limiter))
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    assert msgspec.json.decode(body["body"])["detail"] == "the limits cannot be reached; look at the store"
