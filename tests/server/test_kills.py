"""The server is killed again and again under load, and so is the application that sends to it.

``OPSLOOP_TEST_KILLS=200`` makes a soak of it.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from opsloop.clock import SystemClock

KILLS = int(os.environ.get("OPSLOOP_TEST_KILLS", "9"))
APPLICATION = Path(__file__).with_name("application.py")
READ = """
import json, sys
from opsloop.filter import Statement
from opsloop.store import ClickHouseStream
with ClickHouseStream(sys.argv[1]) as stream:
    print(json.dumps(stream.rows(Statement("SELECT event_id, leaves['run'], leaves['number'] FROM events"))))
"""


class Attempts:
    """What all senders have tried so far: the time that a kill waits for."""

    def __init__(self):
        self.count = 0
        self.changed = threading.Condition()

    def add(self):
        """Count one."""
        with self.changed:
            self.count += 1
            self.changed.notify_all()

    def wait_for(self, more):
        """Wait until so many more were made."""
        with self.changed:
            until = self.count + more
            assert self.changed.wait_for(lambda: self.count >= until, 60)


class Sender(threading.Thread):
    """Sends OTLP bodies, each until it is acknowledged, and keeps the ids that were. Some answers never reach it."""

    LOST_ANSWERS = 0.2
    LATER_SECONDS = 2.5
    """A body whose answer was lost is sent again so much later: to a server that was started anew, as a rule."""

    def __init__(self, port, number, signal, attempts):
        super().__init__()
        self.port, self.number, self.signal, self.attempts = port, number, signal, attempts
        self.acknowledged = []
        self.retries = 0
        self.refusals = []
        self.enough = threading.Event()
        self.lost = deque()

    def run(self):
        """Send until told that it is enough; what was begun then is still sent until it is acknowledged."""
        dice = random.Random(self.number)
        bodies = 0
        while not self.enough.is_set():
            if self.lost and self.lost[0][0] < time.monotonic():
                self.deliver(*self.lost.popleft()[1:])
            ids, body = (spans if self.signal == "traces" else logs)(self.number, bodies)
            body = gzip.compress(body, 1)
            bodies += 1
            if dice.random() < self.LOST_ANSWERS:
                self.post(body)
                self.lost.append((time.monotonic() + self.LATER_SECONDS, ids, body))
            else:
                self.deliver(ids, body)
        for _, ids, body in self.lost:
            self.deliver(ids, body)

    def deliver(self, ids, body):
        """Send one body until it is acknowledged."""
        while not self.post(body):
            self.retries += 1
            self.enough.wait(0.02)
        self.acknowledged += ids

    def post(self, body):
        """Send one body; return whether it was acknowledged."""
        self.attempts.add()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        response = ExportTraceServiceResponse if self.signal == "traces" else ExportLogsServiceResponse
        try:
            connection.request("POST", f"/v1/{self.signal}", body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if answer.status != 200 or response.FromString(text) != response():
            self.refusals.append((answer.status, text))
        return answer.status == 200


def spans(sender, body):
    """Return (event ids, request) of a body of spans that is the same whenever it is built."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    trace = (sender << 64 | body + 1).to_bytes(16, "big")
    now_ns = SystemClock().now_ns()
    for number in range(1, 31):
        span = number.to_bytes(8, "big")
        scope.spans.add(
            trace_id=trace, span_id=span, name="step", start_time_unix_nano=now_ns, end_time_unix_nano=now_ns
        )
    return [f"{trace.hex()}:{number:016x}" for number in range(1, 31)], request.SerializeToString()


def logs(sender, body):
    """Return (event ids, request) of a body of log records with ids, of today and of the days before it."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    ids = [f"log-{sender}-{body}-{number}" for number in range(30)]
    now_ns = SystemClock().now_ns()
    for number, name in enumerate(ids):
        record = scope.log_records.add(time_unix_nano=now_ns - number % 3 * 86_400 * 10**9)
        record.attributes.add(key="event_id").value.string_value = name
    return ids, request.SerializeToString()


class Application:
    """The application's process: killed, started again, and run to its end at last."""

    def __init__(self, url, folder):
        self.url, self.folder = url, folder
        self.runs = 0
        self.spooled = Counter()
        self.process = None

    def start(self, *lines):
        """Run it, by either of the exporter's protocols in turn."""
        protocol = ("native", "otlp")[self.runs % 2]
        command = [sys.executable, str(APPLICATION), self.url, str(self.folder), str(self.runs), protocol, *lines]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def kill(self):
        """Kill it, and read how far it had come."""
        self.process.kill()
        self.finish()

    def finish(self):
        """Wait for its end; return the last line it wrote."""
        written, _ = self.process.communicate(timeout=150)
        said = [line for line in written.splitlines(keepends=True) if line.endswith("\n")]
        self.spooled[self.runs] = max((int(line) for line in said if " " not in line), default=0)
        self.runs += 1
        return said[-1] if said else ""


@pytest.mark.timeout(300 + 10 * KILLS)
def test_nothing_is_lost_or_doubled_however_often_it_is_killed(new_server, tmp_path):
    """SIGKILL at any moment, starting up included: all that was acknowledged or spooled is stored exactly once."""
    dice = random.Random(7)
    server = new_server()
    server.keep_port()
    attempts = Attempts()
    senders = [Sender(server.port, number, ("traces", "logs")[number % 2], attempts) for number in range(1, 5)]
    application = Application(server.url, tmp_path / "spool")
    application.start()
    for sender in senders:
        sender.start()
    for kill in range(KILLS):
        if kill % 3 == 0:
            server.spawn()
            attempts.wait_for(dice.randrange(30, 300))  # refused at once and tried again, until it listens
        else:
            server.start()
            attempts.wait_for(dice.randrange(4, 80))
        server.kill()
        if kill % 3 == 1:
            application.kill()
            application.start()
    server.start()
    attempts.wait_for(40)
    for sender in senders:
        sender.enough.set()
    for sender in senders:
        sender.join(60)
    application.kill()
    application.start("10")  # takes the spool over, and ends when the server has everything
    assert application.finish().endswith(" 0\n")
    assert server.stop() == 0

    done = subprocess.run([sys.executable, "-c", READ, server.folder], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert max(Counter(name for name, *_ in rows).values()) == 1, "an event is stored twice"
    stored = {name for name, *_ in rows}
    for sender in senders:
        assert sender.acknowledged
        assert sender.retries >= KILLS // 2
        assert [name for name in sender.acknowledged if name not in stored] == []
        assert {status for status, _ in sender.refusals} <= {503}, sender.refusals
    lines = Counter((int(run), int(number)) for _, run, number in rows if run)
    assert max(lines.values()) == 1, "a line is stored twice"
    for run, spooled in application.spooled.items():
        found = sorted(number for of, number in lines if of == run)
        assert found == list(range(len(found)))
        assert len(found) >= spooled, f"run {run} had {spooled} lines in its spool"
    assert sum(application.spooled.values()) > 100
