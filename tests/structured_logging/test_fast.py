"""The two fast ways of a log call: each gives the event that the plain way gives, and the host pays little for it."""

from __future__ import annotations

import io
import threading
from collections import Counter
from contextvars import copy_context
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from opsloop.clock import ManualClock, SeededIds
from opsloop.errors import ConfigError
from opsloop.event import FIELDS, Event, decode_event
from opsloop.stream import MemoryStream
from opsloop.structured_logging import BufferedSink, JsonLinesSink, Logger, Sampling
from opsloop.structured_logging.context import CURRENT, Context, current, use
from opsloop.structured_logging.handover import Handover
from opsloop.structured_logging.record import make_event
from opsloop.structured_logging.redact import is_clean, redact
from opsloop.structured_logging.sinks import flat_line

names = st.sampled_from(
    ["words", "tool", "tenant", "duration_us", "error", "status_code", "request_id", "level", "msg", "ts", "rejected",
     "severity", "attributes", "password", "Api_Key", "event_id", "span_id", "note", "ts_ns", "event", "message",
     "http.method", 'a"b', "order_id", "f0"]
)  # fmt: skip


class Tool(str, Enum):  # noqa: UP042 - a StrEnum's text is its value
    """A text with another text."""

    SEARCH = "search"


class Level(IntEnum):
    """A number with a name."""

    LOW = 7


class Loud(str):
    """A text that says something else of itself."""

    __slots__ = ()

    def __str__(self):
        return "loud"


texts = st.text(max_size=6) | st.sampled_from(["ann@example.org", "bearer abcdefghijk", "x", "AKIAABCDEFGHIJKLMNOP"])
numbers = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats()
odd = st.sampled_from([Tool.SEARCH, Level.LOW, Loud("quiet"), object, UUID(int=5), Decimal("1.5"), b"raw", (1, "x")])
scalars = numbers | texts | st.text(st.characters(codec=None)) | odd
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(texts | names, scalars, max_size=2)
fields = st.dictionaries(names, values, max_size=4)


class Kept(list):
    """A sink that keeps everything in the order of arrival, repeated ids too."""

    def append(self, events):
        """Keep."""
        self.extend(events)
        return 0


kinds = st.sampled_from(["gauge", "tool", "llm", "request", Tool.SEARCH, Loud("tool"), "", 7, None])


class Told(list):
    """An open scope that keeps what it is told."""

    def observe(self, seen, *, counted):
        """Keep."""
        self.append((seen, counted))


def story(log, bound, contexts, message, calls, kind):
    """Write what a program writes: again and again at one place, in one context and another; return what it told."""
    told = Told()
    bound_log = log.bind(**bound)
    for scoped in contexts:
        with log.scope(**scoped):
            for given in calls:
                bound_log.info(message, **given)
            bound_log.error(message, **calls[0])
            bound_log.info("plain", count=1, tool="search")
            bound_log.debug("below the level")
            for scope in (None, told):
                with use(structs.replace(current(), scope=scope)):
                    bound_log.event(kind, **calls[-1])
                    bound_log.event(kind, count=1)
                    bound_log.event(kind, ts_ns=None)
                    bound_log.event(kind, ts_ns=5, input_tokens=7)
    return told


@settings(max_examples=60)
@given(
    bound=fields,
    contexts=st.lists(fields, min_size=1, max_size=2),
    message=texts | scalars,
    calls=st.lists(fields, min_size=1, max_size=3),
    kind=kinds,
    secret=st.booleans(),
)
@example(
    bound={}, contexts=[{}], message="m", calls=[{"words": 1}, {"words": Decimal("1.50")}], kind="gauge", secret=True
)
def test_every_way_gives_the_same_events(bound, contexts, message, calls, kind, secret):
    """Whatever is bound and passed: at once, handed over, and plain, redacted or not, the events are equal.

    So is what the open scope is told of them.
    """
    options = {"clock": ManualClock("2026-01-05T09:00:00Z"), "service": "bot", "redact": secret}
    out, plain, behind = io.BytesIO(), Kept(), Kept()
    said = (bound, contexts * 2, message, calls, kind)
    told = story(Logger(plain, ids=SeededIds(1), **options), *said)
    told_at_once = story(Logger(JsonLinesSink(out), ids=SeededIds(1), **options), *said)
    with BufferedSink(behind) as sink:
        told_over = story(Logger(sink, ids=SeededIds(1), **options), *said)
    assert [decode_event(line) for line in out.getvalue().splitlines()] == plain
    assert behind == plain
    assert told_at_once == told_over == told


