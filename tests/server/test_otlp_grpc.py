"""OTLP over gRPC: the unmodified exporters, the same acceptance, and refusals that a client can tell apart."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import msgspec
import pytest

from opsloop.clock import SystemClock
from opsloop.errors import ConfigError
from opsloop.server import Runtime
from opsloop.server.auth import Gatekeeper
from opsloop.server.intake import Intake
from opsloop.settings import ServerSettings, Settings

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter  # noqa: E402 - needs grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: E402
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: E402
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as proto  # noqa: E402
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub  # noqa: E402
from opentelemetry.sdk._logs import LoggerProvider  # noqa: E402
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402

from opsloop.server.otlp_grpc import start_grpc  # noqa: E402 - needs grpc


def free_port():
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def runtime(clickhouse):
    """A runtime over an empty store, with a free gRPC port, that takes bodies of up to 10,000 bytes."""
    settings = Settings(server=ServerSettings(grpc_port=free_port(), max_body_bytes=10_000))
    with Runtime(settings, database=clickhouse) as runtime:
        yield runtime


@contextmanager
def serving(runtime, **tokens):
    """Serve gRPC from a thread while the block runs; yield the address."""
    started, stopping = threading.Event(), threading.Event()
    gate = Gatekeeper(tokens, host="127.0.0.1")

    async def run():
        server = await start_grpc(runtime.settings, Intake(runtime), gate)
        started.set()
        await asyncio.to_thread(stopping.wait)
        await server.stop(1)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(30)
    try:
        yield f"127.0.0.1:{runtime.settings.server.grpc_port}"
    finally:
        stopping.set()
        thread.join()


def send_everything(address, **options):
    """Send one span, one log record and one gauge with the exporters of the SDK."""
    options = {"endpoint": address, "insecure": True, **options}
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(**options)))
    with spans.get_tracer("app").start_as_current_span("POST /chat"):
        pass
    spans.shutdown()
    logs = LoggerProvider()
    logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(**options)))
    logs.get_logger("app").emit(body="index is stale")
    logs.shutdown()
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(**options), float("inf"))])
    meters.get_meter("app").create_gauge("queue").set(3)
    meters.force_flush()
    meters.shutdown()


def gauges(*values, name="queue"):
    """Return an export request of one gauge with a point of now for each value."""
    request = proto.ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    for value in values:
        metric.gauge.data_points.add(time_unix_nano=SystemClock().now_ns(), as_double=value)
    return request


def refused(address, request, *, metadata=(), method=None):
    """Send a request that is refused; return the error."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method) if method else MetricsServiceStub(channel).Export
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=metadata, timeout=30)
        return caught.value


EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


def test_the_exporters_of_the_sdk_are_understood(runtime, clickhouse):
    """Spans, logs and metrics arrive with gzip and a token in the metadata, and are stored when the call returns."""
    with serving(runtime, OPSLOOP_INGEST_TOKEN="in") as address:
        send_everything(address, compression=grpc.Compression.Gzip, headers={"authorization": "Bearer in"})
        found = sorted((event.event, event.message) for event in clickhouse.query())
    assert found == [("gauge", "queue 3"), ("log", "index is stale"), ("request", "POST /chat")]


def test_good_points_are_stored_and_bad_ones_named(runtime, clickhouse):
    """The answer is OK with the same ``partial_success`` as over HTTP, and without one when all is well."""
    with serving(runtime) as address, grpc.insecure_channel(address) as channel:
        export = MetricsServiceStub(channel).Export
        assert not export(gauges(1.0), timeout=30).HasField("partial_success")
        partial = export(gauges(2.0, float("nan")), timeout=30).partial_success
    assert partial.rejected_data_points == 1
    assert partial.error_message == "metric 'queue': asDouble is NaN or infinite, which is no measurement"
    assert sorted(event.attributes["value"] for event in clickhouse.query()) == [1.0, 2.0]


