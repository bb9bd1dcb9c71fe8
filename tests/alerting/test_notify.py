"""Payloads: exactly the receivers' formats."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.alerting import Book, decide, load_rules
from opsloop.alerting.notify import REQUESTS, alertmanager, pagerduty, slack
from opsloop.alerting.notify.file import line
from opsloop.errors import ConfigError
from opsloop.settings import ReceiverSettings
from tests.alerting.readings import SECOND, START, alert, breach, fine, settings_of

LABELS = {"tenant": "a"}
TITLE = (
    "unhealthy [tenant=a]: page, 2 of 3 signals breach in one window: latency (p95 2.00 > 1.00, n=240), "
    "errors (p95 2.00 > 1.00, n=240)"
)


def notices():
    """Return the page and the resolve of one episode of one tenant."""
    rules, book, found = load_rules(settings_of(alert())), Book(), []
    for at, make in enumerate([breach, fine]):
        now = START + at * 60 * SECOND
        readings = [make(name, now, labels=LABELS) for name in ("latency", "errors")]
        book, decisions = decide(rules, book, readings, now)
        found.extend(notice for one in decisions for notice in one.notices)
    return found


def test_the_alertmanager_webhook_is_version_4_to_the_letter():
    """The whole object of a page and, of its resolve, what differs."""
    page, resolve = notices()
    labels = {"alertname": "unhealthy", "severity": "page", "tenant": "a"}
    annotations = {
        "summary": TITLE,
        "formula": "AT_LEAST(2, BREACH, (latency, latency-p99, errors, quality))",
        "votes": "latency (2.00 > 1.00, n=240); errors (2.00 > 1.00, n=240)",
    }
    firing = {
        "status": "firing",
        "labels": labels,
        "annotations": annotations,
        "startsAt": "2026-01-05T09:00:00.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": page.members[0].fingerprint,
    }
    assert alertmanager.payload(page) == {
        "version": "4",
        "groupKey": '{}:{alertname="unhealthy"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "pager",
        "groupLabels": {"alertname": "unhealthy"},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "notification_reason": "first notification",
        "alerts": [firing],
    }
    ended = alertmanager.payload(resolve)
    assert (ended["status"], ended["notification_reason"]) == ("resolved", "all alerts resolved")
    assert ended["alerts"] == [{**firing, "status": "resolved", "endsAt": "2026-01-05T09:01:00.000Z"}]


def test_pagerduty_triggers_and_resolves_under_one_key():
    """Trigger and resolve carry the same dedup_key and the routing key; a page is an error, a severe one critical."""
    page, resolve = notices()
    event = pagerduty.payload(page, "R" * 32)
    key = "opsloop/unhealthy/2026-01-05T09:00:00.000Z/tenant=a"
    assert (event["event_action"], event["dedup_key"], event["routing_key"]) == ("trigger", key, "R" * 32)
    assert event["payload"]["summary"] == TITLE
    assert event["payload"]["severity"] == "error"
    assert pagerduty.payload(msgspec.structs.replace(page, severe=True), "")["payload"]["severity"] == "critical"
    assert pagerduty.payload(msgspec.structs.replace(page, severity="ticket"), "")["payload"]["severity"] == "warning"
    ended = pagerduty.payload(resolve, "R" * 32)
    assert (ended["event_action"], ended["dedup_key"]) == ("resolve", key)


def test_pagerduty_keeps_its_limits():
    """An event above 512,000 bytes loses its details and says so; the summary ends at 1024 characters."""
    page, _ = notices()
    big = msgspec.structs.replace(page, members=page.members * 1000, title="x" * 2000)
    event = pagerduty.payload(big, "R" * 32)
    assert len(msgspec.json.encode(event)) < 512_000
    assert event["payload"]["custom_details"]["members"] == "left out: 1000 members are more than 512000 bytes"
    assert len(event["payload"]["summary"]) == 1024


def test_slack_gets_a_fallback_and_blocks_with_escaped_text():
    """The text is the title; sections hold the votes; < > and & are escaped and no section is too long."""
    page, _ = notices()
    message = slack.payload(page)
    assert message["text"] == TITLE.replace(">", "&gt;")
    assert [block["type"] for block in message["blocks"]] == ["section", "section", "context"]
    assert "• latency (2.00 &gt; 1.00, n=240)" in message["blocks"][1]["text"]["text"]
    many = slack.payload(msgspec.structs.replace(page, members=page.members * 60, title="y" * 5000))
    assert len(many["blocks"]) <= 50
    assert all(len(block["text"]["text"]) <= 3000 for block in many["blocks"] if "text" in block)
    assert "50 more not shown" in many["blocks"][-1]["elements"][0]["text"]


def test_a_file_line_is_the_whole_notice():
    """One JSON line, with its time, that reads back as the notice."""
    page, _ = notices()
    written = line(page)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    record = msgspec.json.decode(written)
    assert record.pop("at") == "2026-01-05T09:00:00.000Z"
    assert msgspec.convert(record, type(page)) == page


@pytest.mark.parametrize(
    ("kind", "url", "secret", "expected_url", "bearer"),
    [
        ("webhook", "http://127.0.0.1/hook", "s3cret", "http://127.0.0.1/hook", "Bearer s3cret"),
        ("webhook", "http://127.0.0.1/hook", "", "http://127.0.0.1/hook", None),
        ("slack", "https://hooks.slack.com/services/{secret}", "T/B/x", "https://hooks.slack.com/services/T/B/x", None),
        ("slack", "", "https://hooks.slack.com/services/T", "https://hooks.slack.com/services/T", None),
        ("pagerduty", "", "R" * 32, "https://events.pagerduty.com/v2/enqueue", None),
    ],
)
def test_where_the_secret_goes(kind, url, secret, expected_url, bearer):
    """Into the URL's mark, else the URL itself, else a bearer token; PagerDuty's into the body. The key is stable."""
    page, _ = notices()
    asked = REQUESTS[kind](ReceiverSettings(id="pager", kind=kind, url=url), page, secret)
    assert asked.url == expected_url
    assert asked.headers.get("Authorization") == bearer
    assert asked.headers["Idempotency-Key"] == "pager:unhealthy:2026-01-05T09:00:00.000Z/tenant=a:1"


def test_a_receiver_without_a_url_is_refused():
    """A webhook that has nowhere to go is the operator's fault, and is told so."""
    page, _ = notices()
    with pytest.raises(ConfigError, match="receiver 'pager' of kind webhook has no http URL"):
        REQUESTS["webhook"](ReceiverSettings(id="pager", kind="webhook"), page, "")
