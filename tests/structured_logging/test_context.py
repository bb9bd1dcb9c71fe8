"""The context: where it goes by itself, where it is carried, and where it must not leak."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from opsloop.structured_logging import Logger, incoming, isolated, outgoing, wrap
from opsloop.structured_logging.context import current
from opsloop.structured_logging.propagation import TraceParent, format_traceparent, parse_traceparent


@pytest.fixture
def log(memory, clock, ids):
    """A logger into memory."""
    return Logger(memory, clock=clock, ids=ids)


def bound():
    """Return the request id that a log call would carry here."""
    return current().fields.get("request_id")


def test_tasks_keep_their_requests_apart(log, memory):
    """Requests that take turns in one thread never see each other's id."""

    async def serve(name, gate):
        with log.request(request_id=name):
            await gate.wait()
            log.info(name)

    async def main():
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name in ("req-1", "req-2", "req-3"):
                group.create_task(serve(name, gate))
            await asyncio.sleep(0)
            gate.set()
        return bound()

    assert asyncio.run(main()) is None
    lines = [event for event in memory if event.event == "log"]
    assert [event.request_id for event in lines] == [event.message for event in lines]
    assert len(lines) == 3


def test_a_thread_is_given_the_context(log, memory):
    """A bare thread or executor starts without one; wrap() carries it, many times and at once, sums included."""
    with log.request(request_id="req-1"), ThreadPoolExecutor(4) as pool:
        assert pool.submit(bound).result() is None
        call = wrap(lambda _: log.event("llm", input_tokens=1))
        list(pool.map(call, range(40)))
        seen = []
        thread = threading.Thread(target=wrap(lambda: seen.append(bound())))
        thread.start()
        thread.join()
        assert pool.submit(bound).result() is None
    assert seen == ["req-1"]
    assert [event.request_id for event in memory if event.event == "llm"] == ["req-1"] * 40
    assert next(event.input_tokens for event in memory if event.event == "request") == 40


def test_a_coroutine_function_stays_one_when_wrapped(log):
    """wrap() of an async function carries the context into whichever task awaits it."""

    async def ask():
        await asyncio.sleep(0)
        return bound()

    with log.request(request_id="req-1"):
        wrapped = wrap(ask)
    assert asyncio.iscoroutinefunction(wrapped)
    assert asyncio.run(wrapped()) == "req-1"


def test_a_streamed_answer_does_not_leak_into_its_consumer(log, memory):
    """A request in an async generator is not the consumer's, and still holds for all of the generator."""

    async def leaky():
        with log.request(request_id="req-1"):
            yield bound()
            yield bound()

    async def read(stream):
        return [(chunk, bound()) async for chunk in stream]

    assert asyncio.run(read(leaky())) == [("req-1", "req-1")] * 2  # Python's own behaviour
    assert asyncio.run(read(isolated(leaky)())) == [("req-1", None)] * 2
    assert [event.event for event in memory] == ["request", "request"]


def test_a_consumer_that_stops_early_ends_the_request(log, memory):
    """Closing an isolated stream closes the request in its own context: a 499 that is no error."""

    @isolated
    async def answer():
        with log.request(request_id="req-1"):
            yield 1
            yield 2

    async def main():
        stream = answer()
        await anext(stream)
        await asyncio.create_task(stream.aclose())
        return bound()

    assert asyncio.run(main()) is None
    assert [(e.request_id, e.status_code, e.error, e.error_type) for e in memory] == [
        ("req-1", 499, False, "GeneratorExit")
    ]


def test_a_generator_closed_elsewhere_still_writes_its_line(log, memory):
    """A plain generator that another task closes cannot reset its context there, and must not fail for it."""

    async def answer():
        with log.request(request_id="req-1"):
            yield 1

    async def main():
        stream = answer()
        await asyncio.create_task(first(stream))
        await stream.aclose()

    async def first(stream):
        return await anext(stream)

    asyncio.run(main())
    assert [event.status_code for event in memory] == [499]


def test_isolated_wants_a_generator():
    """Anything else is refused where it is decorated."""
    with pytest.raises(TypeError, match="is no generator function"):
        isolated(bound)


def test_a_request_goes_on_in_another_process(log, memory):
    """The next process has the same request and trace, under the caller's span."""
    with log.request(request_id="req-1,a=b;c/%") as first:
        headers = outgoing()
    with log.request(headers={"Traceparent": headers["traceparent"], "BAGGAGE": headers["baggage"]}) as second:
        pass
    assert (second.request_id, second.trace_id) == (first.request_id, first.trace_id)
    assert [event.parent_span_id for event in memory] == ["", first.span_id]
    assert outgoing() == {}


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", TraceParent("a" * 32, "b" * 16, sampled=True)),
        (f"00-{'a' * 32}-{'b' * 16}-00", TraceParent("a" * 32, "b" * 16, sampled=False)),
        (f"cc-{'a' * 32}-{'b' * 16}-01-more", TraceParent("a" * 32, "b" * 16, sampled=True)),
        (f"00-{'a' * 32}-{'b' * 16}-01-more", None),
        (f"ff-{'a' * 32}-{'b' * 16}-01", None),
        (f"00-{'A' * 32}-{'b' * 16}-01", None),
        (f"00-{'0' * 32}-{'b' * 16}-01", None),
        (f"00-{'a' * 32}-{'0' * 16}-01", None),
        (f"00-{'a' * 31}-{'b' * 16}-01", None),
        ("", None),
    ],
)
def test_traceparent_follows_the_recommendation(header, parent):
    """Versions, flags, case, zeros and lengths are read as W3C Trace Context says; what is malformed is ignored."""
    assert parse_traceparent(header) == parent
    if parent and header.startswith("00"):
        assert format_traceparent(parent) == header


@pytest.mark.parametrize("value", ["%0d%0aSet-Cookie", "a b", "x" * 129, "", "%FF%FE"])
def test_a_request_id_from_outside_must_look_like_one(value):
    """Control signs, blanks and endless ids in baggage are ignored."""
    assert incoming({"baggage": f"request_id={value}"}).request_id == ""
