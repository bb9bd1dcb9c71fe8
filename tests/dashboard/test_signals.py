"""The signals: each definition against an oracle of its own, on odd windows too."""

from __future__ import annotations

import statistics

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.dashboard import MEASURES, Window, signals
from opsloop.dashboard.latency import Latency, latency, quantile, rough
from opsloop.errors import InputError
from opsloop.event import Event
from tests.dashboard.traffic import END_NS, MINUTE_NS, streams

START_NS = END_NS - 5 * MINUTE_NS


def window(*events):
    """Put events into a window of five minutes."""
    return Window.of(events, start_ns=START_NS, end_ns=END_NS)


def event(kind, **fields):
    """Build an event at the end of the window."""
    return Event(ts_ns=END_NS, event=kind, **fields)


def gauge(name, value, limit, *, ago_ns=0, **more):
    """Build a gauge with further attributes."""
    attributes = {"name": name, "value": value, "limit": limit, **more}
    return Event(ts_ns=END_NS - ago_ns, event="gauge", attributes=attributes)


@given(st.lists(st.integers(0, 10**9), min_size=2))
def test_quantiles_are_the_inclusive_ones(values):
    """Percentiles agree with the standard library's inclusive method."""
    expected = statistics.quantiles(values, n=100, method="inclusive")
    ranked = sorted(values)
    for percent in (50, 90, 95, 99):
        assert quantile(ranked, percent / 100) == pytest.approx(expected[percent - 1], rel=1e-12)


def test_a_quantile_says_when_it_is_rough():
    """A p95 needs 200 values and a p99 a thousand for ten to lie beyond it; below the median the other side counts."""
    edges = {0.5: 20, 0.9: 100, 0.95: 200, 0.99: 1000, 0.05: 200}
    assert [(q, rough(n - 1, q), rough(n, q)) for q, n in edges.items()] == [(q, True, False) for q in edges]


def test_what_has_no_duration_is_skipped_and_counted():
    """An absent duration is not 0: it is left out of the quantiles and counted beside them."""
    assert latency([None, 100, None]) == Latency(n=1, skipped=2, p50=100, p90=100, p95=100, p99=100)
    assert latency([None]) == Latency(skipped=1)


def test_fast_failures_do_not_flatter_the_successes():
    """Successes, failures and all served requests are told apart, and a rejection is in none of them."""
    found = signals(
        window(
            event("request", duration_us=1000),
            event("request", duration_us=10, error=True),
            event("request", duration_us=1, error_type="rate_limited"),
        )
    ).latency
    assert (found.success.p50, found.error.p50, found.served.p50, found.served.n) == (1000, 10, 505, 2)


def test_tokens_and_cost_are_counted_once():
    """Model calls carry them; the request line repeats them and is read only where there are no calls."""
    line = event("request", input_tokens=100, output_tokens=20, cost_microusd=7)
    calls = [event("llm", input_tokens=60, output_tokens=20, cost_microusd=5), event("embed", input_tokens=40)]
    both, alone = signals(window(line, *calls)), signals(window(line))
    assert (both.traffic.tokens, both.cost.microusd) == (120, 5)
    assert (alone.traffic.tokens, alone.cost.microusd) == (120, 7)


def test_no_requests_is_zero_only_where_something_was_received():
    """A live stream without requests has a rate of 0; a silent one, or one with our own judgements only, has none."""
    rate = MEASURES["requests_per_second"].read
    assert rate(signals(window(event("log")))).value == 0.0
    for silent in ([], [event("breach")], [event("log", service="opsloop")]):
        assert (rate(signals(window(*silent))).value, rate(signals(window(*silent))).n) == (None, 0)


def test_three_kinds_of_429_are_three_stories():
    """Our rejection is no error and in no error ratio, the provider's 429 is counted on calls, a 503 is a 5xx."""
    found = signals(
        window(
            event("request", status_code=429, error_type="rate_limited"),
            event("request", status_code=503, error=True, error_type="upstream_429"),
            event("request", status_code=200),
            event("llm", error=True, error_type="upstream_429"),
        )
    )
    values = {name: MEASURES[name].read(found).value for name in MEASURES if name.endswith("_ratio")}
    assert values == {
        "error_ratio": 0.5,
        "server_error_ratio": 0.5,
        "rejected_ratio": 1 / 3,
        "upstream_429_ratio": 1.0,
        "llm_error_ratio": 1.0,
        "truncated_ratio": None,
        "tool_error_ratio": None,
        "retrieval_error_ratio": None,
        "empty_retrieval_ratio": None,
        "saturation_ratio": None,
        "unscored_ratio": None,
    }
    assert found.errors.by_stage == {"llm": 1}
    assert found.errors.by_type == {"upstream_429": 1}


