"""What the server takes, and what it says to what it cannot take."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from opsloop.clock import SystemClock

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


def now():
    """Return the present in nanoseconds."""
    return SystemClock().now_ns()


def line(**fields):
    """Return one event as a JSON line."""
    return json.dumps({"ts_ns": now(), "event": "log", **fields}).encode() + b"\n"


def spans(*names, bad=0):
    """Return a trace request with good spans, and some without ids."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number, name in enumerate(names, 1):
        ids = {"trace_id": number.to_bytes(16, "big"), "span_id": number.to_bytes(8, "big")}
        scope.spans.add(name=name, start_time_unix_nano=now(), end_time_unix_nano=now(), **ids)
    for _ in range(bad):
        scope.spans.add(name="bad", start_time_unix_nano=now())
    return request.SerializeToString()


def test_partial_success_says_what_was_rejected(server):
    """Good spans are stored, bad ones counted, in the request's own encoding; an empty request is a success."""
    import urllib.request

    request = urllib.request.Request(f"{server.url}/v1/traces", data=spans("a", "b", bad=2), headers=PROTOBUF)
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Content-Type"] == "application/x-protobuf"
        response = ExportTraceServiceResponse.FromString(answer.read())
    assert response.partial_success.rejected_spans == 2
    assert "trace_id needs 16 bytes" in response.partial_success.error_message
    assert len(server.ask("/api/logs")["events"]) == 2
    assert server.ask("/v1/traces", body=b'{"resourceSpans": []}', headers=JSON) == {}
    assert (
        server.ask("/v1/traces/v1/traces", body=b"{}", headers={"Content-Type": "application/json; charset=utf-8"})
        == {}
    )


def test_json_lines_are_counted(server):
    """Each bad line is named; the others are stored before the answer."""
    answer = server.ask("/api/events", body=line(message="one") + b"nope\n", headers=LINES)
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert answer["reasons"][0].startswith("line 2: not JSON")
    assert [event["message"] for event in server.ask("/api/logs")["events"]] == ["one"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "says"),
    [
        ("/v1/traces", b"\xff\xff\xff", PROTOBUF, 400, "the body is not OTLP protobuf"),
        ("/v1/traces", spans("a")[:-4], PROTOBUF, 400, "the body is not OTLP protobuf"),
        ("/v1/logs", b"{", JSON, 400, "the body is not JSON"),
        ("/v1/traces", b"x", {"Content-Type": "text/html"}, 415, "unknown content type 'text/html'"),
        ("/v1/traces", b"not gzip", {**PROTOBUF, "Content-Encoding": "gzip"}, 400, "the body is not gzip"),
        ("/v1/traces", b"x", {**PROTOBUF, "Content-Encoding": "br"}, 415, "unknown Content-Encoding 'br'"),
        ("/v1/trace", b"x", PROTOBUF, 404, "there is nothing at /v1/trace"),
        ("/api/events", b"nope", LINES, 400, "line 1: not JSON"),
        ("/api/events", line(duration_us="slow"), LINES, 400, "line 1: duration_us: Expected `int | null`, got `str`"),
        ("/api/events", line(), {"Content-Type": "image/png"}, 415, "unknown content type 'image/png'"),
        ("/api/logs?q=duration%3E%3Efast", None, {}, 400, ""),
        ("/api/logs?form=1h", None, {}, 400, "/api/logs has no parameter 'form'"),
        ("/api/logs?from=soon", None, {}, 400, "'soon' is no time"),
        ("/api/requests/nobody", None, {}, 404, "nobody"),
        ("/api/nothing", None, {}, 404, "there is nothing at /api/nothing"),
        ("/api/nothing", b"x", {}, 404, "there is nothing at /api/nothing"),
        ("/v1/traces", None, {}, 405, "/v1/traces takes POST, not GET"),
        ("/api/logs", b"{}", JSON, 405, "/api/logs takes GET or HEAD, not POST"),
    ],
)
def test_bad_input_gets_a_sentence(server, path, body, headers, status, says):
    """The status says whose fault it is, the problem says what was wrong; what was stored before stays."""
    server.ask("/api/events", body=line(message="kept"), headers=LINES)
    code, answer_headers, answer = server.refused(path, body=body, headers=headers)
    assert code == status
    assert says.encode() in answer
    if answer_headers["Content-Type"] == "application/problem+json":
        assert json.loads(answer)["status"] == status
    assert [event["message"] for event in server.ask("/api/logs")["events"]] == ["kept"]


