"""OTLP metrics, protobuf and JSON, become gauges; what is no measurement is rejected alone and by name."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from opsloop.errors import PayloadError
from opsloop.event import decode_event, encode_event
from opsloop.ingest import read_json_lines, read_logs, read_metrics, read_traces
from opsloop.settings import GaugeSettings

NOW = 1_767_600_000_000_000_000
LLAMA = {"model_name": "llama", "engine": "0"}


def pairs(attributes):
    """Return texts as OTLP key-value pairs."""
    return [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in attributes.items()]


def request(*metrics, service="vllm"):
    """Return an export request of these metrics."""
    found = ExportMetricsServiceRequest()
    group = found.resource_metrics.add()
    group.resource.attributes.extend(pairs({"service.name": service}))
    group.scope_metrics.add().metrics.extend(metrics)
    return found


def gauge(name, value, *, labels=None, **fields):
    """Return a gauge with one point."""
    metric = Metric(name=name)
    point = metric.gauge.data_points.add(**{"time_unix_nano": NOW, "as_double": value, **fields})
    point.attributes.extend(pairs(LLAMA if labels is None else labels))
    return metric


def read(*metrics, **options):
    """Return what protobuf makes of these metrics."""
    return read_metrics(request(*metrics).SerializeToString(), json=False, **options)


numbers = st.floats(allow_nan=False, allow_infinity=False)
times = {"time_unix_nano": st.just(NOW), "start_time_unix_nano": st.integers(0, NOW)}
labelled = {"attributes": st.dictionaries(st.sampled_from(["a", "model", "größe"]), st.text(max_size=3)).map(pairs)}
bounds = st.lists(numbers, max_size=4, unique=True).map(sorted)


def histogram(draw):
    """Fill a point of a histogram whose buckets fit its bounds and its count."""
    edges = draw(bounds)
    buckets = [draw(st.integers(0, 9)) for _ in range(len(edges) + 1)]
    return {"explicit_bounds": edges, "bucket_counts": buckets, "count": sum(buckets), "sum": draw(numbers)}


def exponential(draw):
    """Fill a point of an exponential histogram."""
    sides = {side: draw(st.lists(st.integers(0, 9), max_size=4)) for side in ("positive", "negative")}
    zero = draw(st.integers(0, 3))
    return {
        **{side: {"offset": draw(st.integers(-9, 9)), "bucket_counts": counts} for side, counts in sides.items()},
        "zero_count": zero,
        "scale": draw(st.integers(-4, 8)),
        "count": zero + sum(map(sum, sides.values())),
        "max": draw(numbers),
    }


def summary(draw):
    """Fill a point of a summary."""
    values = [{"quantile": draw(st.floats(0, 1)), "value": draw(numbers)} for _ in range(draw(st.integers(0, 2)))]
    return {"quantile_values": values, "count": draw(st.integers(0, 9)), "sum": draw(numbers)}


def number(draw):
    """Fill a point of a gauge or sum."""
    return draw(
        st.builds(lambda n: {"as_int": n}, st.integers(-(2**63), 2**63 - 1)) | numbers.map(lambda n: {"as_double": n})
    )


FORMS = {
    "gauge": number,
    "sum": number,
    "histogram": histogram,
    "exponential_histogram": exponential,
    "summary": summary,
}


@st.composite
def any_metric(draw):
    """Build any metric that says what it means."""
    form = draw(st.sampled_from(sorted(FORMS)))
    metric = Metric(
        name=draw(st.sampled_from(["queue", "größe", "vllm:kv_cache_usage_perc"])),
        unit=draw(st.sampled_from(["", "s"])),
    )
    data = getattr(metric, form)
    data.SetInParent()
    if form not in {"gauge", "summary"}:
        data.aggregation_temporality = draw(st.sampled_from([1, 2]))
    if form == "sum":
        data.is_monotonic = draw(st.booleans())
    for _ in range(draw(st.integers(0, 3))):
        common = {name: draw(strategy) for name, strategy in {**times, **labelled}.items()}
        data.data_points.add(**common, **FORMS[form](draw))
    return metric


@settings(max_examples=60, deadline=None)
@given(metrics=st.lists(any_metric(), max_size=3))
def test_protobuf_and_json_say_the_same(metrics):
    """Every point is one event, the same in both encodings, under the same identity; nothing is rejected."""
    sent = request(*metrics)
    encoded = json.dumps(MessageToDict(sent, use_integers_for_enums=True)).encode()
    from_proto, from_json = read_metrics(sent.SerializeToString(), json=False), read_metrics(encoded, json=True)
    assert from_proto == from_json
    assert from_proto.rejected == 0
    assert len(from_proto.events) == sum(len(getattr(each, each.WhichOneof("data")).data_points) for each in metrics)
    assert [decode_event(encode_event(event)) for event in from_proto.events] == from_proto.events


def test_a_point_keeps_all_that_it_says():
    """Name, type, unit, value, labels, and whose it is; a distribution has counts and no value."""
    metric = Metric(name="wait", unit="s")
    metric.histogram.aggregation_temporality = 2
    metric.histogram.data_points.add(
        time_unix_nano=NOW,
        start_time_unix_nano=5,
        count=3,
        sum=2.5,
        max=2.0,
        bucket_counts=[1, 2],
        explicit_bounds=[0.5],
    )
    event, running = read(metric, gauge("running", 7.0)).events
    series = event.attributes.pop("series")
    assert event.attributes == {
        "name": "wait",
        "type": "histogram",
        "unit": "s",
        "temporality": "cumulative",
        "count": 3,
        "sum": 2.5,
        "max": 2.0,
        "bounds": [0.5],
        "buckets": [1, 2],
        "start_ts_ns": 5,
    }
    assert (event.ts_ns, event.service, event.message) == (NOW, "vllm", "wait 3 values, sum 2.5 s")
    assert (running.model, running.attributes["labels"], running.message) == ("llama", LLAMA, "running 7.0")
    assert running.attributes["series"] != series


def broken(form, **fields):
    """Return a metric of a form with one point."""
    metric = Metric(name="bad")
    data = getattr(metric, form)
    if form != "gauge":
        data.aggregation_temporality = 2
    data.data_points.add(**{"time_unix_nano": NOW, **fields})
    return metric


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (broken("gauge", as_double=float("nan")), "asDouble is NaN or infinite, which is no measurement"),
        (broken("sum", as_double=float("-inf")), "asDouble is NaN or infinite, which is no measurement"),
        (broken("gauge", flags=1), "a point carries the flag that nothing was recorded"),
        (broken("gauge", as_int=1, time_unix_nano=0), "timeUnixNano of a point is missing"),
        (broken("gauge", as_int=1, time_unix_nano=2**64 - 1), "timeUnixNano is out of range: 18446744073709551615"),
        (broken("gauge"), "a point has neither asInt nor asDouble"),
        (broken("histogram", count=2, bucket_counts=[2]), ""),
        (broken("histogram", count=2, bucket_counts=[1, 1]), "0 explicitBounds need 1 bucketCounts, got 2"),
        (broken("histogram", count=3, bucket_counts=[1, 1], explicit_bounds=[1]), "count is 3, the buckets hold 2"),
        (
            broken("histogram", count=0, bucket_counts=[0, 0, 0], explicit_bounds=[2, 1]),
            "explicitBounds do not increase",
        ),
        (broken("histogram", count=1, sum=float("nan")), "sum is NaN or infinite, which is no measurement"),
        (broken("exponential_histogram", count=4, zero_count=1), "count is 4, the buckets hold 1"),
        (
            Metric(name="bad", sum={"data_points": [{"time_unix_nano": NOW, "as_int": 1}]}),
            "aggregationTemporality is 0; 1 is delta, 2 is cumulative",
        ),
    ],
)
def test_what_is_no_measurement_is_rejected_alone(metric, reason):
    """The point is counted under its metric's name with what is wrong, in both encodings; its neighbours are kept."""
    sent = request(gauge("good", 1.0), metric, gauge("good", 2.0))
    for batch in (
        read_metrics(sent.SerializeToString(), json=False),
        read_metrics(json.dumps(MessageToDict(sent, use_integers_for_enums=True)).encode(), json=True),
    ):
        assert [event.attributes["value"] for event in batch.events if event.attributes["name"] == "good"] == [1.0, 2.0]
        assert batch.reasons == ([f"metric 'bad': {reason}"] if reason else [])
        assert batch.rejected == bool(reason)


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ({"asInt": "many"}, "asInt is no integer: 'many'"),
        ({"asInt": 1.5}, "asInt is no integer: 1.5"),
        ({"asInt": str(2**63)}, "asInt is out of range: 9223372036854775808"),
        ({"asDouble": {}}, "asDouble is no number: {}"),
        ({"asInt": 1, "flags": []}, ""),
        ({"asInt": 1, "labels": [1]}, ""),
        (
            {"asInt": 1, "attributes": {"a": 1}},
            "attributes of a data point is an object, OTLP wants a list of key and value",
        ),
    ],
)
def test_json_written_by_hand_is_rejected_by_point(point, reason):
    """A wrong type inside a point costs that point and says which field it was."""
    points = [{"timeUnixNano": NOW, **point}, {"timeUnixNano": NOW, "asInt": 5}]
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": points}}]}]}]}
    batch = read_metrics(json.dumps(body).encode(), json=True)
    assert batch.events[-1].attributes["value"] == 5
    assert [said.partition(";")[0] for said in batch.reasons] == ([f"metric 'm': {reason}"] if reason else [])


