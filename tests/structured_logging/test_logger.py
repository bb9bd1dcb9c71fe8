"""The logger: what a call becomes, what a request ends in, and that the host never pays."""

from __future__ import annotations

import io
import subprocess
import sys
from decimal import Decimal
from enum import Enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import ConfigError, StoreError
from opsloop.event import FIELDS, Event, decode_event, encode_event
from opsloop.structured_logging import JsonLinesSink, Logger
from opsloop.structured_logging.record import make_event


@pytest.fixture
def log(memory, clock, ids):
    """A logger into memory, at a Monday morning, with known ids."""
    return Logger(memory, clock=clock, ids=ids, service="bot", release="1.2")


def test_a_request_ends_in_one_canonical_line(log, memory, clock):
    """The line has the request's start, outcome, sums and stages; what happened inside shares its ids."""
    with log.request(request_id="req-1", route="/chat", tenant="acme", in_flight=2, input="hi") as request:
        with log.step("retrieve") as step:
            clock.advance(seconds=0.25)
            step.set(documents=[{"id": "d1", "score": 0.5}])
        with log.step("llm", model="m-1") as call:
            clock.advance(seconds=0.5)
            call.first_token()
            clock.advance(seconds=0.5)
            call.set(input_tokens=10, output_tokens=5, cost_microusd=7)
        log.event("embed", model="e-1", input_tokens=3, cost_microusd=1, duration_us=40)
        request.add(retries=1)
        request.set(status_code=200)
    assert [(event.event, event.duration_us) for event in memory] == [
        ("retrieve", 250_000),
        ("request", 1_250_000),
        ("llm", 1_000_000),
        ("embed", 40),
    ]
    retrieve, line, llm, embed = memory
    shared = {"service": "bot", "release": "1.2", "request_id": "req-1", "trace_id": request.trace_id}
    assert msgspec.to_builtins(line) == {
        **shared,
        "ts_ns": 1_767_603_600_000_000_000,
        "event": "request",
        "event_id": f"{request.trace_id}:{request.span_id}",
        "span_id": request.span_id,
        "tenant": "acme",
        "route": "/chat",
        "status_code": 200,
        "duration_us": 1_250_000,
        "input_tokens": 13,
        "output_tokens": 5,
        "cost_microusd": 8,
        "attributes": {
            "in_flight": 2,
            "input": "hi",
            "stages": {"retrieve": 250_000, "llm": 1_000_000, "embed": 40},
            "retries": 1,
        },
    }
    assert {event.parent_span_id for event in (retrieve, llm, embed)} == {request.span_id}
    assert (retrieve.tool, llm.time_to_first_token_us) == ("retrieve", 500_000)
    assert {event.request_id for event in memory} == {"req-1"}


def test_a_request_sums_up_model_calls_and_the_steps_right_below_it(memory, clock, ids):
    """A tool's tokens are not counted, and an event that says its own span says whose step it is."""
    log = Logger(memory, clock=clock, ids=ids)
    with log.request():
        log.event("tool", tool="search", input_tokens=5, duration_us=1)
        log.event("tool", tool="read", span_id="1" * 16, parent_span_id="2" * 16, duration_us=2)
        log.event("llm", input_tokens=7, duration_us=3)
    line = next(event for event in memory if event.event == "request")
    assert (line.input_tokens, line.attributes["stages"]) == (7, {"search": 1, "llm": 3})


def test_a_model_call_around_another_is_counted_once(log, memory):
    """A wrapper that repeats its inner call's tokens adds nothing to the request's."""
    with log.request(), log.step("llm", input_tokens=10), log.step("agent"):
        log.event("llm", input_tokens=10)
    assert next(event.input_tokens for event in memory if event.event == "request") == 10


class RefusedError(Exception):
    """An exception that knows its HTTP status, as web frameworks have."""

    def __init__(self, status_code):
        self.status_code = status_code


