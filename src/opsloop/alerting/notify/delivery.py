"""Delivery: one attempt to hand a notice to a receiver, and what its answer means.

The attempt is the only effect; the judging is pure. 2xx is sent. 429, 5xx, timeouts and connection errors are tried
again with exponential back-off, jitter that follows from the notice's id, and the receiver's ``Retry-After`` when that
is longer. Any other answer is final. After :data:`DEADLINE_SECONDS` a notice is given up, and that is said.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from opsloop.alerting.notice import Notice
from opsloop.alerting.notify import REQUESTS
from opsloop.alerting.notify.file import write
from opsloop.clock import NANOSECONDS, seeded
from opsloop.errors import ConfigError
from opsloop.settings import ReceiverSettings

__all__ = ["DEADLINE_SECONDS", "Answer", "HttpTransport", "Outcome", "Transport", "attempt", "delay_seconds", "judge"]

TIMEOUT_SECONDS: Final = 10.0
FIRST_DELAY_SECONDS: Final = 5.0
LAST_DELAY_SECONDS: Final = 300.0
DEADLINE_SECONDS: Final = 3600.0
MAX_ANSWER_BYTES: Final = 64 * 1024

Answer = tuple[int, Mapping[str, str], bytes]
"""(status, headers, body)."""


class Transport(Protocol):
    """Whatever can post; raises ``OSError`` (so ``TimeoutError`` too) when no answer came."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a body and return the answer."""
        ...


class HttpTransport:
    """The standard library's client: one connection per post, no redirects, a bounded answer."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a body and return the answer; raises ``OSError`` when there is none."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body=body, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read(MAX_ANSWER_BYTES)
        except http.client.HTTPException as cause:
            raise ConnectionError(f"no HTTP answer: {type(cause).__name__}") from cause
        finally:
            connection.close()


class Outcome(msgspec.Struct, frozen=True):
    """What became of one attempt."""

    outcome: Literal["sent", "retry", "failed"]
    reason: str
    retry_at_ns: int | None = None


def delay_seconds(notice_id: str, attempt_number: int) -> float:
    """Return the pause after an attempt: 5 s doubled each time up to 300 s, of which the last half is jitter.

    >>> 5 <= delay_seconds("pager:a:1", 2) <= 10
    True
    """
    longest = min(FIRST_DELAY_SECONDS * 2.0 ** (min(attempt_number, 32) - 1), LAST_DELAY_SECONDS)
    return longest * (0.5 + 0.5 * seeded(f"{notice_id}:{attempt_number}").random())


def judge(
    notice: Notice, attempt_number: int, *, now_ns: int, status: int | None, headers: Mapping[str, str], reason: str
) -> Outcome:
    """Return what an answer means; ``status`` is ``None`` when no answer came."""
    if status is not None and 200 <= status < 300:
        return Outcome("sent", reason)
    if status is not None and status != 429 and status < 500:
        return Outcome("failed", f"{reason}: final")
    pause = max(delay_seconds(notice.id, attempt_number), _retry_after(headers, now_ns))
    retry_at_ns = now_ns + round(pause * NANOSECONDS)
    if retry_at_ns > notice.at_ns + round(DEADLINE_SECONDS * NANOSECONDS):
        return Outcome("failed", f"{reason}: given up after {attempt_number} attempts")
    return Outcome("retry", reason, retry_at_ns)


def _retry_after(headers: Mapping[str, str], now_ns: int) -> float:
    """Return the seconds of a Retry-After header: a number or an HTTP date; anything else counts as none."""
    text = next((value.strip() for name, value in headers.items() if name.lower() == "retry-after"), "")
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_ns / NANOSECONDS)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def attempt(
    receiver: ReceiverSettings,
    notice: Notice,
    attempt_number: int,
    *,
    now_ns: int,
    transport: Transport,
    environ: Mapping[str, str],
) -> Outcome:
    """Try once to deliver a notice. What is said about it never holds the receiver's secret."""
    secret = environ.get(receiver.secret_env, "") if receiver.secret_env else ""
    status: int | None = None
    headers: Mapping[str, str] = {}
    try:
        if receiver.kind == "file":
            write(receiver.path or "notices.jsonl", notice)
            return Outcome("sent", "written")
        if receiver.secret_env and not secret:
            return Outcome("failed", f"the environment variable {receiver.secret_env} is not set: final")
        asked = REQUESTS[receiver.kind](receiver, notice, secret)
        status, headers, _ = transport.post(asked.url, asked.headers, asked.body)
        reason = f"status {status}"
    except ConfigError as cause:
        return Outcome("failed", _redacted(f"{cause}: final", secret))
    except ValueError as cause:  # the client refuses to send it; its message would quote the secret
        return Outcome("failed", f"{type(cause).__name__}: the URL or the secret is malformed: final")
    except OSError as cause:
        reason = _redacted(f"{type(cause).__name__}: {cause}", secret)
    return judge(notice, attempt_number, now_ns=now_ns, status=status, headers=headers, reason=reason)


def _redacted(text: str, secret: str) -> str:
    return text.replace(secret, "***") if secret else text
