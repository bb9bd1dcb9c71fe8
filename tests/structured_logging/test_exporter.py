"""The exporter against a real server that is well, down, slow, busy, or dies in the middle of its answer."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from opsloop.errors import ConfigError
from opsloop.event import Event, decode_event, encode_event
from opsloop.ingest import read_json_lines, read_logs
from opsloop.structured_logging import BufferedSink, Exporter, Logger, Spool
from opsloop.structured_logging.otlp import encode_otlp_logs


class Server(ThreadingHTTPServer):
    """Stores events once by their id, after it has behaved as it was told to, request by request."""

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.script = []
        self.deliveries = Counter()
        self.seen = []
        self.bodies = []
        self.awake = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Say nothing: clients that give up are part of the tests."""

    def stop(self):
        """End."""
        self.awake.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Behave, and store unless the behaviour says otherwise."""
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = self.server.script.pop(0) if self.server.script else "ok"
        self.server.seen.append((self.path, self.headers["Authorization"], self.client_address[1], behaviour))
        if behaviour == "slow":
            self.server.awake.wait(20)
            self.close_connection = True
            return
        if isinstance(behaviour, bytes):
            self.answer(200, behaviour)
            return
        if isinstance(behaviour, int):
            self.answer(behaviour, b'{"message": "no"}', {"Retry-After": "0"})
            return
        if behaviour == "small" and body.count(b"\n") > 2:
            self.server.script.insert(0, "small")
            self.answer(413, b"{}")
            return
        if behaviour == "small":
            self.server.script.insert(0, "small")
        self.server.bodies.append(body)
        for line in body.splitlines() if self.path == "/api/events" else ():
            self.server.deliveries[json.loads(line)["event_id"]] += 1
        if behaviour == "die":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.answer(200, json.dumps({"accepted": body.count(b"\n"), "rejected": 0}).encode())

    def answer(self, status, body, headers=None):
        """Answer."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Be quiet."""


@pytest.fixture
def server():
    """A server on a free port."""
    server = Server()
    yield server
    server.stop()


def events(count, first=0):
    """Return numbered events without ids."""
    return [Event(ts_ns=number, event="log", message=str(number)) for number in range(first, first + count)]


def test_events_arrive_in_batches_over_one_connection(server, ids):
    """Ids follow from the process and a number; the token is sent; the connection is kept."""
    with Exporter(server.url, token="secret", batch=4, ids=ids) as exporter:
        exporter.append(events(10))
        assert exporter.flush(20)
        exporter.append([Event(ts_ns=1, event="span", event_id="t:s")])
    process = next(iter(server.deliveries)).partition(":")[0]
    assert dict(server.deliveries) == {**{f"{process}:{n}": 1 for n in range(1, 11)}, "t:s": 1}
    assert {(path, token) for path, token, *_ in server.seen} == {("/api/events", "Bearer secret")}
    assert len({port for _, _, port, _ in server.seen}) == 1
    assert (exporter.sent, exporter.rejected, exporter.dropped, exporter.retries) == (11, 0, 0, 0)


@pytest.mark.parametrize("script", [[503, 429], ["die"], ["slow"], [401], [302], ["die", 503]])
def test_a_passing_failure_costs_nothing(server, script, tmp_path):
    """Busy, dying, silent or refusing for now: every event is stored exactly once by its id in the end."""
    server.script = list(script)
    with Exporter(server.url, spool=Spool(tmp_path), timeout_seconds=0.3) as exporter:
        exporter.append(events(20))
        assert exporter.flush(20)
    assert sorted(int(name.partition(":")[2]) for name in server.deliveries) == list(range(1, 21))
    assert (exporter.sent, exporter.retries) == (20, len(script))
    assert list(tmp_path.iterdir()) == []


def test_what_can_never_be_accepted_is_given_up_and_counted(server):
    """A 400 is final; a 413 is taken in halves; the next batch goes on."""
    server.script = [400]
    with Exporter(server.url) as exporter:
        exporter.append(events(3))
        assert exporter.flush(20)
        assert (exporter.rejected, exporter.last_error) == (3, '400: {"message": "no"}')
        server.script = ["small"]
        exporter.append(events(7))
        assert exporter.flush(20)
    assert (exporter.sent, exporter.rejected, exporter.retries) == (7, 3, 0)
    assert set(server.deliveries.values()) == {1}


