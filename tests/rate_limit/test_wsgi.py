"""A WSGI application behind the limiter: told, refused, streamed, and never left holding a slot."""

from __future__ import annotations

import json
from wsgiref.util import setup_testing_defaults

import pytest

from opsloop.clock import SeededIds
from opsloop.errors import StoreError
from opsloop.rate_limit import Context, Limiter, MemoryStore, policy_from_settings
from opsloop.rate_limit.wsgi import ENVIRON_KEY, WsgiRateLimitMiddleware
from opsloop.settings import LimitSettings

LIMITS = [
    LimitSettings(id="rpm", lever="rate", amount=60, burst=3),
    LimitSettings(id="slots", lever="concurrency", amount=1),
]


@pytest.fixture
def limiter(clock):
    """Three requests at once in a minute's bucket, one slot."""
    return Limiter(policy_from_settings(LIMITS), clock=clock, ids=SeededIds(1))


def guard(app, limiter, **options):
    """The application behind the limiter, by the tenant in a header."""
    return WsgiRateLimitMiddleware(
        app, limiter, context=lambda environ: Context(tenant=environ.get("HTTP_X_TENANT", "")), **options
    )


def serve(app, *, path="/chat", read=True):
    """Call an application as a server does; return (status, headers, body)."""
    environ, told = {"PATH_INFO": path, "HTTP_X_TENANT": "acme"}, {}
    setup_testing_defaults(environ)

    def start_response(status, headers, exc_info=None):
        told["status"], told["headers"] = status, dict(headers)

    parts = app(environ, start_response)
    try:
        body = b"".join(parts) if read else b""
    finally:
        close = getattr(parts, "close", None)
        if close:
            close()
    return told["status"], told["headers"], body


def hello(environ, start_response):
    """Answer with what the decision left."""
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(environ[ENVIRON_KEY].limits["rpm"].remaining).encode()]


def held(limiter):
    """How many slots are held."""
    return len(limiter._store) - len(limiter._store._counts)


def test_an_admitted_request_is_told_its_limits_and_a_refused_one_never_reaches_the_application(limiter):
    """Headers on both, problem details and Retry-After on the refusal."""
    app = guard(hello, limiter)
    status, headers, body = serve(app)
    assert (status, body) == ("200 OK", b"2")
    assert headers["ratelimit"] == '"rpm";r=2;t=1, "slots";r=0;t=30'
    serve(app)
    serve(app)
    status, headers, body = serve(app)
    assert (status, headers["retry-after"]) == ("429 Too Many Requests", "1")
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["violated-policies"] == ["rpm"]


def test_a_streamed_answer_holds_its_slot_until_it_is_closed(limiter):
    """Whether it is read to its end, left, or broken in between."""
    inside = []

    def stream(environ, start_response):
        start_response("200 OK", [])
        inside.append(limiter.peek(Context(tenant="acme")).allowed)
        yield b"a"
        inside.append(limiter.peek(Context(tenant="acme")).allowed)
        yield b"b"

    assert serve(guard(stream, limiter))[2] == b"ab"
    assert inside == [False, False]
    assert limiter.peek(Context(tenant="acme")).allowed
    parts = guard(stream, limiter)({"PATH_INFO": "/", "HTTP_X_TENANT": "acme"}, lambda *_: None)
    assert next(iter(parts)) == b"a"
    parts.close()
    assert limiter.peek(Context(tenant="acme")).allowed
    assert len(limiter.heartbeat) == 0


def test_an_application_that_fails_keeps_no_slot(limiter):
    """Its error comes through."""

    def broken(environ, start_response):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        serve(guard(broken, limiter))
    assert limiter.peek(Context(tenant="acme")).allowed


def test_an_exempt_path_is_not_counted_and_an_error_response_is_told_too(limiter):
    """Health checks pass; start_response with exc_info is handed on."""

    def failing(environ, start_response):
        start_response("500 Internal Server Error", [], (ValueError, ValueError("x"), None))
        return [b"no"]

    def healthy(environ, start_response):
        start_response("204 No Content", [])
        return [b""]

    assert serve(guard(healthy, limiter, exempt=["/health"]), path="/health")[:2] == ("204 No Content", {})
    status, headers, _ = serve(guard(failing, limiter))
    assert (status, headers["ratelimit-policy"].startswith('"rpm"')) == ("500 Internal Server Error", True)


def test_a_store_that_fails_is_a_503(clock):
    """The application is not asked."""

    class Broken(MemoryStore):
        def admit(self, request):
            raise StoreError("the store is away", fix="try again")

    limiter = Limiter(policy_from_settings(LIMITS), clock=clock, store=Broken(clock=clock))
    status, headers, body = serve(guard(hello, limiter))
    assert (status, headers["retry-after"]) == ("503 Service Unavailable", "1")
    assert json.loads(body)["detail"] == "the store is away; try again"


def test_with_wait_seconds_a_worker_waits(clock):
    """The bucket refills in real milliseconds, and nobody is refused."""
    fast = LimitSettings(id="rpm", lever="rate", amount=1000, per="second", burst=1)
    app = guard(hello, Limiter(policy_from_settings([fast])), wait_seconds=5)
    assert [serve(app)[0] for _ in range(4)] == ["200 OK"] * 4
