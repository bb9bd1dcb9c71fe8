"""The worker: at least once, under stable keys, through failures, kills and restarts."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.alerting.notify.delivery import DEADLINE_SECONDS, HttpTransport, delay_seconds, judge
from opsloop.alerting.worker import AlertWorker
from opsloop.clock import ManualClock
from opsloop.errors import StoreError
from opsloop.settings import ReceiverSettings
from opsloop.stream import MemoryStream
from tests.alerting.readings import SECOND, alert, breach, fine, settings_of
from tests.alerting.test_notify import notices

HOOK = ReceiverSettings(id="hook", kind="webhook", url="http://hook.test/x")
BAD = ("latency", "errors")


class Recorder:
    """A transport that answers from a list, then 200, and keeps what was posted."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.posts = []
        self.lock = threading.Lock()

    def post(self, url, headers, body):
        """Answer with the next thing in the list: a status, (status, headers), or an exception to raise."""
        with self.lock:
            self.posts.append((url, headers["Idempotency-Key"], msgspec.json.decode(body)))
            answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, BaseException):
            raise answer
        status, sent = answer if isinstance(answer, tuple) else (answer, {})
        return status, sent, b""

    @property
    def keys(self):
        """The idempotency keys, in order."""
        return [key for _, key, _ in self.posts]


def worker_of(stream, clock, transport, *receivers, environ=None, **fields):
    """Build a worker over one alert."""
    settings = settings_of(alert(**fields), receivers=receivers or (HOOK,))
    return AlertWorker(stream, settings, clock, transport, environ=environ or {})


def bad(clock):
    """Two signals breach now."""
    return [breach(name, clock.now_ns()) for name in BAD]


def good(clock):
    """Both are fine now."""
    return [fine(name, clock.now_ns()) for name in BAD]


def told(events):
    """Return (phase, state, outcome) of each event."""
    return [(e.attributes["phase"], e.attributes.get("state"), e.attributes.get("outcome")) for e in events]


def test_a_tick_stores_decides_and_delivers(stream, clock):
    """Over any stream: transition, pending notice, sent; the same instant again adds nothing; recovery is told."""
    transport = Recorder()
    worker = worker_of(stream, clock, transport)
    first = worker.tick(bad(clock))
    assert told(first) == [
        ("transition", "firing", None),
        ("notice", "firing", "pending"),
        ("notice", "firing", "sent"),
    ]
    assert first[0].message == (
        "unhealthy: page, 2 of 3 signals breach in one window: latency (p95 2.00 > 1.00, n=240), "
        "errors (p95 2.00 > 1.00, n=240)"
    )
    assert worker.tick(bad(clock)) == []
    clock.advance(seconds=60)
    assert worker.tick(bad(clock)) == []
    clock.advance(seconds=60)
    assert told(worker.tick(good(clock)))[0] == ("transition", "resolved", None)
    assert [post["status"] for _, _, post in transport.posts] == ["firing", "resolved"]
    assert len({post["incident_key"] for _, _, post in transport.posts}) == 1
    assert len(stream.query()) == 6


@pytest.mark.parametrize("fault", [500, 503, 429, TimeoutError("slow"), ConnectionRefusedError("no")])
def test_a_passing_fault_is_retried_under_the_same_key(memory, clock, fault):
    """5xx, 429, timeouts and refused connections are tried again after a pause, with the same key, until sent."""
    transport = Recorder(fault)
    worker = worker_of(memory, clock, transport)
    assert told(worker.tick(bad(clock)))[-1] == ("notice", "firing", "retry")
    assert worker.tick(bad(clock)) == []
    clock.advance(seconds=10)
    assert told(worker.tick(bad(clock))) == [("notice", "firing", "sent")]
    assert transport.keys == ["hook:unhealthy:2026-01-05T09:00:00.000Z:1"] * 2


@pytest.mark.parametrize("status", [301, 400, 401, 404])
def test_any_other_answer_is_final_and_recorded(memory, clock, status):
    """It is not sent again, and the failure is an event of severity ERROR with the status."""
    transport = Recorder(status)
    worker = worker_of(memory, clock, transport)
    failed = worker.tick(bad(clock))[-1]
    assert (failed.attributes["outcome"], failed.severity) == ("failed", "ERROR")
    assert failed.attributes["reason"] == f"status {status}: final"
    clock.advance(seconds=3600)
    worker.tick(bad(clock))
    assert len(transport.posts) == 1


def test_retry_after_is_respected(memory, clock):
    """A receiver that asks for two minutes gets two minutes."""
    transport = Recorder((429, {"retry-after": "120"}))
    worker = worker_of(memory, clock, transport)
    worker.tick(bad(clock))
    clock.advance(seconds=119)
    worker.tick(bad(clock))
    assert len(transport.posts) == 1
    clock.advance(seconds=1)
    worker.tick(bad(clock))
    assert len(transport.posts) == 2


