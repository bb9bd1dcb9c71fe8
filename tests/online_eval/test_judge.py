"""The judge over recorded replies and over a real local server; no other network."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import ManualClock
from opsloop.errors import ConfigError
from opsloop.online_eval import Answer, Score
from opsloop.online_eval.judge import HttpTransport, Judge, Reply, parse_verdict
from opsloop.settings import JudgeSettings

ANSWER = Answer(request_id="r", question="How long?", answer="Five days.", contexts=("It takes five days.",))


class Recorded:
    """A transport that plays recorded replies back, in order, and keeps what was sent."""

    def __init__(self, *replies):
        """Take the replies; an exception among them is raised."""
        self.replies = list(replies)
        self.sent = []

    def post(self, url, headers, body):
        """Return the next reply."""
        self.sent.append((url, dict(headers), msgspec.json.decode(body)))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def reply(content, *, status=200, usage=None, headers=None):
    """Build a chat completion."""
    body = {"choices": [{"message": {"content": content}}], "usage": usage}
    return Reply(status, headers or {}, msgspec.json.encode(body))


PASS = reply(
    '{"reason": "as the passage says", "verdict": "pass"}', usage={"prompt_tokens": 100, "completion_tokens": 9}
)
FAIL = reply('{"reason": "invented", "verdict": "fail"}')


def make(*replies, key="", **settings):
    """Return (judge, transport, clock)."""
    transport, clock = Recorded(*replies), ManualClock("2026-01-05T09:00:00Z")
    wanted = JudgeSettings(**{"url": "http://judge.example/v1/", "model": "m-1"} | settings)
    return Judge(wanted, clock, key=key, transport=transport), transport, clock


def other(number):
    """Return an answer that no verdict is kept for."""
    return Answer(request_id=f"r{number}", answer=f"Answer {number}.")


def test_one_call_and_what_it_says():
    """Temperature 0, a JSON schema, the key as a bearer token; the verdict is scored 1 with its reason."""
    judge, transport, _ = make(PASS, key="k")
    assert judge.score(ANSWER) == Score("scored", 1.0, "pass", "as the passage says")
    ((url, headers, body),) = transport.sent
    assert url == "http://judge.example/v1/chat/completions"
    assert headers == {"Content-Type": "application/json", "Authorization": "Bearer k"}
    assert (body["model"], body["temperature"], body["response_format"]["type"]) == ("m-1", 0, "json_schema")
    assert msgspec.json.decode(body["messages"][1]["content"]) == {
        "question": "How long?",
        "passages": ["It takes five days."],
        "answer": "Five days.",
    }


def test_a_verdict_is_kept():
    """The same question, passages and answer are judged once, whatever the request; another model asks anew."""
    judge, transport, _ = make(PASS)
    assert judge.score(ANSWER) == judge.score(msgspec.structs.replace(ANSWER, request_id="again"))
    assert len(transport.sent) == 1
    assert judge.version != make(model="m-2")[0].version


def test_a_server_without_schemas_is_asked_once():
    """400 to the schema leads to plain JSON, and from then on to plain JSON at once."""
    judge, transport, _ = make(Reply(400, {}, b"no"), FAIL, PASS)
    assert [judge.score(ANSWER).label, judge.score(other(1)).label] == ["fail", "pass"]
    kinds = [body["response_format"]["type"] for _, _, body in transport.sent]
    assert kinds == ["json_schema", "json_object", "json_object"]


def test_three_failures_open_the_circuit():
    """Then nothing is sent for five minutes, the reason is on each score, and one try follows."""
    judge, transport, clock = make(OSError("refused"), Reply(500, {}, b""), OSError("refused"), PASS)
    said = [judge.score(other(number)).explanation for number in range(4)]
    assert said == [
        "no answer from the judge: refused",
        "the judge answered 500",
        "3 failures in a row, the last: no answer from the judge: refused",
        "the judge is not asked for 300 s more: 3 failures in a row, the last: no answer from the judge: refused",
    ]
    clock.advance(seconds=301)
    assert judge.score(other(5)).score == 1.0
    assert len(transport.sent) == 4


def test_a_429_is_patience_not_a_verdict():
    """Retry-After is kept to; the answer is unscored, never failed."""
    judge, _, clock = make(Reply(429, {"retry-after": "7"}, b""), PASS)
    assert judge.score(ANSWER).status == "unscored"
    assert judge.score(ANSWER).explanation.startswith("the judge is not asked for 7 s more")
    clock.advance(seconds=8)
    assert judge.score(ANSWER).score == 1.0


def test_cost_is_capped_per_call_and_per_day():
    """A call that could cost too much is not made; a day's spending stops further calls until midnight UTC."""
    prices = {"input_microusd_per_million": 1e6, "output_microusd_per_million": 1e6}
    judge, transport, _ = make(**prices, call_limit_microusd=100)
    assert judge.score(ANSWER).explanation.endswith("above 100 per call")
    assert transport.sent == []
    judge, transport, clock = make(PASS, PASS, **prices, call_limit_microusd=2000, day_limit_microusd=600)
    assert judge.score(other(1)).score == 1.0
    assert judge.spent_microusd == 109
    assert judge.score(other(2)).explanation == "109 of 600 microusd are spent today"
    clock.advance(seconds=86_400)
    assert judge.score(other(2)).score == 1.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"reason": "ok", "verdict": "PASS"}', 1.0),
        ('```json\n{"reason": "no", "verdict": "fail"}\n```', 0.0),
        ("Reasoning {so far}. Verdict: pass", 1.0),
        ("verdict: pass, or rather verdict: fail", None),
        ('{"verdict": "maybe"}', None),
        ("", None),
        ("[" * 5000, None),
    ],
)
def test_verdicts_are_read_tolerantly(text, score):
    """JSON, fenced JSON and a bare verdict are read; a contradiction or nothing is unscored."""
    assert parse_verdict(text).score == score


@given(st.text(max_size=80) | st.text('{}"verdict:pas fil,', max_size=80))
def test_any_reply_can_be_read(text):
    """No text of a model raises: it is a pass, a fail, or unscored."""
    assert parse_verdict(text).score in {0.0, 1.0, None}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}'])
def test_no_completion_is_unscored(body):
    """A 200 that holds no chat completion is unscored and says so."""
    judge, _, _ = make(Reply(200, {}, body))
    assert judge.score(ANSWER).explanation == "the judge's reply is no chat completion"


def test_a_wrong_url_is_refused():
    """Only HTTP is spoken, so that no file is read by accident."""
    with pytest.raises(ConfigError, match=r"the judge's url 'file:///x' is no HTTP URL; set eval.judge.url"):
        make(url="file:///x")


def test_over_http():
    """The standard library's transport returns bodies of good and bad statuses; no server is an OSError."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            good = self.path == "/v1/chat/completions"
            self.send_response(200 if good else 404)
            self.send_header("X-Seen", "yes")
            self.end_headers()
            self.wfile.write(PASS.body if good else b"nothing here")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        try:
            judge = Judge(JudgeSettings(url=f"{base}/v1", model="m"), ManualClock(0))
            assert judge.score(ANSWER).score == 1.0
            missing = HttpTransport().post(f"{base}/other", {}, b"{}")
            assert (missing.status, missing.headers["x-seen"], missing.body) == (404, "yes", b"nothing here")
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(OSError, match="refused"):
        HttpTransport().post(f"{base}/v1", {}, b"{}")