def test_a_server_that_is_down_is_waited_for(server, tmp_path):
    """Events of the time when nothing listened arrive when it listens again, in memory and from the spool."""
    port = server.server_port
    server.stop()
    waiting = [Exporter(f"http://127.0.0.1:{port}"), Exporter(f"http://127.0.0.1:{port}", spool=Spool(tmp_path))]
    for exporter in waiting:
        exporter.append(events(5))
        assert not exporter.flush(0.01)
    again = Server(port)
    try:
        for exporter in waiting:
            assert exporter.flush(20)
            exporter.close()
            assert exporter.sent == 5
            assert exporter.retries >= 1
        assert len(again.deliveries) == 10
    finally:
        again.stop()


def test_without_a_spool_the_oldest_are_dropped_and_one_event_says_so(server):
    """The bound holds while the server is away, and the loss is reported when it is back."""
    server.script = ["slow"]
    exporter = Exporter(server.url, capacity=5, timeout_seconds=0.3)
    exporter.append(events(3))
    exporter.append(events(7, 3))
    exporter.append(events(1, 10))
    assert exporter.dropped >= 5
    assert exporter.flush(20)
    exporter.close()
    assert exporter.sent == 5
    ends = sorted(int(name.partition(":")[2]) for name in server.deliveries)
    assert ends == [8, 9, 10, 11, 12]


