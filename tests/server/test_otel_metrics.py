"""An unmodified OpenTelemetry SDK sends metrics, and each data point is found again; a full cache pages when it may."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

LLAMA = {"model_name": "llama-3.3-70b", "engine": "0"}
KINDS = [
    ("connections", "sum"),
    ("duration", "histogram"),
    ("sizes", "exponential_histogram"),
    ("tokens", "sum"),
    ("vllm_num_requests_running", "gauge"),
]


def measured(exporter, record, *, service="vllm"):
    """Let an application record with a meter, and its exporter send everything once."""
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    views = [View(instrument_name="sizes", aggregation=ExponentialBucketHistogramAggregation())]
    resource = {"service.name": service, "service.version": "0.11.0", "service.instance.id": "gpu-1"}
    provider = MeterProvider([reader], Resource.create(resource), views=views)
    record(provider.get_meter("app"))
    provider.force_flush()
    provider.shutdown()


def everything(meter):
    """Record with every kind of instrument that the SDK has."""
    meter.create_gauge("vllm_num_requests_running").set(7, LLAMA)
    meter.create_counter("tokens", unit="{token}").add(120, LLAMA)
    meter.create_up_down_counter("connections").add(3)
    for seconds in (0.2, 0.9, 4.0):
        meter.create_histogram("duration", unit="s", explicit_bucket_boundaries_advisory=[0.5, 1]).record(seconds)
        meter.create_histogram("sizes").record(seconds)


def points(server, *, service):
    """Return the gauge events of a service with their names."""
    found = server.ask(f"/api/logs?limit=100&q=event:gauge+service:{service}")["events"]
    return [(event["attributes"]["name"], event) for event in found]


def test_every_instrument_is_found_again_however_it_is_packed(server):
    """Each instrument is one event per point, with what it says, for every packing and both temporalities, once."""
    for compression in (Compression.NoCompression, Compression.Gzip, Compression.Deflate):
        exporter = OTLPMetricExporter(f"{server.url}/v1/metrics", compression=compression)
        original = exporter.export
        exporter.export = lambda data, *more, send=original, **options: send(data, *more, **options) and send(data)
        measured(exporter, everything, service=compression.value)
        found = points(server, service=compression.value)
        assert sorted((name, event["attributes"]["type"]) for name, event in found) == KINDS
    by_name = dict(found)
    running = by_name["vllm_num_requests_running"]
    assert (running["model"], running["release"]) == (LLAMA["model_name"], "0.11.0")
    assert (running["attributes"]["value"], running["attributes"]["labels"]) == (7, LLAMA)
    assert running["attributes"]["instance"] == "gpu-1"
    tokens, connections = by_name["tokens"]["attributes"], by_name["connections"]["attributes"]
    assert (tokens["value"], tokens["temporality"], tokens["monotonic"]) == (120, "cumulative", True)
    assert (connections["value"], connections["monotonic"]) == (3, False)
    duration, sizes = by_name["duration"]["attributes"], by_name["sizes"]["attributes"]
    assert (duration["bounds"], duration["buckets"], duration["count"]) == ([0.5, 1.0], [1, 1, 1], 3)
    assert (duration["sum"], duration["min"], duration["max"]) == (pytest.approx(5.1), 0.2, 4.0)
    assert (sum(sizes["positive"]["buckets"]), sizes["zero_count"]) == (3, 0)

    delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
    exporter = OTLPMetricExporter(f"{server.url}/v1/metrics", preferred_temporality=delta)
    measured(exporter, everything, service="delta")
    said = {name: event["attributes"].get("temporality") for name, event in points(server, service="delta")}
    assert (said["tokens"], said["duration"], said["connections"]) == ("delta", "delta", "cumulative")

    command = [sys.executable, "-m", "opsloop.cli", "logs", "name:duration service:delta", "--url", server.url]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.count("duration 3 values, sum 5.1") == 1


def serving(waiting):
    """Record what a vLLM server says with a full cache: so many of its five waiting requests wait for capacity."""

    def record(meter):
        meter.create_gauge("vllm_kv_cache_usage_perc").set(0.97, LLAMA)
        meter.create_gauge("vllm_num_requests_waiting").set(5, LLAMA)
        meter.create_up_down_counter("pool").add(15)
        queue = meter.create_gauge("vllm_num_requests_waiting_by_reason")
        queue.set(waiting, {**LLAMA, "reason": "capacity"})
        queue.set(5 - waiting, {**LLAMA, "reason": "deferred"})

    return record


def test_a_full_cache_is_saturation_only_while_requests_wait_for_it(new_server):
    """97 % of the cache is well until a request waits for capacity; before, a gauge of the settings is the fullest."""
    server = new_server()
    server.config.write_text('[[gauge]]\nname = "pool"\nlimit = 20\n')
    server.start()
    cache = "vllm_kv_cache_usage_perc"
    for waiting, verdict, ratio, fullest in ((0, "OK", 0.75, "pool"), (2, "BREACH", 0.97, cache)):
        measured(OTLPMetricExporter(f"{server.url}/v1/metrics"), serving(waiting))
        readings = {reading["id"]: reading for reading in server.ask("/api/signals?from=5m")["readings"]}
        found = readings["saturation"]
        assert (found["verdict"], found["value"]) == (verdict, ratio)
        assert f"({fullest})" in found["reason"]
