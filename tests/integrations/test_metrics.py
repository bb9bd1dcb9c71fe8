"""What a scrape shows: parsed by the reference parser, and equal to what the rooms say."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock
from opsloop.dashboard import Window, count_slo, signals
from opsloop.event import INT64_MAX, Event
from opsloop.ingest import mapping
from opsloop.integrations import counters as counters_module
from opsloop.integrations import grouping
from opsloop.integrations.counters import BOUNDS_US, MOST_LABEL_SETS, OTHER, SignalCounters, bounds_of
from opsloop.integrations.exposition import Exemplar, Family, Sample, render
from opsloop.integrations.prometheus import SignalGauges
from opsloop.settings import ObjectiveSettings, Settings, SloSettings
from opsloop.store.columns import record_batch
from opsloop.store.stored import Stored
from tests.dashboard.traffic import END_NS, MINUTE_NS, streams
from tests.integrations.promtool import needs_promtool

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client is not installed")
modern = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus-client is not installed")

SLOS = (
    SloSettings(id="up", target=0.995),
    SloSettings(id="fast", sli="latency", target=0.95, threshold_us=1_500_000),
    SloSettings(id="first", sli="time_to_first_token", target=0.9, threshold_us=500_000, labels={"tenant": "acme"}),
    SloSettings(id="good", sli="quality", target=0.8, period_days=7),
    SloSettings(id="useful", sli="goodput", target=0.9, threshold_us=1_500_000, period_days=7),
)
SETTINGS = Settings(slo=SLOS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(lambda text: text.replace("\r", ""))


def samples(text):
    """Parse a scrape with the reference parser into {(name, labels): value}."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in modern.text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(events, *, now_ns=END_NS):
    """Return the counters of these events."""
    counters = SignalCounters(SETTINGS, ManualClock(now_ns))
    counters.add(events)
    return counters


@given(label=texts, value=st.floats(allow_nan=False), count=st.integers(0, 2**53))
def test_whatever_a_label_holds_it_is_read_back(label, value, count):
    """Both reference parsers read what was written, whatever the text and the number."""
    families = [
        Family("level", "gauge", "A level.", (Sample(value, {"name": label}),)),
        Family("seen", "counter", "A count\nof\\things.", (Sample(count, {"name": label}),)),
    ]
    key = (("name", label),)
    assert samples(render(families, openmetrics=True)) == {("level", key): value, ("seen_total", key): count}
    plain = {
        (sample.name, sample.labels["name"]): sample.value
        for family in parser.text_string_to_metric_families(render(families))
        for sample in family.samples
    }
    assert plain == {("level", label): value, ("seen_total", label): count}


@settings(max_examples=40, deadline=None)
@given(events=streams)
def test_the_counters_are_the_plain_counts(events):
    """Each objective's counters, the requests and the histograms count what the rooms count over the same events."""
    recent = [event for event in events if END_NS - 60 * MINUTE_NS < event.ts_ns <= END_NS]
    found = samples(render(counted(recent).families(), openmetrics=True))
    for slo in SLOS:
        if slo.sli == "goodput":
            continue
        (count,) = count_slo(slo, recent, end_ns=END_NS, windows=[3600.0]).values()
        labels = (("slo", slo.id),)
        assert found["opsloop_slo_events_total", labels] == count.total
        assert found["opsloop_slo_bad_events_total", labels] == count.bad
    whole = signals(Window.of(recent, start_ns=END_NS - 60 * MINUTE_NS, end_ns=END_NS))
    assert _sum(found, "opsloop_requests_total") == whole.errors.requests
    assert _sum(found, "opsloop_requests_total", outcome="rejected") == whole.errors.rejected
    assert _sum(found, "opsloop_request_errors_total") == whole.errors.failed
    assert _sum(found, "opsloop_request_duration_seconds_count") == whole.latency.served.n
    assert _sum(found, "opsloop_time_to_first_token_seconds_count") == whole.latency.first_token.n
    scored = [_sum(found, "opsloop_scores_total", outcome=outcome) for outcome in ("good", "poor")]
    assert sum(scored) == whole.quality.scored
    fast = sum(event.duration_us <= 1_500_000 for event in _served(recent))
    assert _sum(found, "opsloop_request_duration_seconds_bucket", le="1.5") == fast


def _served(events):
    served = [event for event in events if event.event == "request" and event.error_type != "rate_limited"]
    return [event for event in served if event.duration_us is not None]


def _sum(found, name, **labels):
    wanted = set(labels.items())
    return sum(value for (each, pairs), value in found.items() if each == name and wanted <= set(pairs))