def test_a_body_over_the_limit_is_413(new_server):
    """Plain or packed, a body over max_body_bytes is refused and says how large it may be."""
    server = new_server()
    server.config.write_text("[server]\nmax_body_bytes = 10000\n")
    server.start()
    big = line(message="x" * 20_000)
    for body, extra in ((big, {}), (gzip.compress(big), {"Content-Encoding": "gzip"})):
        code, _, answer = server.refused("/api/events", body=body, headers={**LINES, **extra})
        assert code == 413
        assert b"over 10000 bytes" in answer


def test_other_names_and_origins_are_turned_away(server):
    """A page elsewhere cannot reach a loopback server through the browser."""
    assert server.refused("/api/logs", headers={"Host": "evil.example"})[0] == 421
    assert server.refused("/api/events", body=line(), headers={**LINES, "Origin": "http://evil.example"})[0] == 403


def test_tokens_have_scopes(new_server):
    """With tokens set, each opens what it is for, admin opens everything, and no token opens nothing."""
    tokens = {"OPSLOOP_INGEST_TOKEN": "in", "OPSLOOP_READ_TOKEN": "out", "OPSLOOP_ADMIN_TOKEN": "all"}
    server = new_server(environ=tokens).start()
    bearer = {name: {"Authorization": f"Bearer {name}"} for name in ("in", "out", "all", "wrong")}
    assert server.refused("/api/logs")[0] == 401
    assert server.refused("/api/logs", headers=bearer["wrong"])[0] == 401
    assert server.refused("/api/logs", headers=bearer["in"])[0] == 403
    assert server.ask("/api/events", body=line(), headers={**LINES, **bearer["in"]})["accepted"] == 1
    assert len(server.ask("/api/logs", headers=bearer["out"])["events"]) == 1
    assert len(server.ask("/api/logs", headers=bearer["all"])["events"]) == 1
    basic = {name: {"Authorization": f"Basic {base64.b64encode(f'pk:{name}'.encode()).decode()}"} for name in bearer}
    assert server.ask("/api/events", body=line(), headers={**LINES, **basic["in"]})["accepted"] == 1
    assert server.refused("/api/events", body=line(), headers={**LINES, **basic["wrong"]})[0] == 401
    assert server.refused("/api/events", body=line(), headers={**LINES, "Authorization": "Basic !"})[0] == 401
    assert server.refused("/api/logs", headers=basic["out"])[0] == 401
    assert server.refused("/api/logs", headers={"Authorization": "Bearer ü"})[0] == 401


def test_beyond_loopback_a_token_is_needed(tmp_path):
    """Listening to everyone without a token is refused at the start."""
    command = [sys.executable, "-m", "opsloop.cli", "up", "--host", "0.0.0.0", "--store", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "opsloop: 0.0.0.0 can be reached from outside and no token is set; set OPSLOOP_INGEST"
    )


