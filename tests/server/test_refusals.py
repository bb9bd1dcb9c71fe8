"""What cannot be stored now is to be sent again, what can never be stored says why: the same for every signal."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.testclient import TestClient

from opsloop.clock import SystemClock
from opsloop.ingest.body import zstd
from opsloop.server import Runtime, build_app
from opsloop.settings import ServerSettings, Settings

PROTOBUF = "application/x-protobuf"
PATHS = ["/v1/traces", "/v1/logs", "/v1/metrics"]


@pytest.fixture
def runtime(clickhouse):
    """A runtime over an empty store that takes bodies of up to 4,000 bytes."""
    with Runtime(Settings(server=ServerSettings(max_body_bytes=4000)), database=clickhouse) as runtime:
        yield runtime


@pytest.fixture
def client(runtime):
    """A client of the application, without a port."""
    return TestClient(build_app(runtime), base_url="http://127.0.0.1")


def body(path):
    """Return a good protobuf body for a path, with one record of now."""
    now_ns = SystemClock().now_ns()
    match path:
        case "/v1/traces":
            sent = ExportTraceServiceRequest()
            span = sent.resource_spans.add().scope_spans.add().spans.add(name="a", start_time_unix_nano=now_ns)
            span.trace_id, span.span_id = b"\1" * 16, b"\2" * 8
        case "/v1/logs":
            sent = ExportLogsServiceRequest()
            sent.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=now_ns)
        case _:
            sent = ExportMetricsServiceRequest()
            metric = sent.resource_metrics.add().scope_metrics.add().metrics.add(name="queue")
            metric.gauge.data_points.add(time_unix_nano=now_ns, as_int=3)
    return sent.SerializeToString()


@pytest.mark.parametrize("path", PATHS)
def test_zstd_bodies_are_stored(client, clickhouse, path):
    """A body packed with zstd is taken like any other."""
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": "zstd"}
    assert client.post(path, content=zstd.compress(body(path)), headers=headers).status_code == 200
    assert len(clickhouse.query()) == 1


@pytest.mark.parametrize("path", PATHS)
def test_what_cannot_be_stored_now_is_to_be_sent_again(client, runtime, path):
    """A closing or full store answers 503 with a second to wait and a Status that says why; nothing is lost by it."""
    runtime.commits.close()
    answer = client.post(path, content=body(path), headers={"Content-Type": PROTOBUF})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["Content-Type"] == PROTOBUF
    assert answer.content.endswith(b"the server is stopping; send again in a moment")
    assert runtime.counters["bodies_refused"] == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content", "headers", "status", "says"),
    [
        (b"\xff\xff\xff", {"Content-Type": PROTOBUF}, 400, "the body is not OTLP protobuf"),
        (b"{", {"Content-Type": "application/json; charset=utf-8"}, 400, "the body is not JSON"),
        (b"[]", {"Content-Type": "application/json"}, 400, "the body is not a JSON object"),
        (b"x", {"Content-Type": "text/html"}, 415, "unknown content type 'text/html'"),
        (b"x", {"Content-Type": PROTOBUF, "Content-Encoding": "br"}, 415, "send gzip, deflate, zstd or none"),
        (b"x", {"Content-Type": PROTOBUF, "Content-Encoding": "zstd"}, 400, "the body is not zstd"),
        (b"x" * 5000, {"Content-Type": PROTOBUF}, 413, "the body is over 4000 bytes"),
        (
            zstd.compress(b"0" * 100_000),
            {"Content-Type": PROTOBUF, "Content-Encoding": "zstd"},
            413,
            "the body is over 4000 bytes",
        ),
    ],
)
def test_what_can_never_be_stored_says_why(client, clickhouse, path, content, headers, status, says):
    """4xx, which no exporter sends again, with a sentence and, for an unknown type or packing, what is taken."""
    answer = client.post(path, content=content, headers=headers)
    assert answer.status_code == status
    assert says in answer.text
    assert "Retry-After" not in answer.headers
    assert answer.headers.get("Accept-Encoding") == ("gzip, deflate, zstd" if status == 415 else None)
    assert clickhouse.query() == []


def test_rejected_points_are_counted_in_the_answer_and_in_the_servers_own_metrics(client, runtime, clickhouse):
    """``partial_success`` names the metric in both encodings; the good points are stored."""
    points = [{"timeUnixNano": str(SystemClock().now_ns()), "asDouble": value} for value in (1.5, "NaN")]
    points.append({"asInt": 1})
    sent = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "queue", "gauge": {"dataPoints": points}}]}]}]}
    answer = client.post("/v1/metrics", content=json.dumps(sent), headers={"Content-Type": "application/json"}).json()
    reason = "metric 'queue': asDouble is NaN or infinite, which is no measurement"
    missing = "metric 'queue': timeUnixNano of a point is missing"
    assert answer == {"partialSuccess": {"rejectedDataPoints": 2, "errorMessage": f"{reason}; {missing}"}}
    request = ExportMetricsServiceRequest.FromString(body("/v1/metrics"))
    request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points.add(as_int=4, flags=1)
    content = client.post(
        "/v1/metrics/", content=request.SerializeToString(), headers={"Content-Type": PROTOBUF}
    ).content
    partial = ExportMetricsServiceResponse.FromString(content).partial_success
    assert partial.rejected_data_points == 1
    assert partial.error_message == "metric 'queue': a point carries the flag that nothing was recorded"
    assert [event.attributes["value"] for event in clickhouse.query()] == [1.5, 3]
    assert "opsloop_events_rejected_total 3" in client.get("/metrics").text