@settings(max_examples=25, deadline=None)
@given(events=streams, cut=st.integers(0, 20))
def test_batches_do_not_matter(events, cut):
    """Counters are the same however the events come in pieces."""
    pieces = SignalCounters(SETTINGS, ManualClock(END_NS))
    pieces.add(events[:cut])
    pieces.add(events[cut:])
    assert pieces.families() == counted(events).families()


words = st.sampled_from(["", "a", "b", "200"])
limits = st.sampled_from([25_000, 1_500_000, 1_500_001])
amounts = st.none() | limits | st.sampled_from([0, 1, 2**62, INT64_MAX])
kinds = st.builds(
    lambda trace_id, **told: Event(event_id=f"{trace_id}:s", trace_id=trace_id, span_id="s", **told),
    ts_ns=st.sampled_from([END_NS, END_NS + 1, END_NS + 2, END_NS - 60 * MINUTE_NS, END_NS - 60 * MINUTE_NS - 1]),
    event=st.sampled_from(["request", "request", "request", "llm", "llm", "embed", "new"]),
    trace_id=words,
    service=st.sampled_from(["a", "200"]),
    route=words,
    model=words,
    tenant=words,
    severity=st.sampled_from(["INFO", "ERROR"]),
    status_code=st.none() | st.just(200),
    error=st.booleans(),
    error_type=st.sampled_from(["", "", "timeout", "rate_limited"]),
    attributes=st.dictionaries(
        st.sampled_from(["a", "a.b", "leaves"]), words | st.sampled_from([200, True, ["a"]]), min_size=1
    ),
)


@st.composite
def batches(draw):
    """Batches of spans that are alike but for what is measured, and whether each comes as rows."""
    alike = draw(st.lists(kinds, min_size=9, max_size=15))
    measured = dict.fromkeys(("duration_us", "time_to_first_token_us", "input_tokens", "output_tokens"), amounts)
    spans = st.builds(
        lambda kind, **told: kind.replace(**told),
        st.sampled_from(alike), request_id=words, cost_microusd=amounts, **measured,
    )  # fmt: skip
    return draw(st.lists(st.tuples(st.booleans(), st.lists(spans, min_size=9, max_size=40)), min_size=1, max_size=3))


objectives = st.lists(
    st.builds(
        SloSettings,
        id=st.sampled_from(["one", "two", "three"]),
        sli=st.sampled_from(["availability", "latency", "time_to_first_token", "quality", "goodput"]),
        threshold_us=st.none() | limits,
        labels=st.dictionaries(
            st.sampled_from(["service", "tenant", "attributes.tenant", "status_code", "attributes.a", "a.b", "leaves"]),
            st.just("200"),
            max_size=1,
        )
        | st.sampled_from([{"event_id": "a:s"}, {"error": "true"}, {"severity": "error", "a": "true"}, {"route": ""}]),
    ),
    max_size=3,
    unique_by=lambda slo: slo.id,
)


def test_rows_count_as_the_events_that_they_are(monkeypatch):
    """However events come, as they are or as rows, they are in the same families, and so are exemplars and the rest."""
    monkeypatch.setattr(counters_module, "MOST_LABEL_SETS", 2)
    monkeypatch.setattr(counters_module, "LEAST_ROWS", 50)
    monkeypatch.setattr(grouping, "MOST_ROWS", 25)

    @settings(max_examples=150, deadline=None)
    @given(slos=objectives, batches=batches())
    def agrees(slos, batches):
        clock = ManualClock(END_NS)
        plain, fast = (SignalCounters(Settings(slo=tuple(slos)), clock) for _ in range(2))
        for as_rows, batch in batches:
            plain.add(batch)
            stored = Stored([], [record_batch(batch, 1)]) if as_rows else Stored(batch, [])
            assert list(stored) == batch
            fast.add(stored.events, rows=stored.rows)
            clock.advance(seconds=1)
        assert fast.families() == plain.families()

    agrees()


def test_no_span_is_a_score():
    """Rows are spans, and what is asked of rows is asked of no score."""
    assert "score" not in mapping.KINDS.values()


def test_every_threshold_is_a_bucket_end():
    """A rule on a threshold finds its series: SLOs and latency objectives add their own bounds."""
    slow = ObjectiveSettings(id="slow", group="latency", measure="latency_us_p95", threshold=1_234_567)
    bounds = bounds_of(Settings(slo=SLOS, objective=(slow,)))
    assert set(bounds) == {*BOUNDS_US, 1_500_000, 500_000, 1_234_567}