def test_a_port_in_use_is_said(server, tmp_path):
    """The second server says which port, and what to do; a store in use names its owner."""
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "opsloop.cli", "up", "--port"]
    done = subprocess.run([*command, port, "--store", str(tmp_path / "b")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"opsloop: port {port} on 127.0.0.1 is in use; choose another with --port\n",
    )
    done = subprocess.run([*command, "0", "--store", str(server.folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"is open in process {server.process.pid} at {server.url}" in done.stderr


def test_acknowledged_events_survive_a_kill(new_server):
    """SIGKILL in the middle of sending loses nothing that was answered with 200, and doubles nothing."""
    server = new_server().start()
    acknowledged = []
    for number in range(30):
        server.ask("/api/events", body=line(message=str(number), event_id=f"e{number}"), headers=LINES)
        acknowledged.append(str(number))
    server.kill()
    again = new_server().start()
    again.ask("/api/events", body=line(message="29", event_id="e29"), headers=LINES)
    found = sorted((event["message"] for event in again.ask("/api/logs?limit=1000")["events"]), key=int)
    assert found == acknowledged


def test_stopping_is_clean(server):
    """An interrupt ends the server with exit code 0, and its folder is free again."""
    server.ask("/api/events", body=line(message="last"), headers=LINES)
    assert server.stop() == 0
    again = subprocess.run(
        [sys.executable, "-m", "opsloop.cli", "logs", "--store", str(server.folder), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(again.stdout)["message"] == "last"


def test_the_server_watches_itself(server):
    """Health, metrics and the OpenAPI document answer."""
    import urllib.request

    server.ask("/api/events", body=line() + line(), headers=LINES)
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        metrics = answer.read().decode()
    assert "opsloop_events_accepted_total 2" in metrics
    document = server.ask("/api/openapi.json")
    assert document["openapi"] == "3.1.0"
    assert "/api/logs" in document["paths"]
    assert server.ask("/health")["worker_failures"] == {}


def test_what_arrives_late_is_told_at_the_next_evaluation(new_server):
    """Ten minutes late: the next live update is of an evaluation that has it, and page and verdict show it by then."""
    import urllib.request

    server = new_server(evaluate_seconds=0.5)
    server.config.write_text(
        server.config.read_text()
        + '[[objective]]\nid = "errors"\ngroup = "errors"\nmeasure = "error_ratio"\nthreshold = 0.5\n'
        + 'window_seconds = 900\nmin_samples = 3\n[[alert]]\nid = "failing"\nwhen = "BREACH(errors)"\n'
        + f'[[receiver]]\nid = "notices"\npath = "{server.folder}.jsonl"\n'
    )
    server.start()
    before = server.ask("/api/signals?from=20m")
    late_ns = before["now_ns"] - 600 * 10**9
    lines = b"".join(b'{"ts_ns": %d, "event": "request", "error": true}\n' % (late_ns + k) for k in range(5))
    with urllib.request.urlopen(f"{server.url}/api/live", timeout=30) as stream:
        server.ask("/api/events", body=lines, headers={"Content-Type": "application/x-ndjson"})
        committed_ns = server.ask("/api/signals")["now_ns"]
        told = 0
        while told < committed_ns:
            text = stream.readline().decode()
            told = json.loads(text[6:])["now_ns"] if text.startswith("data: ") else told
    assert told - committed_ns < 10 * 10**9  # half a second, on a machine that is not busy
    after = server.ask(f"/api/signals?from={before['start_ns']}&to={before['end_ns']}")
    assert after["totals"]["requests"] - before["totals"]["requests"] == 5
    changed = [
        ts_ns
        for ts_ns, old, new in zip(
            before["series"]["ts_ns"],
            before["series"]["error_ratio"],
            after["series"]["error_ratio"],
            strict=True,
        )
        if old != new
    ]
    assert len(changed) == 1
    assert 0 <= changed[0] - late_ns < before["series"]["step_seconds"] * 10**9
    said = server.ask("/api/logs?q=event:breach%20id:errors&from=20m")["events"]
    assert [each["attributes"]["verdict"] for each in said][-1:] == ["BREACH"]


def test_live_updates_follow_each_evaluation(new_server):
    """A tab that listens is told after every turn of the workers."""
    import urllib.request

    server = new_server(evaluate_seconds=0.2).start()
    with urllib.request.urlopen(f"{server.url}/api/live", timeout=30) as stream:
        seen = []
        deadline = time.monotonic() + 30
        while len(set(seen)) < 3 and time.monotonic() < deadline:
            text = stream.readline().decode()
            if text.startswith("data: "):
                seen.append(json.loads(text[6:])["now_ns"])
    assert len(set(seen)) >= 3
    assert seen == sorted(seen)