def test_an_empty_retrieval_is_not_a_failed_one():
    """A retrieval may be an event of its own or a tool call; one that does not say what it found is not empty."""
    found = signals(
        window(
            event("retrieve", attributes={"documents": []}),
            event("tool", tool="retrieve", attributes={"documents": [{"id": "a"}]}),
            event("retrieve"),
            event("retrieve", error=True, attributes={"documents": []}),
        )
    )
    assert MEASURES["empty_retrieval_ratio"].read(found).value == 0.5
    assert MEASURES["retrieval_error_ratio"].read(found).value == 0.25


def test_the_fullest_resource_is_named():
    """Each resource has its own level: a gauge its latest, limits and slots what 19 requests in 20 found at most."""
    limits = {"rpm": {"used_ratio": 0.6}, "tpd": {"used_ratio": 0.2}}
    found = signals(
        window(
            gauge("queue", 50, 50, ago_ns=5),
            gauge("queue", 10, 50),
            gauge("kv_cache", 0.95, None),
            event("limit", attributes={"limits": limits}),
            event("request", attributes={"in_flight": 24}),
        ),
        slots=32,
    ).saturation
    assert (found.resource, found.ratio, found.n) == ("slots", 0.75, 5)
    assert found.by_resource == {"limit rpm": 0.6, "limit tpd": 0.2, "queue": 0.2, "slots": 0.75}


CACHE = {"queue": "by_reason waiting"}


@pytest.mark.parametrize(
    ("cache", "waiting", "expected"),
    [
        (0.97, {}, None),
        (0.97, {"waiting": 0}, 0.0),
        (0.97, {"waiting": 3}, 0.97),
        (0.97, {"waiting": 3, "by_reason": 0}, 0.0),
        (0.97, {"waiting": 0, "by_reason": 1}, 0.97),
        (0.9, {"waiting": 3}, 0.0),
        (0.97, {"other": 3}, None),
    ],
)
def test_a_full_cache_is_short_only_while_somebody_waits(cache, waiting, expected):
    """Two facts are needed: above 0.9, and the first of its queues that is known above 0. No queue known: no level."""
    events = [gauge("cache", cache, 1.0, **CACHE), *(gauge(name, value, None) for name, value in waiting.items())]
    assert signals(window(*events)).saturation.by_resource == ({} if expected is None else {"cache": expected})


def test_each_series_has_its_own_queue():
    """Of two servers only the one with requests waiting is short, and a queue that emptied counts no more."""
    events = [
        gauge("cache", 0.95, 1.0, **CACHE, series="a"),
        gauge("cache", 0.92, 1.0, **CACHE, series="b"),
        gauge("waiting", 9, None, ago_ns=5, series="a"),
        gauge("waiting", 0, None, series="a"),
        gauge("waiting", 1, None, series="b"),
    ]
    found = signals(window(*events)).saturation
    assert (found.ratio, found.n) == (0.92, 2)


def test_an_answer_that_stood_for_ten_counts_for_ten():
    """The mean weights by the inverse of the inclusion probability, and the unscored are counted apart."""
    rows = [
        event("score", attributes={"status": "scored", "score": 0.0, "probability": 0.1}),
        event("score", attributes={"status": "scored", "score": 1.0, "probability": 1.0}),
        event("score", attributes={"status": "unscored"}),
        event("score", attributes={"status": "scored", "score": 7}),
    ]
    found = signals(window(*rows)).quality
    assert (found.mean, found.scored, found.unscored) == (pytest.approx(1 / 11), 2, 1)


def test_a_window_without_time_is_refused():
    """A window that ends where it starts holds nothing by definition, and is a mistake."""
    with pytest.raises(InputError, match="the window's start is not before its end"):
        Window.of([], start_ns=5, end_ns=5)


@given(events=streams, data=st.data())
def test_the_order_of_arrival_does_not_matter(events, data):
    """Any order of events gives the same signals, as long as gauges of one instant keep theirs."""
    calm = [each for each in events if each.event != "gauge"]
    shuffled = data.draw(st.permutations(calm))
    assert signals(window(*shuffled), slots=8) == signals(window(*calm), slots=8)


@given(events=streams)
def test_no_measure_is_ever_nan_or_infinite(events):
    """Whatever arrives, every measure is a finite number or unknown, and unknown exactly when nothing was counted."""
    found = signals(window(*events), slots=8)
    for name, measure in MEASURES.items():
        measured = measure.read(found)
        assert measured.value is None or abs(measured.value) < float("inf"), name
        assert measured.value is None or measured.n > 0, name
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