@given(body=st.binary(max_size=60), as_json=st.booleans())
def test_no_body_raises_anything_else(body, as_json):
    """Whatever arrives, it is read or refused with a sentence."""
    try:
        read_metrics(body, json=as_json)
    except PayloadError as error:
        assert str(error).startswith("the body is not")  # noqa: PT017 - both outcomes are right


texts = st.sampled_from(["", "m", "NaN", "5", None, 1, -1, 2.5, True, [], {}, [1], {"a": 1}])
shapes = st.recursive(
    texts,
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["name", "gauge", "sum", "histogram", "exponentialHistogram", "summary", "dataPoints", "asInt", "asDouble",
             "timeUnixNano", "attributes", "count", "bucketCounts", "explicitBounds", "positive", "quantileValues",
             "aggregationTemporality", "flags", "key", "value"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=100)
@given(metrics=st.lists(shapes, max_size=3), points=st.lists(shapes, max_size=3))
def test_no_shape_of_json_raises_anything_else(metrics, points):
    """JSON of any shape where metrics and points should be is read, rejected or refused with a sentence."""
    kinds = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
    data = {"dataPoints": points, "aggregationTemporality": 1}
    metrics = [*metrics, *({"name": "m", kind: data} for kind in kinds)]
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
    with suppress(PayloadError):  # both outcomes are right, and no third one
        read_metrics(json.dumps(body).encode(), json=True)


@pytest.mark.parametrize("message", [ExportTraceServiceRequest, ExportLogsServiceRequest])
def test_another_signal_is_not_taken_for_metrics(message):
    """Spans and log records at the metrics path are refused or rejected, never swallowed."""
    sent = message()
    if message is ExportTraceServiceRequest:
        span = (
            sent.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, name="chat")
        )
        span.start_time_unix_nano = NOW
    else:
        sent.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOW, severity_text="INFO")
    try:
        batch = read_metrics(sent.SerializeToString(), json=False)
    except PayloadError as error:
        assert "OTLP protobuf" in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert (batch.events, batch.rejected) == ([], 1)
        assert "were spans or logs sent to the metrics path?" in batch.reason()