def test_an_alert_that_is_taken_out_while_it_fires_is_told_as_resolved(memory, clock):
    """The next worker resolves it for that reason, under the same key, and forgets it."""
    transport = Recorder()
    worker_of(memory, clock, transport).tick(bad(clock))
    clock.advance(seconds=15)
    without = AlertWorker(memory, settings_of(receivers=(HOOK,)), clock, transport, environ={})
    change, *_ = without.tick(bad(clock))
    assert change.attributes["state"] == "resolved"
    assert change.attributes["reason"] == "rule_changed: the alert was taken out of the configuration"
    assert [post["status"] for _, _, post in transport.posts] == ["firing", "resolved"]
    assert len({post["incident_key"] for _, _, post in transport.posts}) == 1
    clock.advance(seconds=15)
    assert AlertWorker(memory, settings_of(), clock, transport, environ={}).rules.rules == ()


def test_one_instant_is_one_evaluation_and_a_clock_set_back_still_evaluates(memory, clock):
    """The same instant twice is one of the two points that must breach; an earlier instant is a new evaluation."""
    worker = worker_of(memory, clock, Recorder(), points=2, points_to_fire=2)
    readings = bad(clock)
    worker.tick(readings)
    assert worker.tick(readings) == []
    clock.set_time(clock.now_ns() - 3600 * SECOND)
    assert told(worker.tick(bad(clock)))[0] == ("transition", "firing", None)


class KilledError(BaseException):
    """The process dies."""


def test_a_kill_between_commit_and_send_loses_nothing(memory, clock):
    """The notice was stored with its decision, so the next process sends it, under the same key, without a new page."""
    with pytest.raises(KilledError):
        worker_of(memory, clock, Recorder(KilledError())).tick(bad(clock))
    assert told(memory.query()) == [("transition", "firing", None), ("notice", "firing", "pending")]
    transport = Recorder()
    clock.advance(seconds=15)
    assert told(worker_of(memory, clock, transport).tick(bad(clock))) == [("notice", "firing", "sent")]
    assert transport.keys == ["hook:unhealthy:2026-01-05T09:00:00.000Z:1"]


class Forgetful(MemoryStream):
    """A stream whose n-th append fails."""

    def __init__(self, failing):
        self.calls, self.failing = 0, failing
        super().__init__()

    def append(self, events):
        """Store, or raise StoreError."""
        self.calls += 1
        if self.calls - 1 == self.failing:
            raise StoreError("disk full")
        return super().append(events)


def test_what_could_not_be_stored_is_not_sent(clock):
    """When the decision is not stored nothing is sent, and the next tick decides it again."""
    stream, transport = Forgetful(1), Recorder()
    worker = worker_of(stream, clock, transport)
    with pytest.raises(StoreError):
        worker.tick(bad(clock))
    assert transport.posts == []
    assert told(worker.tick(bad(clock)))[0] == ("transition", "firing", None)
    assert len(transport.posts) == 1


def test_a_kill_between_send_and_mark_sends_again_under_the_same_key(clock):
    """The mark was lost, so the notice goes out twice with one key: harmless to the receiver."""
    stream, transport = Forgetful(2), Recorder()
    with pytest.raises(StoreError):
        worker_of(stream, clock, transport).tick(bad(clock))
    clock.advance(seconds=15)
    worker_of(stream, clock, transport).tick(bad(clock))
    assert transport.keys == ["hook:unhealthy:2026-01-05T09:00:00.000Z:1"] * 2


def test_two_workers_tell_the_same(memory, clock):
    """A second worker over the same stream decides the same events, which are stored once."""
    one, two = Recorder(), Recorder()
    pair = [worker_of(memory, clock, one), worker_of(memory, clock, two)]
    for worker in pair:
        worker.tick(bad(clock))
    assert len(memory) == 3
    assert one.keys == two.keys


def test_a_newer_notice_replaces_an_unsent_older_one(memory, clock):
    """While the receiver is down the alert resolves: the page is marked replaced, only the resolve is sent."""
    transport = Recorder(503)
    worker = worker_of(memory, clock, transport)
    worker.tick(bad(clock))
    clock.advance(seconds=60)
    outcomes = told(worker.tick(good(clock)))
    assert ("notice", "firing", "replaced") in outcomes
    assert outcomes[-1] == ("notice", "resolved", "sent")


def test_a_receiver_that_fails_does_not_keep_another_from_its_notice(memory, clock, tmp_path):
    """The file gets the page while the webhook is down; each outcome is recorded for itself."""
    target = tmp_path / "pages" / "notices.jsonl"
    file = ReceiverSettings(id="file", path=str(target))
    events = worker_of(memory, clock, Recorder(503), HOOK, file).tick(bad(clock))
    outcomes = {e.attributes["receiver"]: e.attributes["outcome"] for e in events[3:]}
    assert outcomes == {"hook": "retry", "file": "sent"}
    assert msgspec.json.decode(target.read_bytes())["receiver"] == "file"


