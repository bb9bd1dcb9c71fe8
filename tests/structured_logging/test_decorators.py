"""Decorated functions: one span each, of whatever kind of function."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from opsloop.structured_logging import Logger
from opsloop.structured_logging.context import current


@pytest.fixture
def log(memory, clock, ids):
    """A logger into memory."""
    return Logger(memory, clock=clock, ids=ids)


def spans(memory):
    """Return what the steps said."""
    return [
        (e.event, e.tool, e.duration_us, e.time_to_first_token_us, e.output_tokens, e.error_type)
        for e in memory
        if e.event != "request"
    ]


def test_a_tool_is_a_step_with_its_duration_and_failure(log, memory, clock):
    """The function's name is the tool's unless another is given; the exception goes on; the result is unchanged."""

    @log.tool
    def search(query):
        """Search."""
        clock.advance(seconds=0.5)
        if not query:
            raise LookupError("nothing to search for")
        return [query]

    @log.tool(tool="calculator", version=2)
    async def add(a, b):
        return a + b

    with log.request():
        assert search("lamp") == ["lamp"]
        assert asyncio.run(add(1, 2)) == 3
        with pytest.raises(LookupError):
            search("")
    assert (search.__name__, search.__doc__) == ("search", "Search.")
    assert sorted(spans(memory)) == [
        ("tool", "calculator", 0, None, None, ""),
        ("tool", "search", 500_000, None, None, ""),
        ("tool", "search", 500_000, None, None, "LookupError"),
    ]


def test_a_model_call_is_measured_by_its_result(log, memory):
    """Tokens come from the result; a measure that fails costs nothing but the tokens."""
    answer = SimpleNamespace(usage=SimpleNamespace(output_tokens=7))
    call = log.model_call(model="m-1", measure=lambda a: {"output_tokens": a.usage.output_tokens})(lambda: answer)
    broken = log.model_call(measure=lambda a: {"output_tokens": a.nothing.here})(lambda: answer)
    with log.request():
        assert call() is answer
        assert broken() is answer
    assert [(e.model, e.output_tokens) for e in memory if e.event == "llm"] == [("m-1", 7), ("", None)]
    assert next(e.output_tokens for e in memory if e.event == "request") == 7


def test_a_stream_is_measured_to_its_first_token_and_its_end(log, memory, clock):
    """The span lasts until the last item, leaks nothing into its consumer, and ends when the consumer closes it."""

    @log.model_call(measure=lambda item: {"output_tokens": int(item)})
    def answer():
        clock.advance(seconds=0.2)
        for item in "123":
            yield item
            clock.advance(seconds=0.1)

    with log.request() as request:
        for _ in answer():
            assert current().fields["span_id"] == request.span_id
        stopped = answer()
        assert next(stopped) == "1"
        stopped.close()
    assert spans(memory) == [
        ("llm", "", 500_000, 200_000, 3, ""),
        ("llm", "", 200_000, 200_000, 1, "GeneratorExit"),
    ]
    assert [e.error for e in memory if e.event == "llm"] == [False, False]


def test_an_async_stream_is_measured_alike(log, memory, clock):
    """Async generators are steps too."""

    @log.model_call
    async def answer():
        await asyncio.sleep(0)
        clock.advance(seconds=0.2)
        yield "a"
        clock.advance(seconds=0.1)
        yield "b"

    async def main():
        return [item async for item in answer()]

    assert asyncio.run(main()) == ["a", "b"]
    assert spans(memory) == [("llm", "", 300_000, 200_000, None, "")]


def test_a_conversation_goes_both_ways(log, memory):
    """What the consumer sends and throws reaches the generator, and what the generator returns reaches the consumer."""

    @log.tool
    def search():
        told = yield "ready"
        try:
            yield f"told {told}"
        except KeyError as cause:
            yield f"caught {cause}"
        return "done"

    talk = search()
    assert [next(talk), talk.send("lamp"), talk.throw(KeyError("no"))] == ["ready", "told lamp", "caught 'no'"]
    with pytest.raises(StopIteration) as end:
        next(talk)
    assert end.value.value == "done"
    assert [(event.tool, event.error) for event in memory] == [("search", False)]


def test_an_async_conversation_goes_both_ways(log, memory):
    """An async generator hears what is sent and thrown; closing it early ends its step without a failure."""
    closed = []

    @log.tool
    async def search():
        try:
            told = yield "ready"
            try:
                yield f"told {told}"
            except KeyError as cause:
                yield f"caught {cause}"
            yield "more"
        finally:
            closed.append(True)

    async def main():
        talk = search()
        heard = [await anext(talk), await talk.asend("lamp"), await talk.athrow(KeyError("no"))]
        await talk.aclose()
        return heard

    assert asyncio.run(main()) == ["ready", "told lamp", "caught 'no'"]
    assert closed == [True]
    assert [(event.tool, event.error) for event in memory] == [("search", False)]


def test_what_nobody_catches_is_the_step_s_failure(log, memory):
    """An exception thrown into the generator that it does not handle is its step's error, and the consumer's."""

    @log.tool
    def search():
        yield 1

    talk = search()
    next(talk)
    with pytest.raises(KeyError):
        talk.throw(KeyError("no"))
    assert [(event.tool, event.error, event.error_type) for event in memory] == [("search", True, "KeyError")]
