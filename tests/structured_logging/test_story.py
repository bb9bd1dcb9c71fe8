"""The story: what belongs to a request, in what order, where it failed, and what is missing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.stream import MemoryStream
from opsloop.structured_logging import Logger, Story, correlate
from opsloop.structured_logging.correlation import tell
from opsloop.structured_logging.tree import critical_path, end_ns, is_span, plant, walk

T = "a" * 32
MS = 1_000_000
SEARCH = {"tool": "search", "error": True, "error_type": "TimeoutError"}


def at(ms, event="tool", **fields):
    """Build an event of req-1 that begins so many milliseconds into it."""
    return Event(**{"ts_ns": (ms + 1) * MS, "event": event, "request_id": "req-1", "trace_id": T, **fields})


def span(name, parent, begin, lasts, event="tool", **fields):
    """Build a span that begins ``begin`` and lasts so many milliseconds."""
    return at(begin, event, span_id=name, parent_span_id=parent, duration_us=lasts * 1000, **fields)


ROOT = span("root", "", 0, 10_000, "request", route="/chat", tenant="acme", status_code=503, error=True,
            error_type="TimeoutError", attributes={"retries": 1})  # fmt: skip
LIMIT = at(0, "limit", trace_id="", message="admitted", attributes={"allowed": True})
AGENT = span("agent", "root", 100, 9000, "agent", tool="support")
FIRST = span("t1", "agent", 200, 3000, **SEARCH, message="index gone")
INDEX = span("index", "t1", 250, 10, "span", request_id="")
SLOW = at(400, "log", span_id="t1", severity="WARN", message="slow  shard", request_id="")
SECOND = span("t2", "agent", 3300, 3000, **SEARCH)
MODEL = span("llm", "agent", 6400, 2500, "llm", model="m-1", input_tokens=10, cost_microusd=150)
SCORE = at(20_000, "score", trace_id="", attributes={"scorer": "refusal", "score": 0.5})
EVIDENCE = {"page": "page-1", "examples": [{"request_id": "req-1"}]}
INCIDENT = at(30_000, "incident", request_id="", trace_id="", message="search times out",
              attributes={"problem_id": "P-1", "evidence": EVIDENCE})  # fmt: skip
GUARD = at(31_000, "guard", request_id="", trace_id="", message="G-1 proved", attributes={"problem_id": "P-1"})
PAGE = at(29_000, "alert", event_id="page-1", request_id="", trace_id="", message="service-unhealthy fires")
OTHER = at(32_000, "incident", request_id="", trace_id="", attributes={"evidence": {"request_ids": ["req-12"]}})
STRANGER = span("x", "", 5, 5, "request").replace(trace_id="b" * 32, request_id="req-2")
OWN = [ROOT, LIMIT, AGENT, FIRST, INDEX, SLOW, SECOND, MODEL, SCORE]

TEXT = """\
req-1 failed  503  TimeoutError  /chat  tenant acme  10 s

      0 us x request  /chat  503  TimeoutError                                       10 s
      0 us   ├─ limit  admitted
    100 ms   ├─ agent  support                                                     9.00 s
    200 ms x │  ├─ tool  search  TimeoutError  index gone                          3.00 s
    250 ms   │  │  ├─ span                                                          10 ms
    400 ms ! │  │  └─ log  slow shard
    3.30 s x │  ├─ tool  search  TimeoutError                                      3.00 s
    6.40 s   │  └─ llm  m-1                                                        2.50 s
      20 s   └─ score  refusal 0.50

first failure  tool  search  TimeoutError  index gone
critical path  request 100 ms > support 100 ms > search 50 ms > span 10 ms >
               search 2.94 s > support 100 ms > search 3.00 s > support 100 ms >
               llm 2.50 s > support 200 ms > request 900 ms
