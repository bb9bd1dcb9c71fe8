"""The host never pays: whatever it passes, and whatever its objects do, no call raises into it."""

from __future__ import annotations

import io

import pytest

from opsloop.clock import ManualClock
from opsloop.stream import MemoryStream
from opsloop.structured_logging import BufferedSink, JsonLinesSink, Logger

NOON = "2026-01-05T12:00:00Z"
NOON_NS = 1_767_614_400_000_000_000


class RefusalError(Exception):
    """A failure of the host's own kind."""


class Hostile:
    """An object that fails whatever it is asked, as an array does when it is asked whether it is true."""

    def __str__(self):
        raise RefusalError

    def __bool__(self):
        raise RefusalError

    def __eq__(self, other):
        raise RefusalError

    def __hash__(self):
        raise RefusalError

    def __iter__(self):
        raise RefusalError


def say_everything(log, odd):
    """Pass an odd value wherever a value can be passed."""
    names = ("tenant", "tool", "error", "status_code", "duration_us", "severity", "attributes", "note", "model")
    for name in names:
        log.info("said", **{name: odd})
        log.event("tool", **{name: odd})
        log.bind(**{name: odd}).warning("bound")
        with log.scope(**{name: odd}):
            log.error("scoped")
        with log.request(**{name: odd}) as request, log.step("llm", **{name: odd}) as step:
            step.set(**{name: odd}, input_tokens=odd, cost_microusd=odd)
            request.set(**{name: odd})
    log.info(odd)
    log.event(odd)
    log.event("tool", ts_ns=odd)
    with log.request(request_id=odd, headers={"traceparent": odd, "Baggage": odd}) as request:
        request.fail(odd, message=odd)
    with log.step(odd):
        pass
    log.tool(lambda: odd, measure=lambda _: odd)()


@pytest.mark.parametrize("odd", [Hostile(), [Hostile()], "\ud800", b"\xff", -1.5, 2**70, {Ellipsis: 1}, None, True, ""])
def test_nothing_that_is_passed_is_raised(odd):
    """At once, handed over, or plain: every call returns, and every event is there."""
    for kept in (MemoryStream(), JsonLinesSink(io.BytesIO())):
        log = Logger(kept, clock=ManualClock(NOON))
        say_everything(log, odd)
        assert (log.failed, log.last_error) == (0, "")
    with BufferedSink(MemoryStream()) as sink:
        say_everything(Logger(sink, clock=ManualClock(NOON)), odd)
    assert (sink.failed, sink.last_error) == (0, "")


@pytest.mark.parametrize("ts_ns", ["soon", -5, 2**70, 1.5, True])
def test_a_time_that_is_none_is_kept_beside(ts_ns, memory):
    """The event happens now, and what was passed for its time stands under attributes.rejected."""
    Logger(memory, clock=ManualClock(NOON)).event("deploy", ts_ns=ts_ns)
    ((event),) = memory
    assert (event.ts_ns, event.attributes) == (NOON_NS, {"rejected": {"ts_ns": ts_ns}})