class CancelledError(BaseException):
    """Named as asyncio's and trio's are."""


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [
        (KeyError("x"), (500, True, "KeyError", "ERROR")),
        (RefusedError(503), (503, True, "RefusedError", "ERROR")),
        (RefusedError(404), (404, False, "RefusedError", "INFO")),
        (CancelledError(), (499, False, "CancelledError", "WARN")),
        (KeyboardInterrupt(), (500, True, "KeyboardInterrupt", "ERROR")),
    ],
)
def test_however_a_request_ends_its_line_is_written_and_the_exception_goes_on(log, memory, cause, outcome):
    """An exception decides the outcome, is written once, and reaches the caller unchanged."""
    with pytest.raises(type(cause)) as caught, log.request():
        raise cause
    assert caught.value is cause
    (line,) = memory
    assert (line.status_code, line.error, line.error_type, line.severity) == outcome


def test_a_caught_failure_names_the_cause(log, memory):
    """A 503 after a handled tool error takes the tool's error type; one without any takes the status."""
    with log.request() as request:
        with pytest.raises(TimeoutError), log.step("tool", tool="search"):
            raise TimeoutError("after 3 s")
        request.set(status_code=503)
    with log.request() as request:
        request.set(status_code=502)
    tool, *_ = (event for event in memory if event.event == "tool")
    assert (tool.error, tool.error_type, tool.message, tool.severity) == (True, "TimeoutError", "after 3 s", "ERROR")
    assert [e.error_type for e in memory if e.event == "request"] == ["TimeoutError", "502"]


def test_our_own_rejection_is_no_error(log, memory):
    """A 429 of our limiter stays a rejection."""
    with log.request() as request:
        request.set(status_code=429, error_type="rate_limited")
    assert [(e.error, e.error_type) for e in memory] == [(False, "rate_limited")]


def test_the_level_thins_log_lines_only(memory, clock):
    """Below the level a log line is not written; measurements always are, since signals derive from them."""
    log = Logger(memory, clock=clock, level="warning")
    log.info("quiet")
    log.event("log", severity="DEBUG")
    log.warning("heard")
    log.event("gauge", severity="DEBUG")
    with log.request():
        log.debug("quiet")
    assert [(e.event, e.message) for e in memory] == [("log", "heard"), ("gauge", ""), ("request", "")]
    with pytest.raises(ConfigError, match="unknown log level 'loud'; use one of TRACE, "):
        Logger(memory, level="loud")


def test_bound_fields_are_on_every_event_of_their_logger(log, memory):
    """bind() makes another logger and leaves the first alone; a call's own field wins."""
    bound = log.bind(component="search", tenant="acme")
    bound.info("a")
    bound.bind(shard=2).info("b", tenant="globex")
    log.info("c")
    with log.scope(user_id="u-1"):
        log.info("d")
    found = [(e.message, e.tenant, e.user_id, e.attributes) for e in memory]
    assert found == [
        ("a", "acme", "", {"component": "search"}),
        ("b", "globex", "", {"component": "search", "shard": 2}),
        ("c", "", "", {}),
        ("d", "", "u-1", {}),
    ]


def test_a_log_line_stands_in_the_open_span(log, memory):
    """A line carries the id of the span it was written in; a span written without a scope gets its own."""
    with log.request() as request, log.step("agent") as step:
        log.info("inside")
        log.event("tool", tool="search")
    tool = next(e for e in memory if e.event == "tool")
    line = next(e for e in memory if e.event == "log")
    assert (line.span_id, line.event_id) == (step.span_id, "")
    assert tool.parent_span_id == step.span_id
    assert tool.span_id not in {"", step.span_id, request.span_id}
    assert tool.event_id == f"{request.trace_id}:{tool.span_id}"


class Silent:
    """An object that cannot say what it is."""

    def __str__(self):
        raise RuntimeError("no")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(Silent()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=4,
)
surrogates = st.text(st.characters(codec=None), max_size=3)


@given(fields=st.dictionaries(st.sampled_from([*FIELDS, "a", "b"]), values | surrogates), kind=values | surrogates)
def test_any_fields_make_an_event_that_can_be_stored(fields, kind):
    """Whatever is passed to a log call, the event is valid, encodes, and reads back as itself."""
    fields.pop("ts_ns", None)
    fields.pop("event", None)
    event = make_event(5, kind, fields)
    assert decode_event(encode_event(event)) == event


