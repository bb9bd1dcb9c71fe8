"""One HTTP request to a receiver, and where its secret goes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from opsloop.alerting.notice import Notice
from opsloop.errors import ConfigError
from opsloop.settings import ReceiverSettings

__all__ = ["Request", "json_request"]


class Request(msgspec.Struct, frozen=True):
    """What is posted."""

    url: str
    headers: dict[str, str]
    body: bytes


def json_request(
    receiver: ReceiverSettings, notice: Notice, payload: Any, *, secret: str, default: str = ""
) -> Request:
    """Return a JSON request with its idempotency key.

    A secret replaces ``{secret}`` in the receiver's URL; without that mark it is the whole URL when none is set, else a
    bearer token. Raises :class:`ConfigError` when there is no URL to post to.
    """
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "opsloop",
        "Idempotency-Key": quote(notice.id, safe=":/=,"),
    }
    url = receiver.url or default
    if "{secret}" in url:
        url = url.replace("{secret}", secret)
    elif not url:
        url = secret
    elif secret and receiver.kind != "pagerduty":
        headers["Authorization"] = f"Bearer {secret}"
    if urlsplit(url).scheme not in {"http", "https"}:
        message = f"receiver {receiver.id!r} of kind {receiver.kind} has no http URL to post to"
        raise ConfigError(message, fix="set its url, or secret_env to a variable that holds it")
    return Request(url, headers, msgspec.json.encode(payload))
