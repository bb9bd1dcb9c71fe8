"""The two fast ways of a log call: each gives the event that the plain way gives, and the host pays little for it."""

from __future__ import annotations

import io
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.errors import ConfigError
from opsloop.event import FIELDS, Event, decode_event
from opsloop.stream import MemoryStream
from opsloop.structured_logging import BufferedSink, JsonLinesSink, Logger, Pattern, Rules, Sampling
from opsloop.structured_logging.handover import Handover
from opsloop.structured_logging.redact import PATTERNS, redact, values_may_hold_secrets
from opsloop.structured_logging.sinks import flat_line

names = st.sampled_from(
    ["words", "tool", "tenant", "duration_us", "error", "status_code", "request_id", "level", "msg", "ts", "rejected",
     "severity", "attributes", "password", "Api_Key", "event_id", "span_id", "note"]
)  # fmt: skip
texts = st.text(max_size=6) | st.sampled_from(["ann@example.org", "bearer abcdefghijk", "x", "AKIAABCDEFGHIJKLMNOP"])
scalars = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | texts | st.text(st.characters(codec=None))
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(texts, scalars, max_size=2) | st.just(object)
fields = st.dictionaries(names, values, max_size=4)


class Kept(list):
    """A sink that keeps everything in the order of arrival, repeated ids too."""

    def append(self, events):
        """Keep."""
        self.extend(events)
        return 0


def story(log, bound, scoped, message, given):
    """Write one line of each kind that a program writes."""
    with log.scope(**scoped):
        bound_log = log.bind(**bound)
        bound_log.info(message, **given)
        bound_log.error(message, **given)
        bound_log.info("plain", count=1, tool="search")
        bound_log.event("gauge", **given)


@settings(max_examples=60)
@given(bound=fields, scoped=fields, message=texts | scalars, given=fields, secret=st.booleans())
def test_every_way_gives_the_same_events(bound, scoped, message, given, secret):
    """Whatever is bound and passed: at once, handed over, and plain, redacted or not, the events are equal."""
    options = {"clock": ManualClock("2026-01-05T09:00:00Z"), "service": "bot", "redact": secret}
    out, plain, behind = io.BytesIO(), Kept(), Kept()
    story(Logger(plain, ids=SeededIds(1), **options), bound, scoped, message, given)
    story(Logger(JsonLinesSink(out), ids=SeededIds(1), **options), bound, scoped, message, given)
    with BufferedSink(behind) as sink:
        story(Logger(sink, ids=SeededIds(1), **options), bound, scoped, message, given)
    assert [decode_event(line) for line in out.getvalue().splitlines()] == plain
    assert behind == plain


attributes = st.dictionaries(st.sampled_from([*FIELDS, "level", "msg", "time", "a", "b"]), st.integers(), max_size=4)


@given(attributes=attributes)
def test_a_flat_line_reads_back_as_its_event(attributes):
    """Attributes stand beside the columns, and below attributes where their name is one of a column's."""
    event = Event(ts_ns=5, event="log", message="m", attributes=attributes)
    assert decode_event(flat_line(event)) == event


@given(text=st.text(max_size=30) | st.from_regex(r"[A-Za-z0-9@:=_. -]{0,40}", fullmatch=True))
def test_the_quick_look_misses_nothing(text):
    """A text that the quick look lets pass is one that no built-in pattern matches."""
    if not values_may_hold_secrets(text, {}):
        assert not any(pattern.compiled.search(text) for pattern in PATTERNS)
    own = Rules().extended(patterns=[Pattern("ORDER", "ord[a-z]+")])
    assert values_may_hold_secrets("ordering", {}, own)
    assert redact(Event(ts_ns=0, event="log", message="ordering"), own).message == "[ORDER_1]"


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