@pytest.mark.parametrize(
    ("read_signal", "other", "path"),
    [
        (read_metrics, "resourceSpans", "/v1/traces"),
        (read_traces, "resourceMetrics", "/v1/metrics"),
        (read_logs, "resourceSpans", "/v1/traces"),
    ],
)
def test_a_json_body_of_another_signal_names_the_path(read_signal, other, path):
    """Without its own groups it would be an empty request, and everything in it lost with a 200."""
    with pytest.raises(PayloadError, match=f"the body holds {other}, not .*; send it to {path}"):
        read_signal(json.dumps({other: []}).encode(), json=True)


def test_a_body_that_is_sent_again_has_the_same_identities():
    """Two points that differ in anything, also at one instant, are two events; the same point is the same event."""
    sent = [gauge("queue", 1.0), gauge("queue", 2.0), gauge("queue", 1.0, labels={"engine": "1"}), gauge("depth", 1.0)]
    first, again = read(*sent), read(*sent)
    assert first == again
    assert len({event.event_id for event in first.events}) == 4


@pytest.mark.parametrize("colon", [":", "_"])
def test_model_servers_caches_know_their_limit_and_queue(colon):
    """The caches of vLLM and its peers get limit and queue, in one series with the requests that wait for capacity."""
    names = [
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "llamacpp:kv_cache_usage_ratio",
    ]
    caches = [gauge(name.replace(":", colon), 0.5) for name in names]
    queue = "vllm:num_requests_waiting_by_reason".replace(":", colon)
    parts = [gauge(queue, 2.0, labels={**LLAMA, "reason": reason}) for reason in ("capacity", "deferred")]
    *found, capacity, deferred = read(*caches, *parts).events
    vllm = f"vllm{colon}num_requests_waiting_by_reason vllm{colon}num_requests_waiting"
    assert [(event.attributes["limit"], event.attributes["queue"]) for event in found] == [
        (1.0, vllm),
        (1.0, vllm),
        (1.0, f"sglang{colon}num_queue_reqs"),
        (1.0, f"llamacpp{colon}requests_deferred"),
    ]
    assert "limit" not in capacity.attributes
    assert capacity.attributes["series"] == found[0].attributes["series"] != deferred.attributes["series"]


def test_settings_give_any_gauge_its_limit():
    """A ``[[gauge]]`` counts for OTLP and for JSON lines; a counter is no level, and a limit that came along stays."""
    gauges = [GaugeSettings(name="pool", limit=20), GaugeSettings(name="vllm:kv_cache_usage_perc", limit=0.5)]
    counter = Metric(name="pool")
    counter.sum.aggregation_temporality = 2
    counter.sum.is_monotonic = True
    counter.sum.data_points.add(time_unix_nano=NOW, as_int=900)
    level = Metric(name="pool")
    level.sum.aggregation_temporality = 2
    level.sum.data_points.add(time_unix_nano=NOW, as_int=9)
    found = read(gauge("pool", 5.0), counter, level, gauge("vllm:kv_cache_usage_perc", 0.4), gauges=gauges).events
    assert [(event.attributes.get("limit"), event.attributes.get("queue")) for event in found] == [
        (20, None),
        (None, None),
        (20, None),
        (0.5, None),
    ]
    lines = [
        {"ts_ns": 1, "event": "gauge", "attributes": {"name": "pool", "value": 3, **more}}
        for more in ({}, {"limit": 4})
    ]
    batch = read_json_lines("\n".join(map(json.dumps, lines)).encode(), gauges=gauges)
    assert [event.attributes["limit"] for event in batch.events] == [20, 4]
