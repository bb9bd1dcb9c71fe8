"""A scrape of a running server."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from xml.etree import ElementTree as ET

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


def test_the_command_line_compares_and_draws(server, tmp_path):
    """One panel becomes a picture in a file, and a deploy parts before from after."""
    now_ns = SystemClock().now_ns()
    lines = [{"ts_ns": now_ns - 60 * 10**9, "event": "deploy", "release": "v2"}]
    lines += [
        {"ts_ns": now_ns - back * 10**9, "event": "request", "duration_us": 200_000 if back > 60 else 400_000}
        for back in range(20, 100)
    ]
    server.ask("/api/events", body=b"".join(json.dumps(line).encode() + b"\n" for line in lines), headers=LINES)
    command = [sys.executable, "-m", "opsloop.cli", "dashboard", "--url", server.url, "--from", "10m"]
    file = tmp_path / "latency.svg"
    assert subprocess.run([*command, "--svg", str(file), "--panel", "latency"], check=True).returncode == 0
    assert ET.parse(file).getroot().get("role") == "img"
    done = subprocess.run([*command, "--compare", "deploy"], check=True, capture_output=True, text=True)
    assert "Compared with the deploy of v2 at" in done.stdout
    assert "+100%" in done.stdout
