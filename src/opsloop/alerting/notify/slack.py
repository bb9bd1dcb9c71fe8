"""Slack's incoming webhook: a fallback text and blocks. A resolve is a second message, a webhook cannot edit one.

Limits: Slack API reference, a section's text has at most 3000 characters, a message at most 50 blocks.
"""

from __future__ import annotations

from typing import Final

from opsloop.alerting.notice import Notice, vote_text
from opsloop.alerting.notify.request import Request, json_request
from opsloop.clock import utc
from opsloop.settings import ReceiverSettings

__all__ = ["MAX_SECTION", "payload", "request"]

MAX_SECTION: Final = 3000
MAX_MEMBERS: Final = 10
_MARKS: Final = {"firing": ":red_circle:", "resolved": ":white_check_mark:"}


def payload(notice: Notice) -> dict[str, object]:
    """Return the message: the title, then one section per member with its votes, then why it was sent."""
    blocks: list[dict[str, object]] = [_section(f"{_MARKS[notice.status]} *{_safe(notice.title)}*")]
    for member in notice.members[:MAX_MEMBERS]:
        votes = "\n".join(f"• {vote_text(vote)}" for vote in member.votes)
        since = utc(member.starts_at_ns)
        until = "" if member.ends_at_ns is None else f" until {utc(member.ends_at_ns)}"
        blocks.append(_section(f"{member.status} since {since}{until}\n{_safe(votes)}"))
    left = len(notice.members) - MAX_MEMBERS
    more = f" · {left} more not shown" if left > 0 else ""
    foot = f"{notice.reason} · `{_safe(notice.formula)}` · {notice.incident_key}{more}"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": foot[:MAX_SECTION]}]})
    return {"text": _safe(notice.title), "blocks": blocks}


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:MAX_SECTION]}}


def _safe(text: str) -> str:
    """Escape the three characters that Slack's markup reads."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def request(receiver: ReceiverSettings, notice: Notice, secret: str) -> Request:
    """Return the request; the webhook's URL is the secret, or the receiver's with ``{secret}`` in it."""
    return json_request(receiver, notice, payload(notice), secret=secret)