def test_a_bucket_shows_its_latest_request():
    """OpenMetrics carries the id of a request for each bucket, with its duration and time; plain text does not."""
    quick, slow = (
        Event(ts_ns=END_NS, event="request", request_id=name, duration_us=took)
        for name, took in (("req-quick", 40_000), ("req-slow", 3_000_000))
    )
    families = counted([quick, slow]).families()
    text = render(families, openmetrics=True)
    found = {
        sample.labels["le"]: (
            sample.exemplar.labels["request_id"],
            sample.exemplar.value,
            float(sample.exemplar.timestamp),
        )
        for family in modern.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar
    }
    assert found == {
        "0.05": ("req-quick", 0.04, END_NS / 1e9),
        "4.0": ("req-slow", 3.0, END_NS / 1e9),
    }
    assert "req-" not in render(families)


def test_an_exemplar_that_is_too_long_is_left_out():
    """OpenMetrics allows 128 characters; the number itself is kept."""
    sample = Sample(1, {"le": "+Inf"}, "_bucket", Exemplar({"request_id": "x" * 120}, 0.5, 0))
    assert "#" not in render([Family("a", "histogram", "A.", (sample,))], openmetrics=True).splitlines()[2]


def test_labels_cannot_grow_without_limit():
    """Routes beyond the limit are counted together, and none is lost."""
    events = [Event(ts_ns=END_NS, event="request", route=f"/{n}", duration_us=1) for n in range(MOST_LABEL_SETS + 50)]
    found = samples(render(counted(events).families(), openmetrics=True))
    assert _sum(found, "opsloop_requests_total") == len(events)
    assert _sum(found, "opsloop_requests_total", route=OTHER) == 50
    assert _sum(found, "opsloop_request_duration_seconds_count", route=OTHER) == 50


def test_a_late_line_is_counted_as_late_only():
    """History that is loaded today is no traffic of today."""
    old = Event(ts_ns=END_NS - 61 * MINUTE_NS, event="request", error=True)
    found = samples(render(counted([old]).families(), openmetrics=True))
    assert found["opsloop_events_late_total", ()] == 1
    assert found["opsloop_slo_events_total", (("slo", "up"),)] == 0


def test_a_store_tells_its_listeners_what_was_new(clickhouse):
    """An event that is sent twice is counted once."""
    counters = SignalCounters(SETTINGS, ManualClock(END_NS))
    clickhouse.listeners.append(counters.add)
    event = Event(ts_ns=END_NS, event="request", event_id="once", error=True)
    clickhouse.append([event])
    clickhouse.append([event])
    assert samples(render(counters.families(), openmetrics=True))["opsloop_slo_bad_events_total", (("slo", "up"),)] == 1


def test_gauges_say_what_the_rooms_say_and_nothing_of_what_they_do_not_know(clickhouse):
    """Burn, budget, verdicts and quantiles are the rooms' own; what was not measured has no sample."""
    clock = ManualClock(END_NS)
    events = [
        Event(ts_ns=END_NS - n * MINUTE_NS // 60, event="request", error=n < 20, duration_us=400_000 + n)
        for n in range(200)
    ]
    clickhouse.append(events)
    gauges = SignalGauges(clickhouse, SETTINGS, clock)
    found = samples(render(gauges.families(), openmetrics=True))
    assert found["opsloop_slo_burn", (("slo", "up"), ("window", "1h"))] == 20.0
    assert found["opsloop_slo_window_bad_events", (("slo", "useful"), ("window", "7d"))] == 20
    assert found["opsloop_slo_budget_remaining_ratio", (("slo", "up"),)] == -19.0
    assert found["opsloop_request_duration_quantile_seconds", (("rank", "p50"),)] == 0.4000995
    assert found["opsloop_objective_verdict", (("objective", "errors"), ("verdict", "BREACH"))] == 1
    assert found["opsloop_objective_verdict", (("objective", "quality"), ("verdict", "NO_DATA"))] == 1
    assert found["opsloop_objective_verdict", (("objective", "burn-up"), ("verdict", "BREACH"))] == 1
    assert not [
        name for name, labels in found if name == "opsloop_objective_value" and ("objective", "quality") in labels
    ]
    assert not [name for name, labels in found if name == "opsloop_slo_burn" and ("slo", "good") in labels]
    clickhouse.append([Event(ts_ns=END_NS, event="request", error=True)])
    assert gauges.families() is gauges.families(), "a second scrape reads nothing"
    clock.advance(seconds=SETTINGS.server.evaluate_seconds)
    again = samples(render(gauges.families(), openmetrics=True))
    assert again["opsloop_slo_window_bad_events", (("slo", "up"), ("window", "5m"))] == 21


@needs_promtool
def test_promtool_finds_nothing_to_lint(clickhouse):
    """Names, units, help texts and types are as Prometheus wants them."""
    clickhouse.append([Event(ts_ns=END_NS - 1, event="request", request_id="a", duration_us=5, error=True)])
    families = counted([Event(ts_ns=END_NS, event="request", duration_us=5, error=True)]).families()
    families += SignalGauges(clickhouse, SETTINGS, ManualClock(END_NS)).families()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=render(families), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
