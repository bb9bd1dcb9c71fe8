"""Each fault moves the signals that it should, and no other."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import parse_time, utc
from opsloop.errors import ConfigError
from opsloop.online_eval import SCORERS, answers_from_events
from opsloop.sim import FAULT_KINDS, Fault, SupportBot
from opsloop.sim.faults import share_of

MINUTE = 60 * 10**9
START = parse_time("2026-01-05T14:00:00Z")
END = START + 90 * MINUTE
WINDOW = (START + 30 * MINUTE, START + 60 * MINUTE)
INJECTED = {
    "retriever_outage": Fault("retriever_outage", *WINDOW, 0.5),
    "slow_model": Fault("slow_model", *WINDOW, 3.0),
    "hallucination_drift": Fault("hallucination_drift", *WINDOW, 0.8),
    "tenant_spike": Fault("tenant_spike", *WINDOW, 40.0, "initech"),
    "malformed_output": Fault("malformed_output", *WINDOW, 0.5),
    "upstream_429": Fault("upstream_429", *WINDOW, 0.8),
    "bad_release": Fault("bad_release", *WINDOW, 0.2, "4.1.0"),
}


@functools.cache
def told(kind=""):
    """Return the ninety minutes of a world with one fault, or with none, by request."""
    bot = SupportBot(start_ns=START, faults=(INJECTED[kind],) if kind else ())
    by_request = {}
    for event in bot.events(START, END):
        by_request.setdefault(event.request_id, []).append(event)
    by_request.pop("")
    return by_request


def share(events, test):
    """Return the share of events that pass a test."""
    events = list(events)
    return sum(map(test, events)) / len(events)


def mean_score(requests, scorer):
    """Return the mean score of the answered requests by a scorer of online eval."""
    answers = answers_from_events(event for events in requests for event in events)
    scores = [found.score for answer in answers if (found := SCORERS[scorer].score(answer)).score is not None]
    return sum(scores) / len(scores)


def signals(by_request):
    """Work out a window's signals in plain Python over its requests."""
    inside = [events for events in by_request.values() if WINDOW[0] < events[0].ts_ns <= WINDOW[1]]
    lines = [events[0] for events in inside]
    answered = [events for events in inside if events[0].status_code == 200]
    durations = sorted(events[0].duration_us for events in answered)
    stages = [event for events in inside for event in events]
    return {
        "traffic": len(lines),
        "rejected": share(lines, lambda e: e.status_code == 429),
        "errors": share(lines, lambda e: e.error),
        "latency p95": durations[int(0.95 * len(durations))],
        "retrieval": share((e for e in stages if e.event == "retrieve"), lambda e: e.error),
        "upstream": share((e for e in stages if e.event == "llm"), lambda e: e.error_type == "upstream_429"),
        "cut off": share(
            (e for e in lines if "output" in e.attributes), lambda e: e.attributes["finish_reason"] == "length"
        ),
        "groundedness": mean_score(answered, "groundedness"),
    }


MOVES = {
    "retriever_outage": {"retrieval": (0.4, 0.6), "errors": (0.35, 0.6)},
    "slow_model": {"latency p95": (2.0e6, 3.2e6)},
    "hallucination_drift": {"groundedness": (0.3, 0.55)},
    "tenant_spike": {"traffic": (2_500, 4_500), "rejected": (0.5, 0.9)},
    "malformed_output": {"cut off": (0.35, 0.6), "errors": (0.01, 0.08)},
    "upstream_429": {"upstream": (0.7, 0.9), "errors": (0.3, 0.6), "latency p95": (1.0e6, 1.5e6)},
    "bad_release": {"errors": (0.1, 0.25)},
}
"""The signals that each fault moves, with the range that they come to lie in."""
AT_REST = {
    "traffic": (450, 750),
    "rejected": (0.0, 0.0),
    "errors": (0.0, 0.005),
    "latency p95": (0.7e6, 1.1e6),
    "retrieval": (0.0, 0.005),
    "upstream": (0.0, 0.02),
    "cut off": (0.0, 0.01),
    "groundedness": (0.85, 1.0),
}


def test_at_rest_every_signal_is_believable():
    """Without a fault: p95 around 0.9 s, hardly an error, no rejection, answers grounded in their contexts."""
    for name, value in signals(told()).items():
        low, high = AT_REST[name]
        assert low <= value <= high, (name, value)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_fault_moves_exactly_its_signals(kind):
    """The signals that a fault is about leave their range at rest for the one stated; every other stays in it."""
    for name, value in signals(told(kind)).items():
        low, high = MOVES[kind].get(name, AT_REST[name])
        assert low <= value <= high, (name, value)
        if name in MOVES[kind]:
            calm_low, calm_high = AT_REST[name]
            assert not calm_low <= value <= calm_high, (name, value)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_outside_its_window_a_fault_changes_nothing(kind):
    """Requests that ended before the window are equal, event by event, in the world with and without the fault."""
    for request_id, events in told().items():
        if events[0].ts_ns <= WINDOW[0]:
            assert told(kind)[request_id] == events
    late = [
        request_id
        for request_id, events in told().items()
        if events[0].ts_ns > WINDOW[1] + MINUTE and kind != "tenant_spike"
    ]
    for request_id in late:
        mine, calm = told(kind)[request_id], told()[request_id]
        assert [(e.event, e.duration_us, e.message) for e in mine] == [
            (e.event, e.duration_us, e.message) for e in calm
        ]


