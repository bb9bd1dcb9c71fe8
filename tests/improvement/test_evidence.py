"""Evidence: what the alert was about, found in the stream and frozen."""

from __future__ import annotations

import pytest

from opsloop.errors import EventError
from opsloop.event import Event
from opsloop.improvement import gather_evidence
from opsloop.improvement.classify import classify, stage_of
from opsloop.improvement.evidence import Sighting
from opsloop.stream import MemoryStream

T0 = 1_767_603_600_000_000_000
SECOND = 1_000_000_000


def vote(group, *, verdict="BREACH", threshold=None, unit="ratio", severe=False, start=0, end=300):
    """Build a vote as an alert carries it."""
    return {
        "id": group,
        "group": group,
        "verdict": verdict,
        "value": 1.0,
        "threshold": threshold,
        "unit": unit,
        "n": 9,
        "window_start_ns": T0 + start * SECOND,
        "window_end_ns": T0 + end * SECOND,
        "reason": "too much",
        "severe": severe,
    }


def alert(*votes, severity="page"):
    """Build a firing alert at the end of the window."""
    attributes = {"alert": "unhealthy", "key": "", "episode": "e1", "severity": severity, "votes": list(votes)}
    return Event(
        ts_ns=T0 + 300 * SECOND, event="alert", event_id="a1", attributes=attributes | {"reason": "two signals"}
    )


def request(seconds, name, *, error=False, release="r1", duration_us=10, **attributes):
    """Build the line of one request."""
    return Event(
        ts_ns=T0 + seconds * SECOND,
        event="request",
        request_id=name,
        route="/chat",
        release=release,
        error=error,
        error_type="UpstreamError" if error else "",
        duration_us=duration_us,
        attributes={"input": f"question {name}", **attributes},
    )


def step(seconds, name, kind="retrieve", *, message="timed out after 30ms", release="r1", **fields):
    """Build one failing step of a request."""
    given = {"error": True, "error_type": "TimeoutError"} | fields
    return Event(
        ts_ns=T0 + seconds * SECOND,
        event=kind,
        request_id=name,
        route="/chat",
        release=release,
        message=message,
        **given,
    )


STORY = [
    *[step(10 * n + 1, f"req-{n}", message=f"timed out after {n}ms") for n in range(1, 5)],
    *[request(10 * n, f"req-{n}", error=True, output="sorry") for n in range(1, 5)],
    step(12, "req-1", "log", message="giving up"),
    step(61, "req-6", "tool", tool="orders", error_type="ValueError", message="bad id", release="r2"),
    request(60, "req-6", error=True, release="r2"),
    request(70, "req-7"),
    request(310, "req-8", error=True),
]


def test_the_dominant_failure_is_chosen(stream):
    """The culprit is the failing step, not the request that repeats it; the rest is counted beside it."""
    stream.append(STORY)
    found = gather_evidence(stream, alert(vote("errors"), vote("latency", threshold=1, unit="us")))
    assert found.title == "retrieve: TimeoutError, timed out after <id>"
    assert (found.signature.stage, found.signature.signal) == ("retrieve", "errors")
    assert found.signature.failure_class == "timeout_or_budget_exhaustion"
    assert found.failing == 4
    assert list(found.others.values()) == [1]
    assert found.sightings == (Sighting(release="r1", n=4, first_ns=T0 + 11 * SECOND, last_ns=T0 + 41 * SECOND),)
    assert (found.alert, found.page, found.severity, found.reason) == ("unhealthy||e1", "a1", 2, "two signals")
    assert [example.request_id for example in found.examples] == ["req-1", "req-2", "req-3"]
    assert (found.examples[0].input, found.examples[0].output) == ("question req-1", "sorry")
    assert [event["event"] for event in found.examples[0].events] == ["request", "retrieve", "log"]


