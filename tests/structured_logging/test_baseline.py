"""What is usual, who else failed so, whose requests they were, and the same story in other tools' formats."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.ingest.otlp import read_traces
from opsloop.structured_logging import correlate, journey, query
from opsloop.structured_logging.baseline import (
    BASELINE_NS,
    LEAST,
    SIBLING_NS,
    Slow,
    baselines,
    baselines_from_rows,
    baselines_statement,
)
from opsloop.structured_logging.correlation import tell
from opsloop.structured_logging.trace import encode_otlp_traces, encode_trace_events
from tests.strategies import events

START, END = 1_767_600_000_000_000_000, 1_767_600_000_000_000_020
NOW = START + 10**15
MS = 10**6


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batch=st.lists(events, max_size=15), routes=st.lists(st.sampled_from(["/a", "/b"]), min_size=15, max_size=15))
def test_sql_agrees_with_the_definition(clickhouse, batch, routes):
    """For any events, the baselines of a route from SQL are those of its events in plain Python."""
    batch = [event.replace(route=route) for event, route in zip(batch, routes, strict=False)]
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(batch)
    found = baselines_from_rows(clickhouse.rows(baselines_statement("/a", start_ns=START, end_ns=END)))
    inside = [event for event in batch if event.route == "/a" and START < event.ts_ns <= END]
    expected = baselines(inside)
    assert {step: base.n for step, base in found.items()} == {step: base.n for step, base in expected.items()}
    for step, base in found.items():
        assert base.p95_us == pytest.approx(expected[step].p95_us, rel=1e-12)


def step(at_ns, took, request_id, **fields):
    """Build a search on /chat."""
    shape = {"event": "tool", "tool": "search", "route": "/chat", "span_id": f"{at_ns:x}", "trace_id": request_id}
    return Event(**{**shape, "ts_ns": at_ns, "duration_us": took, "request_id": request_id, **fields})


def a_request(at_ns, took, request_id, **fields):
    """Build the canonical line of a request on /chat."""
    return step(at_ns, took, request_id, event="request", tool="", span_id="root", **fields)


def test_a_slow_step_is_told_with_what_is_usual(stream):
    """A step beyond the p95 of at least 20 of its like within the day is slow; without so many nothing is said."""
    past = [step(NOW - n * MS, 1000 + n, f"req-{n}") for n in range(1, LEAST)]
    stream.append([*past, step(NOW - BASELINE_NS - 1, 9_000_000, "req-old"), step(NOW - 5, 1, "r", route="/other")])
    mine = step(NOW + 1, 1018, "req-x", span_id="s", parent_span_id="root")
    stream.append([a_request(NOW, 5000, "req-x"), mine])
    assert correlate(stream, "req-x").slow == ()
    stream.append([step(NOW - 50, 1000, "req-20")])
    assert correlate(stream, "req-x").slow == ()  # the p95 of 1000, 1001 … 1019 is 1018.05
    stream.append([a_request(NOW + 7, 5000, "req-y"), step(NOW + 8, 1500, "req-y", parent_span_id="root")])
    story = correlate(stream, "req-y")
    assert [(slow.event.duration_us, slow.n) for slow in story.slow] == [(1500, 21)]
    assert isinstance(story.slow[0], Slow)
    assert "slow           search  1.50 ms, 95 % of 21 took at most 1.02 ms" in story.text()


def test_siblings_are_the_same_failure_of_others(stream):
    """Others with the same kind, tool and error_type within a quarter of an hour, the nearest first."""
    bad = {"error": True, "error_type": "TimeoutError"}
    stream.append(
        [
            a_request(NOW - 1, 5000, "req-x", error=True),
            step(NOW, 10, "req-x", **bad),
            step(NOW + 5, 10, "req-x", **bad),
            step(NOW + SIBLING_NS, 10, "req-far", **bad),
            step(NOW + SIBLING_NS + 1, 10, "req-late", **bad),
            step(NOW - SIBLING_NS, 10, "req-before", **bad),
            step(NOW - SIBLING_NS - 1, 10, "req-early", **bad),
            step(NOW + 9, 10, "req-near", **bad),
            step(NOW + 10, 10, "req-near", **bad),
            step(NOW + 11, 10, "req-other", error=True, error_type="KeyError"),
            step(NOW + 12, 10, "req-tool", tool="fetch", **bad),
            step(NOW + 13, 10, "req-fine", error_type="TimeoutError"),
        ]
    )
    story = correlate(stream, "req-x")
    among = story.siblings
    assert (among.events, among.requests[0], set(among.requests)) == (
        4,
        "req-near",
        {"req-near", "req-far", "req-before"},
    )
    assert among.query == "event:tool tool:search error:true error_type:TimeoutError"
    found = query(stream, among.query, start_ns=among.start_ns, end_ns=among.end_ns)
    assert len({event.ts_ns for event in found if event.request_id != "req-x"}) == 4
    assert "siblings       4 × tool search TimeoutError within 15 min: req-near" in story.text()
    assert correlate(stream, "req-fine").siblings is None


def test_a_failure_without_a_type_is_known_by_its_message(stream):
    """A loud log line has no error_type: the same line in another request is its sibling."""
    loud = Event(ts_ns=NOW, event="log", severity="ERROR", message="index gone", request_id="req-1")
    others = [loud.replace(request_id="req-2"), loud.replace(request_id="req-3", message="other")]
    stream.append([loud, *others])
    assert correlate(stream, "req-1").siblings.requests == ("req-2",)


def test_what_sampling_may_have_taken_is_said():
    """Only failures of a sampled kind are here: the others may have been sampled away; if one is here, none was."""
    kept = Event(ts_ns=1, event="log", error=True, attributes={"sample_probability": 1.0})
    fine = kept.replace(error=False, attributes={"sample_probability": 0.1})
    whole = a_request(NOW, 1, "req-1")
    assert tell([whole, kept], "req-1").missing == ("log events that did not fail, if there were any: sampled",)
    assert tell([whole, kept, fine], "req-1").complete


def test_a_journey_tells_how_each_request_ended(stream):
    """The requests of a session or a person, the oldest first, each with the step that it failed at."""
    mine = {"session_id": "s-1", "user_id": "u-1"}
    first = a_request(NOW, 3_000_000, "req-1", status_code=200, **mine)
    second = a_request(NOW + 10**9, 2_000_000, "req-2", status_code=503, error=True, **mine)
    failed = step(NOW + 10**9 + 5, 1000, "req-2", error=True, error_type="TimeoutError", parent_span_id="root")
    stream.append([second, failed, first, a_request(NOW + 5, 1, "req-3", user_id="u-1", session_id="s-2")])
    way = journey(stream, session_id="s-1")
    assert [(one.request, one.failure) for one in way.episodes] == [(first, None), (second, failed)]
    assert way.text() == (
        "session s-1  2 requests, 1 failed\n\n"
        "2026-01-16 21:46:40   req-1                200    3.00 s  /chat\n"
        "2026-01-16 21:46:41 x req-2                503    2.00 s  /chat            tool  search  TimeoutError"
    )
    assert [one.request.request_id for one in journey(stream, user_id="u-1", limit=2).episodes] == ["req-3", "req-2"]
    assert journey(stream, user_id="u-1", limit=2).more
    assert correlate(stream, user_id="u-1").requests == journey_requests(stream)
    for wrong in ({}, {"session_id": "a", "user_id": "b"}, {"session_id": "nobody"}):
        with pytest.raises(InputError):
            journey(stream, **wrong)


def journey_requests(stream):
    """Return the requests of the person's whole journey."""
    return tuple(one.request for one in journey(stream, user_id="u-1").episodes)


