"""The generic webhook: the notice itself as JSON, every number included."""

from __future__ import annotations

import msgspec

from opsloop.alerting.notice import Notice
from opsloop.alerting.notify.request import Request, json_request
from opsloop.clock import utc
from opsloop.settings import ReceiverSettings

__all__ = ["payload", "request"]


def payload(notice: Notice) -> dict[str, object]:
    """Return the notice with its time for people and the key that all notices of the episode share."""
    return {"at": utc(notice.at_ns), "incident_key": notice.incident_key, **msgspec.to_builtins(notice)}


def request(receiver: ReceiverSettings, notice: Notice, secret: str) -> Request:
    """Return the request."""
    return json_request(receiver, notice, payload(notice), secret=secret)
