"""A limit as a dependency: admitted, told, refused with headers, and released, by hand and in FastAPI itself."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from opsloop.clock import SeededIds
from opsloop.errors import StoreError
from opsloop.integrations.fastapi import body_estimate, rate_limit
from opsloop.rate_limit import Context, Limiter, MemoryStore, policy_from_settings
from opsloop.rate_limit.estimate import Estimator
from opsloop.settings import LimitSettings

LIMITS = [
    LimitSettings(id="daily", lever="quota", amount=100, per="day", unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=1),
]


@pytest.fixture
def limiter(clock):
    """A hundred tokens a day and one slot."""
    return Limiter(policy_from_settings(LIMITS), clock=clock, ids=SeededIds(1))


def asking(body=b"{}"):
    """A request with a tenant and a body."""

    async def receive():
        return {"type": "http.request", "body": body}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/chat",
        "headers": [(b"x-tenant", b"acme")],
        "query_string": b"",
    }
    return Request(scope, receive)


def tenant(request):
    """Who asks."""
    return Context(tenant=request.headers["x-tenant"], route=request.url.path)


def enter(dependency, request, response):
    """Run a dependency as a framework does."""
    return asynccontextmanager(dependency)(request, response)


def test_a_route_is_admitted_told_and_released(limiter):
    """The decision comes in, the headers go out, the slot comes back even when the route fails."""
    dependency = rate_limit(limiter, context=tenant, estimate=lambda _: {"tokens": 40})

    async def run():
        response = Response()
        async with enter(dependency, asking(), response) as decision:
            assert decision.limits["daily"].remaining == 60
            assert response.headers["ratelimit"].startswith('"daily";r=60;')
            with pytest.raises(HTTPException) as caught:
                async with enter(dependency, asking(), Response()):
                    pass
            assert (caught.value.status_code, caught.value.headers["retry-after"]) == (429, "30")
            assert caught.value.detail.startswith("slots for tenant acme: all 1 slots are held")
        with pytest.raises(ZeroDivisionError):
            async with enter(dependency, asking(), Response()):
                raise ZeroDivisionError

    asyncio.run(run())
    assert limiter.peek(Context(tenant="acme")).limits["slots"].remaining == 0
    assert limiter.peek(Context(tenant="acme")).allowed


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model": "gpt", "prompt": "abcdefgh", "max_tokens": 4000}', {"input_tokens": 2, "output_tokens": 12}),
        (b'{"model": "new", "prompt": "abcdefgh", "max_tokens": 4000}', {"input_tokens": 2, "output_tokens": 4000}),
        (b"[1]", {}),
        (b"{", {}),
        (b"\xff\xfe", {}),
    ],
)
def test_the_estimate_is_read_from_the_body_and_tightened_by_experience(body, expected):
    """What is no JSON object is not known, and no error."""
    estimator = Estimator(enough=1)
    estimator.observe(12, model="gpt", route="/chat")
    assert asyncio.run(body_estimate(estimator)(asking(body))) == expected


def test_a_store_that_fails_is_a_503(clock):
    """With a time to come back."""

    class Broken(MemoryStore):
        def admit(self, request):
            raise StoreError("away")

    limiter = Limiter(policy_from_settings(LIMITS), clock=clock, store=Broken(clock=clock))

    async def run():
        with pytest.raises(HTTPException) as caught:
            async with enter(rate_limit(limiter, context=tenant), asking(), Response()):
                pass
        assert (caught.value.status_code, caught.value.headers) == (503, {"retry-after": "1"})

    asyncio.run(run())


def test_fastapi_itself_takes_the_dependency(limiter):
    """A route of a real FastAPI application, with the body read twice: by the estimate and by the route."""
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    app = fastapi.FastAPI()
    limited = rate_limit(limiter, context=tenant, estimate=body_estimate(), dialects=("openai",))

    @app.post("/chat")
    async def chat(body: dict, decision=fastapi.Depends(limited)) -> dict:  # noqa: B008 - as FastAPI wants it
        return {"left": decision.limits["daily"].remaining, "asked": body["max_tokens"]}

    client = testclient.TestClient(app)
    answer = client.post("/chat", json={"max_tokens": 60}, headers={"x-tenant": "acme"})
    assert (answer.status_code, answer.json()) == (200, {"left": 40, "asked": 60})
    assert answer.headers["x-ratelimit-remaining-tokens"] == "40"
    refused = client.post("/chat", json={"max_tokens": 60}, headers={"x-tenant": "acme"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "54000")
    assert refused.json()["detail"].startswith("daily for tenant acme: 40 of 100 tokens per day left, 60 asked")