def test_only_the_signals_that_breached_count():
    """A quality page is explained by poor answers, though a few errors happened too; a severe vote is SEV-1."""
    scores = [
        Event(
            ts_ns=T0 + n * SECOND,
            event="score",
            request_id=f"req-{n}",
            attributes={"scorer": "groundedness", "status": "scored", "score": score},
        )
        for n, score in [(20, 0.1), (30, 0.2), (40, 0.9)]
    ]
    scores.append(Event(ts_ns=T0 + 50 * SECOND, event="score", attributes={"scorer": "x", "status": "unscored"}))
    quality = vote("quality", threshold=0.75, severe=True)
    found = gather_evidence(MemoryStream([*STORY, *scores]), alert(quality, vote("errors", verdict="OK")))
    assert (found.signature.signal, found.signature.failure_class) == (
        "quality:groundedness",
        "generator_hallucination",
    )
    assert (found.failing, found.severity, found.signature.message) == (2, 1, "")


def test_a_slow_service_is_known_by_its_slowest_stage():
    """Latency has no message: the stage that took longest is what is the same next time."""
    slow = [request(n, f"s{n}", duration_us=5000, stages={"retrieve": 4000, "llm": 900}) for n in (5, 6)]
    found = gather_evidence(MemoryStream([*slow, request(7, "ok")]), alert(vote("latency", threshold=2000, unit="us")))
    assert (found.signature.stage, found.signature.message, found.failing) == ("retrieve", "", 2)


def test_a_full_service_is_known_by_the_limits_that_were_hit():
    """Saturation shows what was rejected and by which limits."""
    attributes = {"phase": "admit", "allowed": False, "violated": ["slots"]}
    limits = [Event(ts_ns=T0 + n * SECOND, event="limit", request_id=f"l{n}", attributes=attributes) for n in (1, 2)]
    found = gather_evidence(MemoryStream(limits), alert(vote("saturation")))
    assert (found.signature.stage, found.signature.message) == ("rate_limit", "slots")


def test_a_page_that_nothing_explains_is_not_lost():
    """An empty window still gives evidence, of the class unclassified, with the signals in its title."""
    found = gather_evidence(MemoryStream(), alert(vote("latency"), vote("saturation")))
    assert found.title == "latency+saturation: nothing in the window explains it"
    assert (found.failing, found.examples, found.signature.failure_class) == (0, (), "unclassified")


def test_only_an_alert_has_evidence():
    """Another kind of event, or votes that are no readings, are refused with the event's id."""
    with pytest.raises(EventError, match="is no alert"):
        gather_evidence(MemoryStream(), request(1, "x"))
    with pytest.raises(EventError, match="votes"):
        gather_evidence(MemoryStream(), alert({"id": 5}))


@pytest.mark.parametrize(
    ("fields", "stage", "kind"),
    [
        ({"event": "retrieve", "attributes": {"documents": []}}, "retrieve", "retriever_miss"),
        ({"event": "retrieve", "error_type": "KeyError"}, "retrieve", "retrieval_grounding_failure"),
        ({"event": "tool", "tool": "retrieve", "error_type": "Timeout"}, "retrieve", "timeout_or_budget_exhaustion"),
        ({"event": "tool", "tool": "pay", "error_type": "ValidationError"}, "tool:pay", "tool_argument_error"),
        ({"event": "tool", "tool": "pay", "error_type": "UnknownTool"}, "tool:pay", "tool_selection_error"),
        ({"event": "tool", "tool": "pay", "error_type": "Crash"}, "tool:pay", "dependency_failure"),
        ({"event": "llm", "error_type": "upstream_429"}, "generate", "timeout_or_budget_exhaustion"),
        ({"event": "llm", "error_type": "upstream_500"}, "generate", "dependency_failure"),
        ({"event": "request", "error_type": "JSONDecodeError"}, "parse", "malformed_output"),
        ({"event": "guardrail"}, "guardrail", "policy_violation"),
        ({"event": "request", "error_type": "KeyError"}, "", "unclassified"),
    ],
)
def test_each_class(fields, stage, kind):
    """Every rule of the closed list, by example."""
    event = Event(ts_ns=0, error=True, **fields)
    assert (stage_of(event), classify(event, "errors")) == (stage, kind)
