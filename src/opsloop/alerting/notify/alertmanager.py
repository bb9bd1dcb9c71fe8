"""Alertmanager's webhook, version 4: whatever receives Alertmanager's notices receives ours unchanged.

Format: Prometheus documentation, "Alertmanager configuration", webhook_config.
"""

from __future__ import annotations

from typing import Final

from opsloop.alerting.notice import Member, Notice, vote_text
from opsloop.alerting.notify.request import Request, json_request
from opsloop.clock import utc
from opsloop.settings import ReceiverSettings

__all__ = ["ZERO_TIME", "payload", "request"]

ZERO_TIME: Final = "0001-01-01T00:00:00Z"
"""What ``endsAt`` says while an alert fires."""


def payload(notice: Notice) -> dict[str, object]:
    """Return the version 4 object, grouped by ``alertname``."""
    labels = [member.labels for member in notice.members]
    annotations = [_annotations(notice, member) for member in notice.members]
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{notice.alert}"}}',
        "truncatedAlerts": 0,
        "status": notice.status,
        "receiver": notice.receiver,
        "groupLabels": {"alertname": notice.alert},
        "commonLabels": _common(labels),
        "commonAnnotations": _common(annotations),
        "externalURL": "",
        "notification_reason": notice.reason,
        "alerts": [_alert(member, told) for member, told in zip(notice.members, annotations, strict=True)],
    }


def _annotations(notice: Notice, member: Member) -> dict[str, str]:
    votes = "; ".join(vote_text(vote) for vote in member.votes)
    return {"summary": member.summary, "formula": notice.formula, "votes": votes}


def _alert(member: Member, annotations: dict[str, str]) -> dict[str, object]:
    return {
        "status": member.status,
        "labels": member.labels,
        "annotations": annotations,
        "startsAt": utc(member.starts_at_ns),
        "endsAt": ZERO_TIME if member.ends_at_ns is None else utc(member.ends_at_ns),
        "generatorURL": "",
        "fingerprint": member.fingerprint,
    }


def _common(maps: list[dict[str, str]]) -> dict[str, str]:
    """Return the pairs that all maps share."""
    return {name: value for name, value in maps[0].items() if all(other.get(name) == value for other in maps)}


def request(receiver: ReceiverSettings, notice: Notice, secret: str) -> Request:
    """Return the request."""
    return json_request(receiver, notice, payload(notice), secret=secret)
