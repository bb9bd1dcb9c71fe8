"""Every event of the world keeps the contract of docs/event.md."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest

from opsloop.clock import parse_time
from opsloop.event import KINDS, decode_event, encode_event
from opsloop.sim import Fault, SupportBot

MINUTE = 60 * 10**9
START = parse_time("2026-01-05T14:00:00Z")
END = START + 60 * MINUTE


def minutes(first, last):
    """Return a window of the hour."""
    return START + first * MINUTE, START + last * MINUTE


FAULTS = (
    Fault("retriever_outage", *minutes(5, 10), 0.5),
    Fault("slow_model", *minutes(8, 14), 3.0, "llama-3.3-70b"),
    Fault("hallucination_drift", *minutes(15, 25), 0.8),
    Fault("tenant_spike", *minutes(26, 29), 40.0, "globex"),
    Fault("malformed_output", *minutes(30, 40), 0.6),
    Fault("upstream_429", *minutes(40, 50), 0.7, "openai"),
    Fault("bad_release", *minutes(50, 58), 0.3, "4.1.0"),
)
EVENTS = list(SupportBot(start_ns=START, faults=FAULTS).events(START, END))
BY_REQUEST = defaultdict(list)
for _event in EVENTS:
    if _event.request_id:
        BY_REQUEST[_event.request_id].append(_event)
REQUESTS = [event for event in EVENTS if event.event == "request"]


def of_kind(*kinds):
    """Return the hour's events of these kinds."""
    return [event for event in EVENTS if event.event in kinds]


def test_every_event_is_valid_and_survives_its_encoding():
    """Each event comes back equal from its JSON, is of a known kind and has an id that no other has."""
    assert [decode_event(encode_event(event)) for event in EVENTS] == EVENTS
    assert {event.event for event in EVENTS} == {
        "deploy",
        "embed",
        "gauge",
        "guardrail",
        "limit",
        "llm",
        "log",
        "request",
        "rerank",
        "retrieve",
    }
    assert {event.event for event in EVENTS} <= set(KINDS)
    ids = Counter(event.event_id for event in EVENTS)
    assert "" not in ids
    assert set(ids.values()) == {1}


def test_each_request_has_one_canonical_line_and_one_identity():
    """One request row per request id; all its events share trace, tenant, user, session, route and release."""
    for events in BY_REQUEST.values():
        assert [event.event for event in events].count("request") == 1
        shared = {
            (e.trace_id, e.tenant, e.user_id, e.session_id, e.route, e.release, e.service, e.environment)
            for e in events
        }
        assert len(shared) == 1
        assert all(all(identity) for identity in shared)
    assert len({event.trace_id for event in REQUESTS}) == len(REQUESTS)


def test_spans_form_a_tree_and_lie_inside_their_request():
    """Span ids are W3C and unique, every parent exists, logs belong to a span, and no stage leaves the request."""
    for events in BY_REQUEST.values():
        root = events[0]
        spans = [event for event in events if event.event != "log"]
        ids = {event.span_id for event in spans}
        assert len(ids) == len(spans)
        assert all(len(i) == 16 and int(i, 16) for i in ids)
        assert len(root.trace_id) == 32
        assert root.parent_span_id == ""
        assert {event.parent_span_id for event in spans[1:]} <= {root.span_id}
        assert {event.span_id for event in events if event.event == "log"} <= ids
        end_ns = root.ts_ns + 1000 * root.duration_us
        for event in events:
            assert root.ts_ns <= event.ts_ns <= event.ts_ns + 1000 * (event.duration_us or 0) <= end_ns