@given(bound=fields, said=fields)
def test_every_way_ends_a_scope_with_the_same_event(bound, said):
    """Whatever a request and a step are given, their events are equal: plain, at once, and handed over."""
    options = {"clock": ManualClock("2026-01-05T09:00:00Z")}
    out, plain, behind = io.BytesIO(), Kept(), Kept()
    with BufferedSink(behind) as sink:
        for kept in (plain, JsonLinesSink(out), sink):
            log = Logger(kept, ids=SeededIds(1), **options).bind(**bound)
            with log.request(**said), log.step("tool", **said):
                pass
    assert lines(out) == plain
    assert behind == plain


attributes = st.dictionaries(st.sampled_from([*FIELDS, "level", "msg", "time", "a", "b"]), st.integers(), max_size=4)


@given(attributes=attributes)
def test_a_flat_line_reads_back_as_its_event(attributes):
    """Attributes stand beside the columns, and below attributes where their name is one of a column's."""
    event = Event(ts_ns=5, event="log", message="m", attributes=attributes)
    assert decode_event(flat_line(event)) == event


@given(value=values | st.lists(st.dictionaries(names, values, max_size=2), max_size=2))
def test_what_is_clean_is_left_as_it_is(value):
    """The quick look may ask for a closer one, and never lets pass what redaction would change."""
    event = make_event(0, "log", {"note": value})
    if is_clean(value):
        assert redact(event) is event


def lines(out):
    """Read back what was written."""
    return [decode_event(line) for line in out.getvalue().splitlines()]


def test_lines_at_once_keep_contexts_apart():
    """One place in the program, called in two requests by turns and by threads: each line has its own request's id."""
    out = io.BytesIO()
    log = Logger(JsonLinesSink(out, flush=False)).bind(component="search")
    requests = [copy_context() for _ in range(4)]
    for number, context in enumerate(requests):
        context.run(CURRENT.set, Context().extended(request_id=f"req-{number}"))
    for _ in range(3):
        for number, context in enumerate(requests):
            context.run(log.info, "found", number=number)
    work = [
        threading.Thread(target=context.run, args=(lambda n=n: [log.info("found", number=n) for _ in range(300)],))
        for n, context in enumerate(requests)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    found = lines(out)
    assert len(found) == 4 * 303
    assert {(event.request_id, event.attributes["number"]) for event in found} == {(f"req-{n}", n) for n in range(4)}


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, data):
        """Refuse."""
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_is_counted_once():
    """Each refusal counts one, the reason is kept, and nothing reaches the host."""
    log = Logger(JsonLinesSink(Full(), flush=False))
    for number in range(3):
        log.info("found", number=number)
    log.info("found", number=object)
    assert (log.failed, log.last_error) == (4, "OSError: [Errno 28] No space left on device")


def test_lines_at_once_are_thinned_and_carry_their_probability(clock):
    """A sampled kind takes the plain way, so each line that is kept tells its probability."""
    out = io.BytesIO()
    log = Logger(JsonLinesSink(out), clock=clock, sample=0.5)
    for number in range(200):
        log.info("found", number=number)
        log.error("failed", number=number)
    kept = Counter((event.message, event.attributes["sample_probability"]) for event in lines(out))
    assert kept["failed", 1.0] == 200
    assert 70 < kept["found", 0.5] < 130
    assert len(kept) == 2


