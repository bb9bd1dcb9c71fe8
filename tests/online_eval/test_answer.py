"""Putting an answer together from the events of its request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opsloop.event import Event
from opsloop.online_eval import Answer, Document, answer_from_events, answers_from_events
from tests.strategies import events


def event(kind, ts_ns=1, **fields):
    """Build one event of request req-A."""
    return Event(ts_ns=ts_ns, event=kind, request_id="req-A", **fields)


def test_the_whole_answer():
    """Question, answer, passages, finish reason and whose it was, each from the event that carries it."""
    found = answer_from_events(
        [
            event(
                "request",
                tenant="acme",
                route="/chat",
                service="bot",
                attributes={"input": "How long?", "output": "Five days.", "finish_reason": "stop"},
            ),
            event(
                "retrieve",
                ts_ns=2,
                attributes={"documents": [{"id": "d1", "score": 0.5, "content": "It takes five days."}, {"id": "d2"}]},
            ),
            event("llm", ts_ns=3, model="m-1", attributes={"output": "ignored"}),
        ]
    )
    assert found == Answer(
        request_id="req-A",
        answer="Five days.",
        question="How long?",
        contexts=("It takes five days.",),
        documents=(Document(id="d1", content="It takes five days.", score=0.5), Document(id="d2")),
        finish_reason="stop",
        ts_ns=1,
        service="bot",
        tenant="acme",
        route="/chat",
        model="m-1",
    )


def test_the_model_call_fills_in():
    """What the request does not carry comes from its model calls: messages, the system prompt, the last output."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First?"},
        {"role": "user", "content": [{"type": "text", "text": "How long?"}]},
    ]
    found = answer_from_events(
        [
            event("request"),
            event("llm", ts_ns=2, attributes={"input": messages, "output": "draft", "finish_reason": "length"}),
            event("llm", ts_ns=3, attributes={"output": {"role": "assistant", "content": "Five days."}}),
        ]
    )
    assert (found.question, found.answer, found.system) == ("How long?", "Five days.", "Be brief.")


def test_not_recorded_is_not_empty():
    """Without an output there is no answer text; an empty output is an empty answer."""
    assert answer_from_events([event("request")]).answer is None
    assert answer_from_events([event("request", attributes={"output": ""})]).answer == ""
    assert answer_from_events([event("llm", attributes={"output": "x"})]) is None


def test_answers_come_in_the_order_of_time():
    """Many requests' events, mixed, give one answer each; events without a request id give none."""
    mixed = [
        Event(ts_ns=2, event="request", request_id="b", attributes={"output": "two"}),
        Event(ts_ns=1, event="request", request_id="c", attributes={"output": "one"}),
        Event(ts_ns=1, event="request", request_id="a", attributes={"output": {"n": 1}}),
        Event(ts_ns=0, event="request", attributes={"output": "nobody's"}),
        Event(ts_ns=3, event="retrieve", request_id="b", attributes={"documents": ["a plain text", 7]}),
    ]
    found = answers_from_events(mixed)
    assert [(a.request_id, a.answer, a.contexts) for a in found] == [
        ("a", '{"n":1}', ()),
        ("c", "one", ()),
        ("b", "two", ("a plain text",)),
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "text", "id", "score"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.lists(events, max_size=6),
    st.dictionaries(st.sampled_from(["input", "output", "documents", "finish_reason"]), json_values, max_size=4),
)
def test_any_events_can_be_read(some, attributes):
    """Whatever the instruments wrote, there is an answer for each request and never an exception."""
    odd = [event(kind, attributes=attributes) for kind in ("request", "llm", "retrieve")]
    found = answers_from_events([*some, *odd])
    requests = {e.request_id for e in [*some, *odd] if e.event == "request" and e.request_id}
    assert {answer.request_id for answer in found} == requests