def test_a_secret_is_never_written(memory, clock):
    """Neither an error that quotes it, nor a header that is refused, puts the secret into the stream."""
    secret = "s3cr3t-key"
    slack = ReceiverSettings(id="chat", kind="slack", url="http://hook.test/{secret}", secret_env="CHAT")
    fault = ConnectionError(f"cannot reach http://hook.test/{secret}")
    worker = worker_of(memory, clock, Recorder(fault), slack, environ={"CHAT": secret})
    assert worker.tick(bad(clock))[-1].attributes["reason"] == "ConnectionError: cannot reach http://hook.test/***"
    assert all(secret not in msgspec.json.encode(event).decode() for event in memory.query())


def test_a_missing_secret_is_said(memory, clock):
    """An unset variable is a final failure that names the variable."""
    pager = ReceiverSettings(id="pager", kind="pagerduty", secret_env="PAGER_KEY")
    failed = worker_of(memory, clock, Recorder(), pager).tick(bad(clock))[-1]
    assert failed.attributes["reason"] == "the environment variable PAGER_KEY is not set: final"


@settings(deadline=None)
@given(number=st.integers(1, 60), status=st.none() | st.integers(100, 599), after=st.none() | st.integers(0, 4000))
def test_the_judgement_of_an_answer(number, status, after):
    """2xx is sent; none, 429 and 5xx wait the back-off or Retry-After, within the deadline; the rest fails."""
    notice = notices()[0]
    headers = {} if after is None else {"Retry-After": str(after)}
    now = notice.at_ns + 60 * SECOND
    outcome = judge(notice, number, now_ns=now, status=status, headers=headers, reason="r")
    if status is not None and 200 <= status < 300:
        assert outcome.outcome == "sent"
    elif status is not None and status != 429 and status < 500:
        assert outcome.outcome == "failed"
    else:
        pause = max(delay_seconds(notice.id, number), after or 0)
        expected = "retry" if pause <= DEADLINE_SECONDS - 60 else "failed"
        assert outcome.outcome == expected
        if expected == "retry":
            assert outcome.retry_at_ns == now + round(pause * SECOND)


@settings(deadline=None)
@given(number=st.integers(1, 40))
def test_the_pause_doubles_to_five_minutes(number):
    """5 s doubled per attempt, at most 300 s, and never less than half of it."""
    longest = min(5 * 2 ** (number - 1), 300)
    assert longest / 2 <= delay_seconds("n", number) <= longest


class _Handler(BaseHTTPRequestHandler):
    """Answers 503 once, then 204."""

    seen: list[tuple[str, str, dict[str, object]]]

    def do_POST(self):
        """Keep the request and answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Authorization"], msgspec.json.decode(body)))
        self.send_response(503 if len(self.server.seen) == 1 else 204)
        self.send_header("Retry-After", "7")
        self.end_headers()

    def log_message(self, *_):
        """Stay silent."""


def test_over_real_http(memory):
    """The default transport posts to a real server, reads its Retry-After, and delivers on the second try."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        clock = ManualClock("2026-01-05T09:00:00Z")
        hook = ReceiverSettings(
            id="hook", kind="alertmanager", url=f"http://127.0.0.1:{server.server_port}/a?b=1", secret_env="TOKEN"
        )
        worker = worker_of(memory, clock, HttpTransport(), hook, environ={"TOKEN": "t"})
        first = worker.tick(bad(clock))[-1]
        assert (first.attributes["outcome"], first.attributes["reason"]) == ("retry", "status 503")
        assert first.attributes["retry_at_ns"] >= clock.now_ns() + 7 * SECOND
        clock.advance(seconds=8)
        assert told(worker.tick(bad(clock)))[-1] == ("notice", "firing", "sent")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [(path, token) for path, token, _ in server.seen] == [("/a?b=1", "Bearer t")] * 2
    assert server.seen[0][2] == server.seen[1][2]
    assert server.seen[0][2]["version"] == "4"


def test_nobody_listening_is_a_retry(memory, clock):
    """A refused connection over the real transport is a retry with its reason, not an exception."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    port = server.server_port
    server.server_close()
    hook = ReceiverSettings(id="hook", kind="webhook", url=f"http://127.0.0.1:{port}/")
    event = worker_of(memory, clock, HttpTransport(), hook).tick(bad(clock))[-1]
    assert event.attributes["outcome"] == "retry"
    assert event.attributes["reason"].startswith("ConnectionRefusedError")


def test_a_malformed_secret_is_final_and_not_quoted(memory, clock):
    """A secret with a line end is refused by the client; the record says so without quoting it."""
    hook = ReceiverSettings(id="hook", kind="webhook", url="http://127.0.0.1:9/", secret_env="TOKEN")
    worker = worker_of(memory, clock, HttpTransport(), hook, environ={"TOKEN": "bad\nsecret"})
    failed = worker.tick(bad(clock))[-1]
    assert failed.attributes["reason"] == "ValueError: the URL or the secret is malformed: final"
