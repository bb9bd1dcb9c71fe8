"""Other libraries' records as events, with the real libraries where they are installed."""

from __future__ import annotations

from contextlib import suppress

import pytest

from opsloop.structured_logging import Logger


def fail():
    """Raise, so that there is an exception to log."""
    raise LookupError("no")


@pytest.fixture
def log(memory, clock, ids):
    """A logger into memory."""
    return Logger(memory, clock=clock, ids=ids)


def test_structlog_events_become_log_events(log, memory):
    """What structlog has bound, its level and its exception arrive, in the request, and its own chain goes on."""
    structlog = pytest.importorskip("structlog")
    from opsloop.integrations.structlog import EventProcessor

    shown = []
    logger = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            EventProcessor(log),
            lambda _, __, event: shown.append(dict(event)) or "",
        ],
        context_class=dict,
    )
    with log.request(request_id="req-1"), structlog.contextvars.bound_contextvars(tenant="acme"):
        logger.bind(shard=2).warning("stock is low", left=3)
        try:
            fail()
        except LookupError:
            logger.exception("search failed")
    low, failed = (e for e in memory if e.event == "log")
    assert (low.severity, low.message, low.tenant, low.request_id) == ("WARN", "stock is low", "acme", "req-1")
    assert low.attributes == {"shard": 2, "left": 3}
    assert (failed.severity, failed.error_type) == ("ERROR", "LookupError")
    assert "LookupError: no" in failed.attributes["exception"]
    assert [event["event"] for event in shown] == ["stock is low", "search failed"]


def test_loguru_records_become_log_events(log, memory):
    """What loguru has bound, its level, time and exception arrive, in the request."""
    loguru = pytest.importorskip("loguru", reason="loguru is not installed")
    from opsloop.integrations.loguru import EventSink

    loguru.logger.remove()
    number = loguru.logger.add(EventSink(log), format="{message}")
    try:
        with log.request(request_id="req-1"):
            loguru.logger.bind(tenant="acme", shard=2).success("stock is {}", 3)
            try:
                fail()
            except LookupError:
                loguru.logger.exception("search failed")
    finally:
        loguru.logger.remove(number)
    good, failed = (e for e in memory if e.event == "log")
    assert (good.severity, good.message, good.tenant, good.request_id) == ("INFO", "stock is 3", "acme", "req-1")
    assert good.attributes["shard"] == 2
    assert (failed.severity, failed.error_type) == ("ERROR", "LookupError")


def test_opentelemetry_spans_and_logs_become_events(log, memory):
    """A real provider's spans: kind, columns, failure and tree; once under the open request, once without one."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider

    from opsloop.integrations.opentelemetry import LogEvents, SpanEvents

    provider, logs = trace.TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanEvents(log))
    logs.add_log_record_processor(LogEvents(log))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("POST /chat"):
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.usage.input_tokens": 9}
        with suppress(LookupError), tracer.start_as_current_span("chat m-1", attributes=attributes):
            logs.get_logger("test").emit(LogRecord(severity_number=SeverityNumber.WARN, body="slow", timestamp=5))
            fail()
    with log.request(request_id="req-1") as request, tracer.start_as_current_span("inner"):
        pass
    by_kind = {(e.event, e.message): e for e in memory}
    line, call, record = by_kind["request", "POST /chat"], by_kind["llm", "LookupError: no"], by_kind["log", "slow"]
    assert (call.model, call.input_tokens, call.error, call.error_type) == ("m-1", 9, True, "LookupError")
    assert (call.parent_span_id, call.trace_id, call.request_id) == (line.span_id, line.trace_id, line.trace_id)
    assert call.event_id == f"{call.trace_id}:{call.span_id}"
    assert (record.severity, record.ts_ns, record.parent_span_id) == ("WARN", 5, call.span_id)
    inner = by_kind["span", "inner"]
    assert inner.request_id == "req-1"
    assert [e.request_id for e in memory if e.event == "request" and e.span_id == request.span_id] == ["req-1"]
    provider.shutdown()
    logs.shutdown()
