"""A real Alertmanager on loopback, with the configuration that we export."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request

import msgspec
import pytest

from opsloop.alerting.notify import alertmanager
from opsloop.alerting.route import fingerprint
from opsloop.clock import NANOSECONDS, SystemClock, utc
from opsloop.integrations.alertmanager import alertmanager_config
from opsloop.settings import AlertSettings, ReceiverSettings, Settings
from tests.alerting.test_notify import notices

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
WAIT_SECONDS = 20
LABELS = {"alertname": "SloBurns", "service": "bot", "slo": "up"}
PAGE, TICKET = ({**LABELS, "severity": severity} for severity in ("page", "ticket"))


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def inbox():
    """Listen for notices; yield the address and the queue that they come out of."""
    came = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            came.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", came
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def running(folder, url):
    """Run Alertmanager with our configuration and short intervals; yield its address once it is ready."""
    timing = AlertSettings(
        id="any", when="BREACH(errors)", group_wait_seconds=1, group_interval_seconds=2, repeat_seconds=3600
    )
    settings = Settings(alert=(timing,), receiver=(ReceiverSettings(id="inbox", kind="alertmanager", url=url),))
    (folder / "alertmanager.yml").write_text(alertmanager_config(settings))
    port = free_port()
    command = [PROGRAM, "--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stderr=log, stdout=log) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            until_ready(address, folder / "log")
            yield address
        finally:
            process.terminate()


def until_ready(address, log):
    """Ask until it answers."""
    pause = threading.Event()
    for _ in range(200):
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{address}/-/ready") as answer:
            if answer.status == 200:
                return
        pause.wait(0.05)
    raise AssertionError(log.read_text())


def send(address, *alerts):
    """Post alerts as Prometheus does: labels, and how many seconds from now they end."""
    now_ns = SystemClock().now_ns()
    body = [
        {
            "labels": labels,
            "annotations": {"summary": labels["severity"]},
            "startsAt": utc(now_ns - 60 * NANOSECONDS),
            "endsAt": utc(now_ns + seconds * NANOSECONDS),
        }
        for labels, seconds in alerts
    ]
    request = urllib.request.Request(
        f"{address}/api/v2/alerts", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def told(notice):
    """Return what a notice says: its status, and each alert's severity and status."""
    return notice["status"], [(each["labels"]["severity"], each["status"]) for each in notice["alerts"]]


@pytest.mark.skipif(PROGRAM is None, reason="alertmanager is not installed")
def test_a_page_holds_its_ticket_back_and_the_object_is_ours(tmp_path):
    """Sent together, the page is told and the ticket is not; once the page is resolved the ticket is told.

    The object has the keys and the fingerprints that our own receiver of that kind sends.
    """
    with inbox() as (url, came), running(tmp_path, url) as address:
        send(address, (TICKET, 300), (PAGE, 300))
        first = came.get(timeout=WAIT_SECONDS)
        assert told(first) == ("firing", [("page", "firing")])
        send(address, (TICKET, 300), (PAGE, -1))
        later = [told(came.get(timeout=WAIT_SECONDS)) for _ in range(2)]
        assert sorted(later) == [("firing", [("ticket", "firing")]), ("resolved", [("page", "resolved")])]
        assert came.empty()
    ours = msgspec.to_builtins(alertmanager.payload(notices()[0]))
    assert set(ours) - {"notification_reason"} == set(first)
    assert set(ours["alerts"][0]) == set(first["alerts"][0])
    assert first["groupLabels"] == {"service": "bot", "slo": "up"}
    assert [each["fingerprint"] for each in first["alerts"]] == [fingerprint(PAGE)]
    assert first["alerts"][0]["endsAt"] == ours["alerts"][0]["endsAt"]