def test_a_request_line_says_what_its_stages_add_up_to():
    """Tokens and cost are the sums over llm and embed, stages name and time the calls, retries are counted."""
    for events in BY_REQUEST.values():
        request, calls = events[0], [event for event in events if event.event in {"llm", "embed"}]
        for name in ("input_tokens", "output_tokens", "cost_microusd"):
            counted = [getattr(event, name) for event in calls if getattr(event, name) is not None]
            assert getattr(request, name) == (sum(counted) if counted else None)
        timed = Counter()
        for event in events[1:]:
            if event.event != "log" and event.attributes.get("phase") != "settle":
                timed[event.event] += event.duration_us
        assert request.attributes["stages"] == dict(timed)
        refused = sum(event.error_type == "upstream_429" for event in events if event.event == "llm")
        attempts = sum("(attempt" in event.message for event in events if event.event == "retrieve")
        assert request.attributes.get("retries", 0) >= min(refused, 2)
        assert bool(request.attributes.get("retries", 0)) <= bool(refused or attempts)


def test_in_flight_is_the_number_of_requests_that_overlap_its_start():
    """``in_flight`` counts the requests running when one begins, itself included, exactly."""
    begun = sorted(REQUESTS, key=lambda event: event.ts_ns)
    for index, request in enumerate(begun):
        earlier = begun[:index]
        running = sum(e.ts_ns + 1000 * e.duration_us > request.ts_ns for e in earlier)
        missing = request.attributes["in_flight"] - 1 - running
        # Requests that are still running at the end of the hour are not in it yet.
        assert missing == 0 or (request.ts_ns > END - MINUTE and missing > 0)
    assert max(event.attributes["in_flight"] for event in begun) > 3


def test_the_outcome_of_a_request_is_one_of_a_few_and_hangs_together():
    """Status, error and error_type agree; our own rejection is no error; only an answered request has an output."""
    outcomes = {(event.status_code, event.error, event.error_type) for event in REQUESTS}
    assert outcomes == {
        (200, False, ""),
        (429, False, "rate_limited"),
        (500, True, "KeyError"),
        (502, True, "InvalidJSON"),
        (503, True, "TimeoutError"),
        (503, True, "upstream_429"),
    }
    for event in REQUESTS:
        assert event.attributes["input"]
        assert event.severity == {200: "INFO", 429: "WARN"}.get(event.status_code, "ERROR")
        if event.status_code == 200:
            assert event.attributes["output"]
            assert event.attributes["finish_reason"] in {"stop", "length", "content_filter"}
            assert (event.time_to_first_token_us is None) == (event.route == "support.search")
            assert (event.time_to_first_token_us or 0) < event.duration_us
        elif event.status_code == 429:
            assert [e.event for e in BY_REQUEST[event.request_id]] == ["request", "limit"]


def test_limit_events_carry_the_decision_and_its_settlement():
    """Each admission names its limits and their use; a rejection what was violated; each admitted one is settled."""
    for events in BY_REQUEST.values():
        limits = [event for event in events if event.event == "limit"]
        admit = limits[0].attributes
        assert set(admit["limits"]) == {"tenant-requests", "tenant-tokens-per-day", "service-slots"}
        for level in admit["limits"].values():
            assert set(level) == {"used_ratio", "remaining", "reset_seconds"}
            assert 0 < level["used_ratio"] <= 1
            assert level["remaining"] >= 0
        assert admit["phase"] == "admit"
        assert admit["allowed"] == (not admit["violated"])
        if admit["allowed"]:
            settled = limits[1].attributes
            assert settled["phase"] == "settle"
            assert settled["reservation"] == admit["reservation"] == events[0].request_id
            tokens = (events[0].input_tokens or 0) + (events[0].output_tokens or 0)
            assert settled["actual"] == {"requests": 1, "tokens": tokens}
        else:
            assert len(limits) == 1
            assert admit["violated"] == ["tenant-requests"]
            assert admit["limits"]["tenant-requests"]["used_ratio"] == 1
            assert admit["retry_after_seconds"] >= 1
            assert limits[0].status_code == 429