@pytest.mark.parametrize("kind", [kind for kind in FAULT_KINDS if kind != "tenant_spike"])
def test_a_fault_never_changes_which_requests_come(kind):
    """Ids, times, people and questions are the same under every fault; only their fate differs."""

    def asked(requests):
        return {(e[0].request_id, e[0].ts_ns, e[0].user_id, e[0].attributes["input"]) for e in requests.values()}

    ended = {r: e for r, e in told(kind).items() if e[0].ts_ns < END - MINUTE}
    assert asked(ended) == asked({r: e for r, e in told().items() if e[0].ts_ns < END - MINUTE})


def test_a_spike_adds_to_one_tenant_only():
    """Every request of the calm world is in the spiked one, and all that is new is the tenant's."""
    assert told().keys() <= told("tenant_spike").keys()
    extra = told("tenant_spike").keys() - told().keys()
    assert {told("tenant_spike")[request_id][0].tenant for request_id in extra} == {"initech"}
    rejected = {e[0].tenant for e in told("tenant_spike").values() if e[0].status_code == 429}
    assert rejected == {"initech"}


def test_a_drift_ramps_up():
    """Invented answers grow over the first half of the window and stay at full strength over the second."""

    def invented(first, last):
        low, high = WINDOW[0] + first * MINUTE, WINDOW[0] + last * MINUTE
        answers = [e for e in told("hallucination_drift").values() if low < e[0].ts_ns <= high]
        return 1 - mean_score([e for e in answers if e[0].status_code == 200], "groundedness")

    assert invented(0, 5) < 0.4 < invented(8, 15) < invented(15, 30)


def test_a_target_limits_a_fault():
    """A slow model slows its own calls only, an upstream refusal strikes its provider only."""
    faults = (
        Fault("slow_model", *WINDOW, 5.0, "llama-3.3-70b"),
        Fault("upstream_429", *WINDOW, 1.0, "anthropic"),
    )
    events = list(SupportBot(start_ns=START, faults=faults).events(*WINDOW))
    calls = [event for event in events if event.event == "llm"]
    assert {e.provider for e in calls if e.error} >= {"anthropic"}
    assert all(e.error for e in calls if e.provider == "anthropic" and WINDOW[0] < e.ts_ns < WINDOW[1] - MINUTE)
    typical = {
        model: sorted(e.duration_us for e in calls if e.model == model and not e.error)
        for model in ("llama-3.3-70b", "gpt-4.1-mini")
    }
    medians = {model: times[len(times) // 2] for model, times in typical.items()}
    assert medians["llama-3.3-70b"] > 3 * medians["gpt-4.1-mini"]


def test_a_slow_hosted_model_fills_its_server():
    """Queue and cache of the model server fill up while the model that it hosts is slow, and only then."""
    bot = SupportBot(start_ns=START, faults=(INJECTED["slow_model"],))
    levels = {True: {}, False: {}}
    for event in bot.events(START, END):
        if event.event == "gauge":
            ratio = event.attributes["value"] / event.attributes["limit"]
            acting = INJECTED["slow_model"].acts_at(event.ts_ns)
            levels[acting].setdefault(event.attributes["name"], []).append(ratio)
    assert max(max(ratios) for ratios in levels[False].values()) < 0.8
    assert min(levels[True]["vllm:num_requests_waiting"]) > 1
    assert min(levels[True]["vllm:kv_cache_usage_perc"]) > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fire", 0, 1, 0.5), f"unknown fault 'fire'; use one of {', '.join(FAULT_KINDS)}"),
        (
            ("upstream_429", 0, 0, 0.5),
            f"upstream_429: the window ({utc(0)}, {utc(0)}] is empty; let it end after it starts",
        ),
        (("slow_model", 0, 1, 1.0), "slow_model: strength 1.0 is no factor above 1; use 3.0, say"),
        (("upstream_429", 0, 1, 1.5), "upstream_429: strength 1.5 is no share in (0, 1]; use 0.5, say"),
        (("upstream_429", 0, 1, float("nan")), "upstream_429: strength nan is no share in (0, 1]; use 0.5, say"),
        (("bad_release", 0, 1, 0.5), "bad_release needs a target; name the tenant or release that it strikes"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(arguments, message):
    """Each wrong argument is named, with what to do."""
    with pytest.raises(ConfigError) as caught:
        Fault(*arguments)
    assert str(caught.value) == message


shares = st.floats(0.001, 1.0)
times = st.integers(0, 100)


@given(st.lists(st.tuples(times, st.integers(1, 50), shares, st.sampled_from(["", "a", "b"])), max_size=4), times)
def test_the_strongest_applicable_fault_counts(drawn, moment):
    """``share_of`` is the largest strength among the faults that act at the moment on the target, or the base."""
    faults = [Fault("upstream_429", start, start + length, size, target) for start, length, size, target in drawn]
    acting = [f.strength for f in faults if f.start_ns < moment <= f.end_ns and f.target in {"", "a"}]
    assert share_of(faults, "upstream_429", moment, "a", base=0.01) == max([0.01, *acting])
    assert share_of(faults, "retriever_outage", moment, "a") == 0.0
