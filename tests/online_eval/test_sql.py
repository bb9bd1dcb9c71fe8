"""Each SQL statement against its definition in Python, over any events."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.online_eval import answers_from_events, sample_key, sampled
from opsloop.online_eval.estimate import Sums, sums
from opsloop.online_eval.sql import (
    Coverage,
    Pending,
    answer_events_statement,
    coverage_statement,
    pending_statement,
    sums_statement,
    to_coverage,
    to_events,
    to_pending,
    to_sums,
    to_worst,
    worst_statement,
)

BASE = 1_767_600_000_000_000_000
names = st.sampled_from(["", "a", "b", "c", "größe"])
request = st.builds(
    lambda at, **fields: Event(ts_ns=BASE + at * 1000, event="request", **fields),
    st.integers(0, 12),
    request_id=names,
    error=st.booleans(),
    status_code=st.sampled_from([None, 200, 429, 503]),
    duration_us=st.none() | st.integers(0, 6),
    attributes=st.sampled_from([{}, {"input": "Why?", "output": "So."}]),
)
retrieve = st.builds(
    lambda at, **fields: Event(ts_ns=BASE + at * 1000, event="retrieve", **fields),
    st.integers(0, 12),
    request_id=names,
    attributes=st.sampled_from([{}, {"documents": [{"id": "d", "content": "So it is.", "score": 0.1}]}]),
)


@st.composite
def score(draw):
    """Build a score event as the worker writes it, or as someone else does."""
    name, scorer = draw(names), draw(st.sampled_from(["x", "y"]))
    attributes = {"scorer": scorer, "scorer_version": "1", "label": "l", "explanation": "e"}
    attributes |= draw(st.sampled_from([{}, {"probability": 0.5}, {"probability": 0.1}]))
    if draw(st.booleans()):
        attributes |= {"status": "scored", "score": draw(st.floats(0, 1))}
    else:
        attributes |= {"status": "unscored"}
    return Event(
        ts_ns=BASE + draw(st.integers(0, 12)) * 1000,
        event="score",
        event_id=f"score:{name}:{scorer}:1" if draw(st.booleans()) else "",
        request_id=name,
        attributes=attributes,
    )


anything = st.lists(request | retrieve | score(), max_size=16)
window = st.tuples(st.integers(-2, 12), st.integers(1, 14)).map(lambda w: (BASE + w[0] * 1000, BASE + sum(w) * 1000))
agreeing = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, print_blob=True
)


def fill(clickhouse, events):
    """Store exactly these events, once each where they have an id; return them as stored."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse._recent.clear()
    clickhouse.append(events)
    return clickhouse.query()


def pending(events, *, start_ns, end_ns, rate, marker, most):
    """Define which answers wait: finished in the window, not failed, sampled, not yet scored; smallest keys first."""
    done = {event.event_id for event in events if event.event == "score"}
    found = {}
    for event in events:
        finished = event.ts_ns + 1000 * (event.duration_us or 0)
        answered = event.event == "request" and not event.error and (event.status_code or 200) < 400
        waits = event.request_id and f"score:{event.request_id}:{marker}" not in done
        inside = start_ns < finished <= end_ns
        if answered and waits and inside and sampled(event.request_id, rate).taken:
            key = sample_key(event.request_id)
            found.setdefault(event.request_id, Pending(event.request_id, event.ts_ns, finished, key))
    return sorted(found.values(), key=lambda item: item.u)[:most]


@agreeing
@given(events=anything, at=window, rate=st.sampled_from([0.0, 0.3, 0.7, 1.0]), most=st.integers(0, 4))
def test_pending(clickhouse, events, at, rate, most):
    """The requests that wait for a score are those of the definition, with the same keys, in the same order."""
    stored = fill(clickhouse, events)
    of = {"start_ns": at[0], "end_ns": at[1], "rate": rate, "marker": "x:1", "most": most}
    assert to_pending(clickhouse.rows(pending_statement(**of))) == pending(stored, **of)


@agreeing
@given(events=anything, at=window, wanted=st.sets(names))
def test_answers(clickhouse, events, at, wanted):
    """The narrow read of some requests' events gives the answers that whole events give."""
    fill(clickhouse, events)
    statement = answer_events_statement(sorted(wanted), start_ns=at[0], end_ns=at[1])
    whole = [event for event in clickhouse.query(start_ns=at[0], end_ns=at[1]) if event.request_id in wanted]
    assert answers_from_events(to_events(clickhouse.rows(statement))) == answers_from_events(whole)


@agreeing
@given(events=anything, at=window, bucket=st.integers(1, 5))
def test_sums(clickhouse, events, at, bucket):
    """Sums by scorer and bucket are the definition's; a score without a probability counts as taken for sure."""
    stored = fill(clickhouse, events)
    taken, unscored = defaultdict(list), defaultdict(int)
    for event in stored:
        if event.event == "score" and at[0] < event.ts_ns <= at[1]:
            key = (event.attributes["scorer"], (event.ts_ns - at[0] - 1) // (bucket * 1000))
            pair = (event.attributes.get("score"), event.attributes.get("probability", 1.0))
            unscored[key] += pair[0] is None
            taken[key] += [pair] if pair[0] is not None else []
    rows = to_sums(clickhouse.rows(sums_statement(start_ns=at[0], end_ns=at[1], bucket_ns=bucket * 1000)))
    assert {(row.scorer, row.bucket): row.unscored for row in rows} == dict(unscored)
    for row in rows:
        wanted = sums(taken[row.scorer, row.bucket])
        assert row.sums.n == wanted.n
        assert row.version == "1"
        assert _floats(row.sums) == pytest.approx(_floats(wanted))


def _floats(of: Sums):
    return [of.w, of.wx, of.ww, of.wwx, of.wwxx]


@agreeing
@given(events=anything, at=window, most=st.integers(0, 5))
def test_worst(clickhouse, events, at, most):
    """The lowest scores below 1 come first, the latest first among equals."""
    stored = fill(clickhouse, events)
    low = [
        (event.attributes["score"], -event.ts_ns, -number, event)
        for number, event in enumerate(stored)
        if event.event == "score" and at[0] < event.ts_ns <= at[1] and event.attributes.get("score", 1) < 1
    ]
    rows = to_worst(clickhouse.rows(worst_statement(start_ns=at[0], end_ns=at[1], most=most)))
    assert [(row.score, row.ts_ns, row.request_id) for row in rows] == [
        (value, event.ts_ns, event.request_id) for value, _, _, event in sorted(low, key=lambda item: item[:3])[:most]
    ]


@agreeing
@given(events=anything, at=window)
def test_coverage(clickhouse, events, at):
    """Answered, sampled and scored requests are counted once each."""
    inside = [e for e in fill(clickhouse, events) if at[0] < e.ts_ns <= at[1] and e.request_id]
    answered = {e.request_id for e in inside if e.event == "request" and not e.error and (e.status_code or 200) < 400}
    rows = [e for e in inside if e.event == "score"]
    wanted = Coverage(
        len(answered),
        len({e.request_id for e in rows}),
        len({e.request_id for e in rows if e.attributes["status"] == "scored"}),
    )
    assert to_coverage(clickhouse.rows(coverage_statement(start_ns=at[0], end_ns=at[1]))) == wanted