def test_a_killed_application_loses_nothing_and_stores_nothing_twice(server, tmp_path):
    """SIGKILL while the server is busy and dies: the next process sends the rest; each event is stored once."""
    server.script = [503, "die", 503]
    code = (
        "import sys\nfrom opsloop.structured_logging import BufferedSink, Exporter, Logger, Spool\n"
        f"exporter = Exporter({server.url!r}, spool=Spool({str(tmp_path)!r}), batch=50)\n"
        "sink = BufferedSink(exporter)\nlog = Logger(sink, service='bot')\n"
        "number = 0\n"
        "while True:\n"
        "    for _ in range(50):\n"
        "        log.info('line', number=number); number += 1\n"
        "    assert sink.flush(20)\n"
        "    sys.stdout.write(f'{number}\\n'); sys.stdout.flush()\n"
    )
    application = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(20):
        application.stdout.readline()
    os.kill(application.pid, signal.SIGKILL)
    written = 1000 + 50 * len(application.stdout.read().splitlines())
    application.wait()
    application.stdout.close()
    with Exporter(server.url, spool=Spool(tmp_path)) as exporter:
        assert exporter.flush(20)
    numbers = sorted(int(name.partition(":")[2]) for name in server.deliveries)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= written
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
def test_a_forked_child_sends_its_own_and_the_parent_the_rest(server, tmp_path):
    """What waited at the fork is the parent's; the child starts with ids and a folder of its own."""
    code = (
        "import os, sys\nfrom opsloop.structured_logging import BufferedSink, Exporter, Logger, Spool\n"
        f"sink = BufferedSink(exporter := Exporter({server.url!r}, spool=Spool({str(tmp_path)!r})))\n"
        "log = Logger(sink)\n"
        "for n in range(100): log.info(f'before {n}')\n"
        "pid = os.fork()\n"
        'for n in range(100): log.info(f\'{"parent" if pid else "child"} {n}\')\n'
        "if pid: os.waitpid(pid, 0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=50)
    assert len(server.deliveries) == 300
    assert sorted(Counter(name.partition(":")[0] for name in server.deliveries).values()) == [100, 200]


def test_the_whole_way_is_redacted_before_the_spool(server, tmp_path):
    """No file and no body ever holds what redaction takes out."""
    server.script = [503]
    with Exporter(server.url, spool=Spool(tmp_path / "spool")) as exporter, BufferedSink(exporter) as sink:
        Logger(sink).info("mail ann@example.org", password="hunter2")
        assert sink.flush(20)
        for path in (tmp_path / "spool").glob("*/*.seg"):
            assert b"ann@example.org" not in path.read_bytes()
            assert b"hunter2" not in path.read_bytes()


def test_otlp_reads_back_as_the_event():
    """An OpenTelemetry collector's view of an event has its columns where the conventions want them."""
    event = Event(
        ts_ns=1_767_603_600_000_000_000,
        event="tool",
        service="bot",
        release="1.2",
        environment="prod",
        request_id="req-1",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        tenant="acme",
        user_id="u-1",
        session_id="s-1",
        route="/chat",
        severity="ERROR",
        status_code=503,
        error=True,
        error_type="TimeoutError",
        tool="search",
        message="late",
        attributes={"retry": {"count": 2}, "tags": ["a", None, 1.5]},
    )
    (read,) = read_logs(encode_otlp_logs([event]), json=True).events
    assert read.replace(attributes={}) == event.replace(attributes={})
    assert read.attributes["retry"] == {"count": 2}
    assert read.attributes["tags"] == ["a", None, 1.5]


def test_a_wrong_address_is_said_at_once():
    """What is no address never becomes a silent loss."""
    with pytest.raises(ConfigError, match="'localhost:4318' is no address to send events to; write http://HOST:PORT"):
        Exporter("localhost:4318")


def test_one_payload_that_cannot_be_read_holds_nothing_up(server, tmp_path):
    """What a newer version has left in the spool is given up alone and counted; everything around it is sent."""
    spool = Spool(tmp_path)
    good = [encode_event(event.replace(event_id=f"e{event.ts_ns}")) for event in events(6, 1)]
    spool.put([*good[:4], b'{"ts_ns":1,"event":"log","severity":"NOTICE"}', *good[4:]])
    with Exporter(server.url, protocol="otlp", spool=spool) as exporter:
        assert exporter.flush(20)
    assert (exporter.sent, exporter.rejected) == (6, 1)
    sent = [event.event_id for body in server.bodies for event in read_logs(body, json=True).events]
    assert sent == [f"e{number}" for number in range(1, 7)]


def test_the_native_body_is_lines_that_intake_reads_back(server):
    """What is sent are JSON lines, and the reader behind /api/events makes the same events of them.

    The exporter against the real server, killed again and again, is in tests/server/test_kills.py.
    """
    sent = [event.replace(event_id=f"e{number}", attributes={"a": [1]}) for number, event in enumerate(events(3))]
    with Exporter(server.url) as exporter:
        exporter.append(sent)
        assert exporter.flush(20)
    assert read_json_lines(b"".join(server.bodies)).events == sent


def test_the_ready_logger_exports_when_the_settings_say_so(server, tmp_path):
    """Two variables are enough: the line is on standard output and, once, at the server."""
    environment = {**os.environ, "OPSLOOP_EXPORT_URL": server.url, "OPSLOOP_EXPORT_SPOOL": str(tmp_path / "spool")}
    code = "from opsloop.structured_logging import log\nlog.info('start', words=5)\n"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert decode_event(run.stdout).message == "start"
    assert list(server.deliveries.values()) == [1]
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (b"", 2),
        (b"\xff", 2),
        (b"[]", 2),
        (b'{"rejected":"many"}', 2),
        (b'{"rejected":-5}', 2),
        (b'{"rejected":7}', 0),
        (b'{"partialSuccess":"all"}', 2),
        (b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no body"}}', 1),
    ],
)
def test_an_odd_answer_is_an_answer(server, answer, sent):
    """What a server says beside 200 is read as far as it makes sense, and never ends the exporter."""
    server.script = [answer]
    exporter = Exporter(server.url)
    exporter.append(events(2))
    assert exporter.flush(20)
    assert (exporter.sent, exporter.rejected, exporter.retries) == (sent, 2 - sent, 0)
    exporter.close(20)


class Busy(Spool):
    """A spool that cannot be opened at first, as when the process has too many files open."""

    refusals = 2

    def peek(self, most, *, most_bytes=1 << 20):
        """Refuse, then look."""
        if self.refusals:
            self.refusals -= 1
            raise OSError(24, "Too many open files")
        return super().peek(most, most_bytes=most_bytes)


def test_a_spool_that_cannot_be_read_now_is_read_later(server, tmp_path):
    """Nothing is lost and the exporter lives on; the reason is shown meanwhile."""
    exporter = Exporter(server.url, spool=Busy(tmp_path))
    exporter.append(events(2))
    assert exporter.flush(20)
    assert (exporter.sent, exporter.last_error) == (2, "OSError: [Errno 24] Too many open files")
    exporter.close(20)