model calls    1, 10 tokens in, 0.000150 USD
linked         alert  service-unhealthy fires
linked         incident  search times out
linked         guard  G-1 proved"""


def test_a_whole_story_is_told(stream):
    """Two failed tries, a model call, another service's span, a score, a decision and an incident: all in one text."""
    stream.append([*OWN, PAGE, INCIDENT, GUARD, OTHER, STRANGER])
    story = correlate(stream, "req-1")
    assert story.text(width=90) == TEXT
    assert story.events == (LIMIT, INDEX, SLOW, FIRST, SECOND, MODEL, AGENT, ROOT, SCORE)
    assert (story.request, story.failure, story.links) == (ROOT, FIRST, (PAGE, INCIDENT, GUARD))
    assert (story.limits, story.scores, story.missing, story.complete) == ((LIMIT,), (SCORE,), (), True)
    assert msgspec.to_builtins(story.totals) == {
        "events": 9,
        "errors": 2,
        "model_calls": 1,
        "input_tokens": 10,
        "output_tokens": None,
        "cost_microusd": 150,
        "retries": 1,
        "duration_us": 10_000_000,
    }
    assert msgspec.json.decode(msgspec.json.encode(story), type=Story) == story


def test_a_trace_or_a_session_is_told_too(stream):
    """The same verb takes a trace id or a session id; ids that are given together must all hold."""
    stream.append([ROOT.replace(session_id="s"), AGENT, STRANGER.replace(session_id="s")])
    assert correlate(stream, trace_id=T).request_id == "req-1"
    assert [event.request_id for event in correlate(stream, session_id="s").requests] == ["req-1", "req-2"]
    assert correlate(stream, "req-2", session_id="s").request.request_id == "req-2"
    with pytest.raises(InputError, match="no event has request_id 'req-1', trace_id 'bb"):
        correlate(stream, "req-1", trace_id="b" * 32)
    with pytest.raises(InputError, match="correlate needs an id; give request_id, trace_id, session_id or user_id"):
        correlate(stream)


def test_nothing_that_belongs_is_too_far_away(stream):
    """A child that comes late, another service hours before and a record weeks after are told; so is a loss in time."""
    hour = 3_600_000
    before = span("gate", "", -5 * hour, 9, "span", request_id="")
    late = span("late", "root", 7 * hour, 9, "span", request_id="")
    bare = at(9 * hour, "score", trace_id="", attributes={"scorer": "refusal", "score": 0.5})
    record = {"request_id": "", "trace_id": ""}
    told = [
        at(-5 * hour, "breach", message="before REQ-1, req-1: begun", **record),
        at(24 * hour, "guard", attributes={"provenance": {"request_id": "req-1"}}, **record),
        at(600 * hour, "alert", message="why req-1 failed", **record),
    ]
    lost = at(9 * hour + 600_000, "log.dropped", attributes={"count": 2}, **record)
    far = [
        at(-5 * hour - 1, "alert", message="req-1", **record),
        at(9, "alert", message="REQ-1", **record),
        at(9, "alert", attributes={"note": "req-1"}, **record),
        lost.replace(ts_ns=lost.ts_ns + 1),
    ]
    stream.append([*told, *far, lost, bare, late, before, ROOT])
    story = correlate(stream, "req-1")
    assert story.events == (before, ROOT, late, bare)
    assert story.links == tuple(told)
    assert story.missing == ("up to 2 events that a process dropped",)


def test_a_step_that_seems_never_to_end_hides_no_loss(stream):
    """A duration beyond all that a clock can tell is a sender's slip: losses are still found, however late."""
    lost = at(9_000_000, "log.dropped", request_id="", trace_id="", attributes={"count": 2})
    stream.append([ROOT.replace(duration_us=2**55), lost])
    assert correlate(stream, "req-1").missing == ("up to 2 events that a process dropped",)


def test_a_story_without_records_looks_for_them_once(clickhouse):
    """Where nothing names the request and nothing was lost, no record is read whole: four statements tell all."""
    clickhouse.append([ROOT.replace(error=False), at(9, "alert", request_id="", trace_id="", message="not ours")])
    asked = []

    class Watched(type(clickhouse)):
        def __init__(self):
            pass

        def rows(self, statement):
            asked.append(statement.sql)
            return clickhouse.rows(statement)

    story = correlate(Watched(), "req-1")
    assert (story.links, len(asked), sum(sql.startswith("SELECT ts_ns, event, event_id") for sql in asked)) == (
        (),
        4,
        1,
    )


def test_a_person_of_many_requests_has_a_story(stream):
    """Of hundreds of requests those that a record names are found, and the question does not grow with the rest."""
    asked = [Event(ts_ns=n, event="request", request_id=f"req-{n}", user_id="u-1") for n in range(1, 601)]
    record = Event(ts_ns=601, event="alert", message="req-7 and req-77")
    stream.append([*asked, record, record.replace(message="req-7777")])
    story = correlate(stream, user_id="u-1")
    assert (story.requests, story.links) == (tuple(asked), (record,))