def test_a_field_that_does_not_fit_is_kept_beside():
    """A wrong value is no reason to lose an event: it stands under attributes.rejected."""
    event = make_event(5, "tool", {"duration_us": -1, "tool": 7, "price": Decimal("1.5"), "status_code": 200})
    assert event == Event(
        ts_ns=5, event="tool", tool="7", status_code=200, attributes={"price": "1.5", "rejected": {"duration_us": -1}}
    )


class Tool(Enum):
    """A name of the host's."""

    SEARCH = "search"


def test_a_member_of_an_enum_means_its_value(log, memory):
    """In a column as in an attribute, and as the message."""
    log.info(Tool.SEARCH, tool=Tool.SEARCH, last=Tool.SEARCH)
    ((event),) = memory
    assert (event.message, event.tool, event.attributes) == ("search", "search", {"last": "search"})


def test_an_event_is_a_copy(log, memory):
    """What the caller changes after the call does not reach the event."""
    documents = [{"id": "a"}]
    bound = log.bind(tags=(tags := ["x"]))
    bound.event("retrieve", documents=documents)
    documents.append({"id": "b"})
    tags.append("y")
    bound.info("later")
    assert [event.attributes for event in memory] == [{"tags": ["x"], "documents": [{"id": "a"}]}, {"tags": ["x"]}]


class Broken:
    """A sink that refuses everything."""

    def __init__(self, cause):
        self.cause = cause

    def append(self, events):
        """Refuse."""
        raise self.cause


@pytest.mark.parametrize("cause", [StoreError("disk full"), KeyError("disk full"), ZeroDivisionError("disk full")])
def test_a_broken_sink_never_reaches_the_host(clock, cause):
    """A failed write is counted and its reason kept, whatever the sink raised; the call returns."""
    out = io.StringIO()
    log = Logger(Broken(cause), clock=clock, writer=out)
    log.error("one")
    with log.request():
        pass
    assert (log.failed, log.last_error) == (2, f"{type(cause).__name__}: {cause}")
    assert [decode_event(line).event for line in out.getvalue().splitlines()] == ["log", "request"]


def test_json_lines_go_to_text_bytes_and_files(tmp_path):
    """One object per line, in UTF-8, whatever the stream."""
    events = [Event(ts_ns=1, event="log", message="größe"), Event(ts_ns=2, event="log")]
    expected = '{"ts_ns":1,"event":"log","message":"größe"}\n{"ts_ns":2,"event":"log"}\n'
    text, raw, latin = io.StringIO(), io.BytesIO(), io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    for stream in (text, raw, latin):
        assert JsonLinesSink(stream).append(events) == 2
    assert text.getvalue() == expected
    assert raw.getvalue().decode() == expected
    assert latin.buffer.getvalue().decode() == expected
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        sink = JsonLinesSink(path)
        assert sink.append(events) == 2
        assert sink.append([]) == 0
        sink.close()
    assert path.read_text(encoding="utf-8") == expected * 2


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ('[log]\nservice = "shop"\nlevel = "WARN"\n', [("shop", "late ann@[...]")]),
        ("[log]\nlevel = 5\n", [("app", "default log settings"), ("app", "start"), ("app", "late ann@[...]")]),
    ],
)
def test_the_ready_logger_is_set_up_at_first_use(tmp_path, settings, shown):
    """It reads the settings once it is used; settings that are wrong are said so and do not stop the host."""
    (tmp_path / "opsloop.toml").write_text(settings)
    code = (
        "from opsloop.structured_logging import log\nlog.info('start')\nlog.warning('late ann@example.org')\n"
        "print(log.failed)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    *lines, failed = run.stdout.splitlines()
    found = [decode_event(line) for line in lines]
    assert failed == "0"
    assert [event.service for event in found] == [service for service, _ in shown]
    for event, (_, text) in zip(found, shown, strict=True):
        assert event.message.startswith(text.partition("ann@")[0])
    assert found[-1].message == "late [EMAIL_1]"
