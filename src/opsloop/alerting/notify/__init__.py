"""Receivers: each file turns a notice into one request in the receiver's own format, and nothing else.

``REQUESTS`` maps a receiver's kind to its builder ``(receiver, notice, secret) -> Request``. Delivery, retries and the
judging of answers are the same for all (:mod:`opsloop.alerting.notify.delivery`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from opsloop.alerting.notice import Notice
from opsloop.alerting.notify import alertmanager, pagerduty, slack, webhook
from opsloop.alerting.notify.request import Request
from opsloop.settings import ReceiverSettings

__all__ = ["REQUESTS", "Request"]

REQUESTS: Final[Mapping[str, Callable[[ReceiverSettings, Notice, str], Request]]] = {
    "webhook": webhook.request,
    "alertmanager": alertmanager.request,
    "slack": slack.request,
    "pagerduty": pagerduty.request,
}