places = st.sampled_from(["reason", "request_ids", "evidence", "note"])
said = st.sampled_from(["", "req-1", "REQ-1 and req-2", "req-12", "größe\x00req-1"])
scattered = st.builds(
    Event,
    ts_ns=st.sampled_from([1, 10**9, 86_400 * 10**9]).flatmap(lambda unit: st.integers(1, 700).map(unit.__mul__)),
    event=st.sampled_from(["request", "tool", "log", "alert", "incident", "guard", "breach", "log.dropped"]),
    service=st.sampled_from(["", "bot"]),
    request_id=st.sampled_from(["", "req-1", "req-2"]),
    trace_id=st.sampled_from(["", "a", "b"]),
    session_id=st.sampled_from(["", "s-1"]),
    error=st.booleans(),
    duration_us=st.none() | st.integers(0, 10**9),
    message=said,
    attributes=st.dictionaries(places, said | st.dictionaries(st.sampled_from(["examples", "x"]), said, max_size=1))
    | st.fixed_dictionaries({"problem_id": st.sampled_from(["P-1", "P-2"])}),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    found=st.lists(scattered, max_size=12),
    ids=st.sampled_from([{"request_id": "req-1"}, {"session_id": "s-1"}, {"request_id": "req-1", "session_id": "s-1"}]),
    limit=st.sampled_from([1, 2, 3, 5_000]),
)
def test_a_database_tells_the_same_story(clickhouse, found, ids, limit):
    """Whatever happened and wherever it lies in time, statements tell what plain Python tells of the same events."""
    found = [Event(ts_ns=10**12, event="log", request_id="req-1", session_id="s-1", trace_id="a"), *found]
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(found)
    assert correlate(clickhouse, **ids, limit=limit) == correlate(MemoryStream(found), **ids, limit=limit)


def test_a_long_story_is_told_from_its_first_events(stream):
    """What lies beyond the limit brings in no trace, so the first events told are the same on every stream."""
    mine = [at(n, trace_id=trace, session_id="s") for n, trace in enumerate("aab", 1)]
    stream.append([at(0, trace_id="b", request_id=""), *mine])
    assert correlate(stream, session_id="s", limit=2).events == tuple(mine[:2])


def test_what_is_missing_is_said(stream):
    """A lost line, an unseen parent, a stage without its span, an open reservation and a drop make it incomplete."""
    stream.append(
        [
            at(0, "limit", attributes={"allowed": True, "phase": "admit", "reservation": "r-1"}),
            at(0, "limit", attributes={"allowed": True, "phase": "admit", "reservation": "r-2"}),
            at(9, "limit", attributes={"phase": "settle", "reservation": "r-2"}),
            span("t", "gone", 5, 5, tool="search", service="bot"),
            ROOT.replace(attributes={"stages": {"search": 5, "rerank": 7}}),
            Event(ts_ns=60_000 * MS, event="log.dropped", service="bot", attributes={"count": 4, "since_ns": MS}),
            Event(ts_ns=60_000 * MS, event="log.dropped", service="shop", attributes={"count": 4, "since_ns": MS}),
            Event(ts_ns=60_000 * MS, event="log.dropped", service="bot", attributes={"since_ns": 50_000 * MS}),
            Event(ts_ns=60_000 * MS, event="log.dropped", service="bot", attributes={"count": 1, "since_ns": "noon"}),
        ]
    )
    story = correlate(stream, "req-1")
    assert story.missing == (
        "span gone, the parent of others",
        "stage 'rerank', timed by the request",
        "the settlement of reservation 'r-1'",
        "up to 4 events that bot dropped",
        "up to 1 events that bot dropped",
    )
    assert not story.complete
    assert tell([FIRST], "req-1").missing[0] == "the canonical request event: it still runs, or its line was lost"
    assert correlate(stream, "req-1", limit=3).missing[-1] == "everything after the first 3 events"


