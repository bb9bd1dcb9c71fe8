"""The two middlewares: one canonical event per request, with the caller's ids, the status and the failure."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from opsloop.integrations import asgi, wsgi
from opsloop.structured_logging import Logger
from opsloop.structured_logging.context import current

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "baggage": "request_id=req-7"}


@pytest.fixture
def log(memory, clock, ids):
    """A logger into memory."""
    return Logger(memory, clock=clock, ids=ids)


def ask(app, path):
    """Send one GET to an ASGI application; return the status and the body."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}
    scope |= {"asgi": {"spec_version": "2.4"}}
    with suppress(LookupError):  # as a server would
        asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def lines(memory):
    """Return the canonical events, shortened."""
    return [
        (e.request_id, e.trace_id, e.parent_span_id, e.status_code, e.error, e.error_type, e.attributes["path"])
        for e in memory
        if e.event == "request"
    ]


def test_asgi_requests_end_in_one_line_each(log, memory, clock):
    """Answers, errors, streams and exempt paths of a Starlette application; what is logged inside shares the id."""

    async def hello(request):
        log.info("inside")
        return PlainTextResponse("hello")

    async def broken(request):
        raise LookupError("no")

    async def streamed(request):
        async def body():
            clock.advance(seconds=0.25)
            yield b"a"
            clock.advance(seconds=0.25)
            yield b"b"

        return StreamingResponse(body(), status_code=202)

    routes = [Route("/hello", hello), Route("/broken", broken), Route("/streamed", streamed), Route("/health", hello)]
    app = asgi.EventMiddleware(Starlette(routes=routes), log, exempt=["/health"], fields=lambda s: {"tenant": "acme"})
    assert ask(app, "/hello") == (200, b"hello")
    assert ask(app, "/broken") == (500, b"Internal Server Error")
    assert ask(app, "/streamed") == (202, b"ab")
    assert ask(app, "/nowhere") == (404, b"Not Found")
    assert ask(app, "/health") == (200, b"hello")
    shared = ("req-7", TRACE, "00f067aa0ba902b7")
    assert sorted(lines(memory), key=lambda line: line[-1]) == [
        (*shared, 500, True, "LookupError", "/broken"),
        (*shared, 200, False, "", "/hello"),
        (*shared, 404, False, "", "/nowhere"),
        (*shared, 202, False, "", "/streamed"),
    ]
    streamed_line = next(e for e in memory if e.status_code == 202)
    assert (streamed_line.time_to_first_token_us, streamed_line.duration_us) == (250_000, 500_000)
    inside = next(e for e in memory if e.message == "inside" and e.request_id == "req-7")
    assert (inside.trace_id, inside.tenant) == (TRACE, "acme")


def test_asgi_counts_what_runs_at_the_same_time(log, memory):
    """in_flight is how many requests were running when one began, itself included."""

    async def main():
        gate = asyncio.Event()

        async def app(scope, receive, send):
            await gate.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})

        middleware = asgi.EventMiddleware(app, log)

        async def send(message):
            assert message["type"] == "http.response.start"

        tasks = [asyncio.create_task(middleware({"type": "http", "path": "/"}, None, send)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert sorted(e.attributes["in_flight"] for e in memory) == [1, 2, 3]


def test_wsgi_requests_end_with_their_last_byte(log, memory):
    """The scope is open while the answer is produced, closed with it, and never leaks into the server's thread."""
    closed = []

    class Answer(list):
        def close(self):
            closed.append(True)

    def app(environ, start_response):
        log.info("inside")
        start_response("503 Service Unavailable", [])
        if environ["PATH_INFO"] == "/broken":
            raise LookupError("no")
        return Answer([b"a", b"b"])

    middleware = wsgi.EventMiddleware(app, log, exempt=["/health"])
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}
    environ |= {"HTTP_TRACEPARENT": HEADERS["traceparent"], "HTTP_BAGGAGE": HEADERS["baggage"]}
    answer = middleware(environ, lambda status, headers, *rest: None)
    assert next(iter(answer)) == b"a"
    assert "request_id" not in current().fields
    assert list(answer) == [b"b"]
    with pytest.raises(LookupError):
        list(middleware(environ | {"PATH_INFO": "/broken"}, lambda *_: None))
    assert list(middleware(environ | {"PATH_INFO": "/health"}, lambda *_: None)) == [b"a", b"b"]
    shared = ("req-7", TRACE, "00f067aa0ba902b7")
    assert lines(memory) == [
        (*shared, 503, True, "503", "/x"),
        (*shared, 503, True, "LookupError", "/broken"),
    ]
    assert closed == [True]
    assert [e.request_id for e in memory if e.message == "inside"] == ["req-7", "req-7", ""]
