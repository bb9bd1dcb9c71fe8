"""An unmodified OpenTelemetry SDK sends, and its spans and logs are found again."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

RESOURCE = Resource.create({"service.name": "support-bot", "service.version": "1.4.0"})


def traced_request(exporter):
    """Run one request whose retrieval fails, as an instrumented application would; return its trace id."""
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("POST /chat", kind=SpanKind.SERVER) as request:
        request.set_attribute("http.route", "/chat")
        with tracer.start_as_current_span("retrieval kb") as retrieval:
            retrieval.set_attribute("gen_ai.operation.name", "retrieval")
            retrieval.set_attribute("error.type", "TimeoutError")
            retrieval.set_status(Status(StatusCode.ERROR, "retrieve timed out after 3000ms"))
        with tracer.start_as_current_span("chat gpt-4o") as call:
            call.set_attribute("gen_ai.operation.name", "chat")
            call.set_attribute("gen_ai.request.model", "gpt-4o")
            call.set_attribute("gen_ai.usage.input_tokens", 120)
            call.set_attribute("gen_ai.usage.output_tokens", 25)
        request.set_attribute("http.response.status_code", 503)
        request.set_status(Status(StatusCode.ERROR))
    provider.shutdown()
    return f"{request.get_span_context().trace_id:032x}"


def ask(server, *arguments):
    """Run the command line against the server and return what it prints."""
    command = [sys.executable, "-m", "opsloop.cli", *arguments, "--url", server.url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_spans_are_found_again_by_correlate(server, compression):
    """The exporter's spans are one story on the command line, with the failed step and the outcome."""
    trace_id = traced_request(OTLPSpanExporter(f"{server.url}/v1/traces", compression=compression))
    story = ask(server, "logs", "--correlate", trace_id)
    for part in (trace_id, "retrieve timed out after 3000ms", "503", "gpt-4o", "TimeoutError"):
        assert part in story
    found = ask(server, "logs", "event:retrieve error:true")
    assert found.count("retrieve timed out") == 1


def test_delivering_a_span_twice_stores_it_once(server):
    """A retry after a lost answer adds nothing."""
    exporter = OTLPSpanExporter(f"{server.url}/v1/traces")
    sent = []
    original = exporter.export

    def twice(spans):
        sent.append(len(spans))
        original(spans)
        return original(spans)

    exporter.export = twice
    trace_id = traced_request(exporter)
    story = server.ask(f"/api/logs?q=trace_id:{trace_id}")
    assert len(sent) == 3
    assert len(story["events"]) == 3


def test_log_records_arrive_with_their_trace(server):
    """An OTLP log record is a log event with severity, message and attributes."""
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{server.url}/v1/logs")))
    provider.get_logger("app").emit(
        severity_number=SeverityNumber.WARN, body="index kb-prod-7 is stale", attributes={"index": "kb-prod-7"}
    )
    provider.shutdown()
    (event,) = server.ask("/api/logs?q=stale")["events"]
    assert (event["event"], event["severity"], event["message"]) == ("log", "WARN", "index kb-prod-7 is stale")
    assert (event["service"], event["attributes"]["index"]) == ("support-bot", "kb-prod-7")
    logging.getLogger("opentelemetry").handlers.clear()
