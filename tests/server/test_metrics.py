"""A scrape of a running server."""

from __future__ import annotations

import json
import urllib.request

import pytest

from opsloop.clock import SystemClock

modern = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus-client is not installed")

LINES = {"Content-Type": "application/x-ndjson"}


def scrape(server, accept):
    """Return the content type and text of a scrape."""
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_a_scrape_shows_the_service(server):
    """What was sent is counted at once, in both formats, and OpenMetrics names a request."""
    line = {"ts_ns": SystemClock().now_ns(), "event": "request", "request_id": "req-A", "duration_us": 2_000_000}
    server.ask("/api/events", body=json.dumps({**line, "error": True}).encode() + b"\n", headers=LINES)
    kind, text = scrape(server, "application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    found = {
        (sample.name, tuple(sample.labels.values())): sample
        for family in modern.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["opsloop_slo_bad_events_total", ("availability",)].value == 1
    assert found["opsloop_slo_bad_events_total", ("fast",)].value == 1
    assert found["opsloop_request_duration_seconds_bucket", ("", "", "2.0")].exemplar.labels == {"request_id": "req-A"}
    assert found["opsloop_slo_window_bad_events", ("availability", "5m")].value == 1
    assert found["opsloop_store_up", ()].value == 1
    kind, text = scrape(server, "*/*")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert 'opsloop_slo_bad_events_total{slo="availability"} 1\n' in text
    assert "req-A" not in text
    assert not text.endswith("# EOF\n")