def test_a_place_that_says_ever_more_is_followed():
    """Fields that come and go, numbers that become texts, more names than a shape takes: each line is whole."""
    out = io.BytesIO()
    log = Logger(JsonLinesSink(out))
    calls = [{"score": 0.5}, {"score": 1, "reason": None}, {"reason": "late"}, {"score": "none"}, {}]
    calls += [{f"name{number}": number, f"name{number + 1}": "ann@example.org"} for number in range(80)]
    for call in calls:
        log.info("scored", **call)
    cleaned = [
        {name: "[EMAIL_1]" if value == "ann@example.org" else value for name, value in call.items()} for call in calls
    ]
    assert [event.attributes for event in lines(out)] == cleaned


def test_a_handed_over_event_is_a_copy():
    """What the caller changes before the writer comes to it does not reach the event."""
    gate, stream = threading.Event(), MemoryStream()

    class Gated:
        def append(self, events):
            assert gate.wait(20)
            return stream.append(events)

    sink = BufferedSink(Gated(), batch=1)
    log = Logger(sink)
    messages = [{"role": "user"}]
    for number in range(3):
        log.info("call", number=number, messages=messages, cause=ValueError("no"))
    messages.append({"role": "assistant"})
    gate.set()
    sink.close(20)
    assert [e.attributes for e in stream] == [
        {"number": number, "messages": [{"role": "user"}], "cause": "no"} for number in range(3)
    ]


def test_totals_and_ids_are_complete_when_handed_over(clock):
    """The canonical line has the sums of what was only handed over, and every event the request's id."""
    stream = MemoryStream()
    with BufferedSink(stream) as sink:
        log = Logger(sink, clock=clock)
        with log.request(request_id="req-1") as request:
            log.event("llm", input_tokens=10, cost_microusd=3, duration_us=5)
            with log.step("tool", tool="search"):
                clock.advance(seconds=0.1)
            request.set(status_code=200)
    line = next(event for event in stream if event.event == "request")
    assert (line.input_tokens, line.cost_microusd, line.duration_us) == (10, 3, 100_000)
    assert line.attributes["stages"] == {"llm": 5, "search": 100_000}
    assert {event.request_id for event in stream} == {"req-1"}
    assert {event.parent_span_id for event in stream if event.event != "request"} == {line.span_id}


severities = st.lists(st.integers(0, 5), max_size=40)


@given(offered=severities, capacity=st.integers(1, 8))
def test_the_hand_over_keeps_the_most_valuable(offered, capacity):
    """Never more than fits, in order, the most valuable; the rest is counted."""
    queue = Handover(capacity=capacity)
    for number, severity in enumerate(offered):
        queue.put(severity, (0, 0, 1, 2, 3, 3)[severity], number)
    taken = queue.take(100)
    kept = [number for _, _, number in taken]
    assert len(kept) == min(capacity, len(offered))
    assert kept == sorted(kept)
    assert len(kept) + sum(queue.dropped.values()) == len(offered)
    lanes = sorted((0, 0, 1, 2, 3, 3)[severity] for severity in offered)[-len(kept) :] if kept else []
    assert sorted((0, 0, 1, 2, 3, 3)[offered[number]] for number in kept) == lanes


def test_sampling_keeps_failures_whole_requests_and_its_own_probability(memory, clock, ids):
    """Ordinary lines are thinned by request, failures never; weights add up to what there was."""
    log = Logger(memory, clock=clock, ids=ids, sample=0.25)
    for number in range(2000):
        with log.request(request_id=f"req-{number}", status_code=200):
            log.info("first")
            log.info("second")
            if number % 10 == 0:
                log.error("failed")
    lines = [event for event in memory if event.event == "log"]
    by_message = {name: [e for e in lines if e.message == name] for name in ("first", "second", "failed")}
    assert {e.request_id for e in by_message["first"]} == {e.request_id for e in by_message["second"]}
    assert len(by_message["failed"]) == 200
    assert {e.attributes["sample_probability"] for e in by_message["failed"]} == {1.0}
    estimate = sum(1 / e.attributes["sample_probability"] for e in by_message["first"])
    assert 0.9 < estimate / 2000 < 1.1
    requests = [event for event in memory if event.event == "request"]
    assert len(requests) == 2000
    assert all("sample_probability" not in event.attributes for event in requests)
    with pytest.raises(ConfigError, match="the sample probability of 'log' is 2; choose one from 0 to 1"):
        Sampling(2)
