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

RESOURCE = Resource.create({"service.name": "vllm", "service.version": "0.11.0", "service.instance.id": "gpu-1"})
LLAMA = {"model_name": "llama-3.3-70b", "engine": "0"}


def measured(exporter, record):
    """Let an application record with a meter, and its exporter send everything once."""
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    views = [View(instrument_name="sizes", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider([reader], RESOURCE, views=views)
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


def points(server, **where):
    """Return the gauge events of a server by name."""
    line = " ".join(["event:gauge", *(f"{key}:{value}" for key, value in where.items())])
    found = server.ask(f"/api/logs?limit=100&q={line.replace(' ', '+')}")["events"]
    return {event["attributes"]["name"]: event for event in found}


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_every_instrument_is_found_again(server, compression):
    """Gauge, counter, up-and-down counter, histogram and exponential histogram are one event each, with what they say."""
    measured(OTLPMetricExporter(f"{server.url}/v1/metrics", compression=compression), everything)
    found = points(server, service="vllm")
    assert {name: event["attributes"]["type"] for name, event in found.items()} == {
        "vllm_num_requests_running": "gauge",
        "tokens": "sum",
        "connections": "sum",
        "duration": "histogram",
        "sizes": "exponential_histogram",
    }
    running = found["vllm_num_requests_running"]
    assert (running["model"], running["release"], running["attributes"]["labels"]) == (LLAMA["model_name"], "0.11.0", LLAMA)
    assert (running["attributes"]["value"], running["attributes"]["instance"]) == (7, "gpu-1")
    tokens, connections = found["tokens"]["attributes"], found["connections"]["attributes"]
    assert (tokens["value"], tokens["temporality"], tokens["monotonic"]) == (120, "cumulative", True)
    assert (connections["value"], connections["monotonic"]) == (3, False)
    duration, sizes = found["duration"]["attributes"], found["sizes"]["attributes"]
    assert (duration["bounds"], duration["buckets"], duration["count"]) == ([0.5, 1.0], [1, 1, 1], 3)
    assert (duration["sum"], duration["min"], duration["max"]) == (pytest.approx(5.1), 0.2, 4.0)
    assert (sum(sizes["positive"]["buckets"]), sizes["zero_count"]) == (3, 0)
    command = [sys.executable, "-m", "opsloop.cli", "logs", "name:duration", "--url", server.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "duration 3 values, sum 5.1" in said


def test_delta_temporality_is_kept(server):
    """An exporter that sends deltas says so on each event."""
    delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
    measured(OTLPMetricExporter(f"{server.url}/v1/metrics", preferred_temporality=delta), everything)
    found = {name: event["attributes"].get("temporality") for name, event in points(server).items()}
    assert (found["tokens"], found["duration"], found["connections"]) == ("delta", "delta", "cumulative")


def test_sending_a_body_again_stores_it_once(server):
    """A retry after a lost answer adds nothing."""
    exporter = OTLPMetricExporter(f"{server.url}/v1/metrics")
    sent = []
    original = exporter.export

    def twice(data, *arguments, **options):
        sent.append(data)
        original(data, *arguments, **options)
        return original(data, *arguments, **options)

    exporter.export = twice
    measured(exporter, everything)
    assert sent
    assert len(server.ask("/api/logs?limit=100&q=event:gauge")["events"]) == 5


def test_a_full_cache_counts_for_saturation_only_while_requests_wait(server):
    """vLLM's gauges under the names that an SDK may write: 97 % of the cache is no saturation until a request waits for capacity."""

    def serving(waiting):
        def record(meter):
            meter.create_gauge("vllm_kv_cache_usage_perc").set(0.97, LLAMA)
            meter.create_gauge("vllm_num_requests_waiting").set(5, LLAMA)
            queue = meter.create_gauge("vllm_num_requests_waiting_by_reason")
            queue.set(waiting, {**LLAMA, "reason": "capacity"})
            queue.set(5 - waiting, {**LLAMA, "reason": "deferred"})

        return record

    for waiting, ratio in ((0, 0.0), (2, 0.97)):
        measured(OTLPMetricExporter(f"{server.url}/v1/metrics"), serving(waiting))
        found = server.ask("/api/signals?from=5m")["signals"]["saturation"]
        assert (found["resource"], found["ratio"]) == ("vllm_kv_cache_usage_perc", ratio)