TRACE, ROOT = "a" * 32, "b" * 16
IDS = {"request_id": "r", "trace_id": TRACE, "service": "bot"}
WHOLE = Event(ts_ns=NOW, event="request", span_id=ROOT, duration_us=10_000, route="/chat", status_code=200, **IDS)
PART = Event(ts_ns=NOW + MS, event="llm", span_id="c" * 16, parent_span_id=ROOT, duration_us=4_000, **IDS)
CALL = PART.replace(model="m", error=True, error_type="Overloaded")
BESIDE = PART.replace(ts_ns=NOW + 2 * MS, span_id="d" * 16, event="tool", tool="search")
LINE = Event(ts_ns=NOW + 3 * MS, event="log", message="hm", request_id="r", trace_id=TRACE, span_id="c" * 16)
STORY = tell([WHOLE, CALL, BESIDE, LINE], "r")


def test_a_story_is_an_otlp_trace():
    """Our own OTLP intake reads the exported trace as the spans that it was made of."""
    read = {event.span_id: event for event in read_traces(encode_otlp_traces(STORY), json=True).events}
    for span in (WHOLE, CALL, BESIDE):
        mine = read[span.span_id]
        assert (mine.ts_ns, mine.duration_us, mine.trace_id, mine.parent_span_id, mine.error, mine.service) == (
            span.ts_ns, span.duration_us, span.trace_id, span.parent_span_id, span.error, "bot",
        )  # fmt: skip


def test_a_story_opens_in_perfetto():
    """Spans that overlap lie on tracks of their own, on each track they are nested, and a log line is an instant."""
    found = msgspec.json.decode(encode_trace_events(STORY))["traceEvents"]
    shown = [(one["name"], one["ph"], one["ts"] - NOW / 1000, one.get("dur"), one["tid"]) for one in found]
    assert shown == [
        ("/chat", "X", 0, 10_000, 0),
        ("m", "X", 1_000, 4_000, 0),
        ("search", "X", 2_000, 4_000, 1),
        ("log", "i", 3_000, None, 0),
    ]
    assert found[1]["cat"] == "llm,error"


@given(
    spans=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), max_size=12).map(
        lambda drawn: [step(NOW + at * 1000, took, "r", span_id=str(n)) for n, (at, took) in enumerate(drawn)]
    )
)
def test_tracks_hold_only_what_is_nested(spans):
    """However spans overlap: two on one track are one after the other, or one inside the other."""
    found = msgspec.json.decode(encode_trace_events(tell(spans, "r")))["traceEvents"]
    assert len(found) == len(spans)
    for one in found:
        for other in found:
            if one["tid"] == other["tid"] and one["ts"] < other["ts"]:
                end, other_end = one["ts"] + one["dur"], other["ts"] + other["dur"]
                assert end <= other["ts"] or other_end <= end
