"""The standard library's logging, as events."""

from __future__ import annotations

import logging

import pytest

from opsloop.structured_logging import Logger, LoggingHandler


@pytest.fixture
def shop():
    """A standard logger that no other test shares."""
    return logging.Logger("shop", logging.DEBUG)  # noqa: LOG001 - one of the registry would outlive the test


def test_a_record_becomes_a_log_event(shop, memory, clock, ids):
    """Level, message, time, extra, exception and the open request are all there."""
    log = Logger(memory, clock=clock, ids=ids, level="DEBUG")
    shop.addHandler(LoggingHandler(log))
    with log.request(request_id="req-1"):
        try:
            {}["lamp"]
        except KeyError:
            shop.exception("no %s", "lamp", extra={"tenant": "acme", "shelf": 3, "kind": "x"})
    event = next(event for event in memory if event.event == "log")
    assert (event.severity, event.message, event.error_type) == ("ERROR", "no lamp", "KeyError")
    assert (event.request_id, event.tenant) == ("req-1", "acme")
    assert {name: event.attributes[name] for name in ("logger", "shelf")} == {"logger": "shop", "shelf": 3}
    assert event.attributes["exception"].endswith("KeyError: 'lamp'\n")


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (5, "TRACE"),
        (10, "DEBUG"),
        (20, "INFO"),
        (25, "INFO"),
        (30, "WARN"),
        (40, "ERROR"),
        (50, "FATAL"),
        (60, "FATAL"),
    ],
)
def test_every_level_has_a_severity(memory, level, severity):
    """A level between two of them counts as the lower."""
    record = logging.makeLogRecord({"levelno": level, "msg": "x", "created": 2.5})
    LoggingHandler(Logger(memory, level="TRACE")).emit(record)
    assert [(e.severity, e.ts_ns) for e in memory] == [(severity, 2_500_000_000)]


def test_a_message_that_does_not_fit_its_arguments_is_shown_with_them(shop, memory):
    """A programmer's slip in a log call costs the line its form, not the host its request."""
    shop.addHandler(LoggingHandler(Logger(memory)))
    shop.info("%d items", "three")
    assert [e.message for e in memory] == ["%d items ('three',)"]


def test_a_sink_that_logs_does_not_feed_itself(shop):
    """A record made while one is written is left out: no recursion, no dead-lock."""

    class Chatty:
        """A sink that logs about its own work."""

        seen = 0

        def append(self, events):
            """Count and chat."""
            self.seen += len(list(events))
            shop.warning("stored")

    sink = Chatty()
    shop.addHandler(LoggingHandler(Logger(sink)))
    shop.warning("first")
    shop.warning("second")
    assert sink.seen == 2