def test_a_quota_holds_what_was_really_used():
    """A tenant's share of its daily tokens is the sum of its settled requests and this one's estimate."""
    amount = SupportBot(start_ns=START).limits[1].amount
    used = Counter()
    for request in sorted(REQUESTS, key=lambda event: event.ts_ns):
        admit = BY_REQUEST[request.request_id][1].attributes
        if request.ts_ns < END - MINUTE and admit["allowed"]:
            level = admit["limits"]["tenant-tokens-per-day"]["used_ratio"]
            assert level == round((used[request.tenant] + admit["estimate"]["tokens"]) / amount, 6)
            used[request.tenant] += (request.input_tokens or 0) + (request.output_tokens or 0)
    assert min(used.values()) > 0


def test_calls_carry_what_their_kind_asks_for():
    """Model, tool, documents, prompt version and outcome stand where docs/event.md says."""
    for event in of_kind("llm"):
        assert event.model
        assert event.provider
        assert event.attributes["prompt_version"] == "answer-v14"
        assert event.attributes["input"]
        assert event.error == (event.input_tokens is None) == ("output" not in event.attributes)
    for event in of_kind("embed"):
        assert (event.model, event.output_tokens) == ("text-embedding-3-small", None)
        assert event.input_tokens > 0
    for event in of_kind("retrieve"):
        assert event.tool == "retrieve"
        assert event.error == ("documents" not in event.attributes)
        for document in event.attributes.get("documents", ()):
            assert set(document) == {"id", "score", "content"}
            assert 0 < document["score"] <= 1
    for event in of_kind("rerank"):
        assert all(set(document) == {"id", "score"} for document in event.attributes["documents"])
    assert {event.attributes["action"] for event in of_kind("guardrail")} <= {"allow", "block"}
    assert {event.severity for event in of_kind("log")} == {"DEBUG", "INFO", "WARN", "ERROR"}
    assert all(event.message and event.attributes["logger"] for event in of_kind("log"))


def test_failures_tell_the_same_story_with_changing_numbers():
    """A timed-out retrieval names its time, index and attempt, so that a fingerprint has something to mask."""
    messages = {event.message for event in of_kind("retrieve") if event.error}
    assert "retrieve timed out after 3000ms for index kb-prod-7 (attempt 2 of 3)" in messages
    assert len(messages) > 5
    assert {event.error_type for event in of_kind("retrieve") if event.error} == {"TimeoutError"}
    refused = {(event.error_type, event.status_code) for event in of_kind("llm") if event.error}
    assert refused == {("upstream_429", 429)}


def test_summaries_are_json_unless_they_are_malformed():
    """The summary route answers with a JSON object; a broken one is a 502 of the application."""
    summaries = [event for event in REQUESTS if event.route == "support.summary"]
    for event in summaries:
        if event.attributes.get("finish_reason") == "stop":
            assert set(json.loads(event.attributes["output"])) == {"topic", "summary", "resolved"}
    broken = [event for event in summaries if event.attributes.get("finish_reason") == "length"]
    assert broken
    assert {(event.status_code, event.error_type) for event in broken} == {(502, "InvalidJSON")}
    for event in broken:
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            json.loads(event.attributes["output"])


def test_gauges_and_deploys_are_marked_in_time():
    """Three gauges every fifteen seconds with value and limit; a bad release is deployed and rolled back."""
    gauges = of_kind("gauge")
    assert len(gauges) == 3 * 4 * 60
    cache = [event.attributes for event in gauges if "cache" in event.attributes["name"]]
    assert {tuple(sorted(event.attributes)) for event in gauges if event.attributes not in cache} == {
        ("limit", "name", "unit", "value")
    }
    assert {each["queue"] for each in cache} == {"vllm:num_requests_waiting"}
    assert [(e.release, (e.ts_ns - START) // MINUTE, e.message) for e in of_kind("deploy")] == [
        ("4.1.0", 50, "deployed 4.1.0"),
        ("4.0.0", 58, "deployed 4.0.0"),
    ]