def test_what_can_never_be_stored_is_final(runtime, clickhouse):
    """A body that is no OTLP, one too large before or after unpacking, and a method that is not there: no RetryInfo."""
    with serving(runtime) as address:
        wrong = refused(address, b"\xff\xff\xff", method=EXPORT)
        large = refused(address, gauges(*range(1000)))
        unknown = refused(address, b"", method=EXPORT.replace("Metrics", "Profiles"))
        with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
            bomb = gauges(1.0, name="0" * 5_000_000)
            assert len(gzip.compress(bomb.SerializeToString())) < 10_000
            with pytest.raises(grpc.RpcError) as caught:
                MetricsServiceStub(channel).Export(bomb, timeout=30)
    assert wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert wrong.details().startswith("the body is not OTLP protobuf")
    assert large.code() is caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED
    for error in (wrong, large, unknown, caught.value):
        assert "google.rpc.retryinfo-bin" not in dict(error.trailing_metadata() or ())
    assert clickhouse.query() == []


def test_what_cannot_be_stored_now_is_to_be_sent_again(runtime):
    """UNAVAILABLE with a RetryInfo of a second, where the Python exporter and where every other one looks for it."""
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    runtime.commits.close()
    with serving(runtime) as address:
        error = refused(address, gauges(1.0))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is stopping; send again in a moment",
    )
    trailers = dict(error.trailing_metadata())
    assert RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]).retry_delay.seconds == 1
    status = Status.FromString(trailers["grpc-status-details-bin"])
    info = RetryInfo()
    assert (status.code, status.message) == (14, error.details())
    assert status.details[0].Unpack(info)
    assert info.retry_delay.seconds == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ((), "UNAUTHENTICATED"),
        ((("authorization", "Bearer wrong"),), "UNAUTHENTICATED"),
        ((("authorization", "Bearer out"),), "PERMISSION_DENIED"),
    ],
)
def test_a_token_is_needed_where_one_is_set(runtime, given, code):
    """No token, an unknown one, and one that may only read are told apart."""
    with serving(runtime, OPSLOOP_INGEST_TOKEN="in", OPSLOOP_READ_TOKEN="out") as address:
        assert refused(address, gauges(1.0), metadata=given).code() is grpc.StatusCode[code]


def test_a_port_in_use_is_said(runtime):
    """A second server on the port does not share it in silence."""
    with serving(runtime), pytest.raises(ConfigError, match=r"cannot listen for gRPC on 127\.0\.0\.1:"):
        asyncio.run(start_grpc(runtime.settings, Intake(runtime), Gatekeeper({}, host="127.0.0.1")))


def test_the_server_listens_where_it_is_told_and_stops_cleanly(new_server):
    """``OPSLOOP_GRPC_PORT`` opens the second port beside the first; an interrupt closes both with exit code 0."""
    port = free_port()
    server = new_server(environ={"OPSLOOP_GRPC_PORT": str(port)}).start()
    send_everything(f"127.0.0.1:{port}")
    assert len(server.ask("/api/logs")["events"]) == 3
    os.kill(server.process.pid, signal.SIGINT)
    assert server.stop() == 0


def test_without_its_library_the_port_is_refused_with_what_to_install(tmp_path):
    """A setting that cannot be followed ends the start, it is never passed over."""
    (tmp_path / "grpc.py").write_text("raise ImportError('as if it were not installed')\n")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "opsloop.cli", "up", "--port", "0", "--store", str(tmp_path / "store")]
    done = subprocess.run(
        command, env={**environ, "OPSLOOP_GRPC_PORT": "4317"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "opsloop: server.grpc_port needs grpcio; pip install 'opsloop[grpc]', or unset it\n",
    )


def test_a_fault_of_ours_is_never_final(runtime):
    """An exception nobody foresaw is UNAVAILABLE, so that the sender keeps its batch."""

    def faulty(_body, *, json):
        raise ZeroDivisionError

    intake = Intake(runtime)
    intake.signals = tuple(msgspec.structs.replace(each, read=faulty) for each in intake.signals)

    async def run():
        server = await start_grpc(runtime.settings, intake, Gatekeeper({}, host="127.0.0.1"))
        address = f"127.0.0.1:{runtime.settings.server.grpc_port}"
        error = await asyncio.to_thread(refused, address, gauges(1.0))
        await server.stop(1)
        return error

    error = asyncio.run(run())
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "an unforeseen fault: ZeroDivisionError")