def test_a_circle_of_spans_is_cut_and_said():
    """Spans that are each other's parents are cut at the earliest; nothing is lost and nothing runs for ever."""
    story = tell([ROOT, span("a", "b", 1, 5), span("b", "a", 2, 3), span("self", "self", 3, 1)], "req-1")
    assert story.notes == ("a circle of spans was cut at a", "a circle of spans was cut at self")
    assert [(node.event.span_id, len(node.children)) for node in walk(story.tree)] == [
        ("root", 2), ("a", 1), ("b", 0), ("self", 0),
    ]  # fmt: skip
    assert len(story.text().splitlines()) > 4


def test_a_wrapper_of_a_model_call_is_not_counted():
    """Tokens count on the innermost model call, and on models only: an agent that repeats them adds nothing."""
    story = tell(
        [
            ROOT.replace(input_tokens=10),
            span("agent", "root", 1, 9, "agent", input_tokens=10),
            span("outer", "agent", 2, 8, "llm", input_tokens=10, output_tokens=2),
            span("inner", "outer", 3, 7, "llm", input_tokens=10, output_tokens=2),
            span("embed", "agent", 4, 5, "embed", input_tokens=3),
        ]
    )
    totals = story.totals
    assert (totals.model_calls, totals.input_tokens, totals.output_tokens, totals.cost_microusd) == (2, 13, 2, None)


def test_the_first_failure_is_the_innermost(memory, clock, ids):
    """A tool's error that its agent and request pass on is the candidate, not they; it failed first."""
    log = Logger(memory, clock=clock, ids=ids)

    def work():
        with log.request(request_id="req-1"), log.step("agent"), log.step("tool", tool="x"):
            clock.advance(seconds=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    story = correlate(memory, "req-1")
    assert [event.event for event in story.events] == ["tool", "agent", "request"]
    assert story.failure.event == "tool"
    assert tell([at(1, "log", severity="ERROR"), at(2, "log")]).failure.severity == "ERROR"
    assert tell([ROOT]).failure == ROOT
    assert tell([ROOT.replace(error=False)]).failure is None


def test_long_and_narrow_texts_fit(memory):
    """No line is wider than asked, and a story without its canonical line has a heading of its own."""
    events = [span("t", "", 0, 200_000, tool="search", message="word " * 60), at(1, "log", message="\x1b[31m\nred")]
    text = tell(events, "req-1").text(width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert text.startswith("req-1  not finished")
    assert "3 min 20 s" in text
    assert "\x1b" not in text


ids_ = st.sampled_from(["a", "b", "c", "d", ""])
trees = st.lists(
    st.builds(
        Event,
        ts_ns=st.integers(0, 20_000),
        event=st.sampled_from(["request", "tool", "llm", "log", "score", "odd"]),
        span_id=ids_,
        parent_span_id=ids_,
        request_id=st.just("req-1"),
        duration_us=st.none() | st.integers(0, 20),
        input_tokens=st.none() | st.integers(0, 5),
        error=st.booleans(),
    ),
    min_size=1,
    max_size=10,
).map(lambda found: sorted(found, key=lambda event: event.ts_ns))


@given(found=trees)
def test_every_event_is_told_exactly_once(found):
    """Whatever the parents say, the tree and the list hold each event once, and the text can be written."""
    story = tell(found, "req-1")
    assert sorted(map(id, story.events)) == sorted(map(id, found))
    assert sorted(id(node.event) for node in walk(story.tree)) == sorted(map(id, found))
    assert story.totals.events == len(found)
    assert [end_ns(event) for event in story.events] == sorted(map(end_ns, found))
    assert story.text()


@given(found=trees)
def test_the_critical_path_adds_up(found):
    """The stretches of any span's critical path sum up to its duration exactly, and none is empty."""
    for node in walk(plant(found)):
        if is_span(node.event):
            path = critical_path(node)
            assert sum(step.self_ns for step in path) == (node.event.duration_us or 0) * 1000
            assert all(step.self_ns > 0 for step in path)


def test_a_deep_trace_does_not_break_the_telling():
    """Two thousand spans inside each other are planted, timed and written; below a hundred levels they lie flat."""
    chain = [span(f"s{n}", f"s{n - 1}" if n else "", n, 20_000 - 2 * n) for n in range(2_000)]
    story = tell(chain)
    assert len(story.text(width=80).splitlines()) > 2_000
    assert len(msgspec.json.encode(story)) > 100_000
    assert [event.span_id for event in story.events] == [f"s{n}" for n in reversed(range(2_000))]
