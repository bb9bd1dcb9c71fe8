"""PagerDuty Events API v2: trigger and resolve under one stable key.

Format and limits: PagerDuty, "Send an alert event": dedup_key at most 255 characters, summary 1024,
the event 512,000 bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opsloop.alerting.notice import Notice
from opsloop.alerting.notify.request import Request, json_request
from opsloop.clock import utc
from opsloop.settings import ReceiverSettings

__all__ = ["ENQUEUE_URL", "MAX_EVENT_BYTES", "payload", "request"]

ENQUEUE_URL: Final = "https://events.pagerduty.com/v2/enqueue"
MAX_EVENT_BYTES: Final = 512_000
MAX_SUMMARY: Final = 1024


def payload(notice: Notice, routing_key: str) -> dict[str, object]:
    """Return the event; details that would make it too large are left out, and it says so.

    Severity: a page by a severe single, or with a severe m-th vote, is ``critical``, any other page ``error``, a
    ticket ``warning``.
    """
    severity = "warning" if notice.severity != "page" else "critical" if notice.severe else "error"
    details: dict[str, object] = {
        "reason": notice.reason,
        "formula": notice.formula,
        "members": msgspec.to_builtins(notice.members),
    }
    event = _event(notice, routing_key, severity, details)
    if len(msgspec.json.encode(event)) >= MAX_EVENT_BYTES:
        said = f"left out: {len(notice.members)} members are more than {MAX_EVENT_BYTES} bytes"
        event = _event(notice, routing_key, severity, {"reason": notice.reason, "members": said})
    return event


def _event(notice: Notice, routing_key: str, severity: str, details: dict[str, object]) -> dict[str, object]:
    labels = notice.members[0].labels
    return {
        "routing_key": routing_key,
        "event_action": "trigger" if notice.status == "firing" else "resolve",
        "dedup_key": notice.incident_key,
        "payload": {
            "summary": notice.title[:MAX_SUMMARY],
            "source": labels.get("service", "opsloop"),
            "severity": severity,
            "timestamp": utc(notice.at_ns),
            "component": labels.get("route", ""),
            "group": notice.alert,
            "class": "composite",
            "custom_details": details,
        },
        "client": "opsloop",
    }


def request(receiver: ReceiverSettings, notice: Notice, secret: str) -> Request:
    """Return the request; the secret is the routing key and stands in the body alone."""
    return json_request(receiver, notice, payload(notice, secret), secret=secret, default=ENQUEUE_URL)
