"""What an answer of a server means for a batch, and how long to wait before the next try: pure, but for the request.

A passing failure is tried again: no connection, 429, 5xx. So is a refusal that an operator can lift (401, 403, 404,
redirects): the events wait, within their bound, for the right token or address. Only what can never be accepted is
given up: 400, 406, 413 for one event, 415, 422. The delay doubles up to a minute, with jitter so that a fleet does not
come back in step, and is never shorter than the server's ``Retry-After``.
"""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.errors import ConfigError

__all__ = [
    "FIRST_SECONDS",
    "Connection",
    "Meaning",
    "Reply",
    "delay_seconds",
    "meaning_of",
    "refused_of",
    "retry_after_seconds",
]

FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 60.0
MOST_RETRY_AFTER_SECONDS: Final = 600.0
_FINAL: Final = frozenset({400, 406, 415, 422})
_ANSWER_BYTES: Final = 1 << 16
_MOST_DIGITS: Final = 18


class Meaning(Enum):
    """What becomes of a batch."""

    STORED = "stored"
    LATER = "later"
    SPLIT = "split"
    REFUSED = "refused"


class Reply(NamedTuple):
    """An answer: its status, the header that matters, and its body."""

    status: int
    retry_after: str = ""
    body: bytes = b""


def meaning_of(status: int) -> Meaning:
    """Return what a status means for the batch.

    >>> [meaning_of(status).value for status in (200, 503, 401, 413, 400)]
    ['stored', 'later', 'later', 'split', 'refused']
    """
    if 200 <= status < 300:
        return Meaning.STORED
    if status == 413:
        return Meaning.SPLIT
    return Meaning.REFUSED if status in _FINAL else Meaning.LATER


def delay_seconds(attempt: int, *, chance: float, least_seconds: float = 0.0) -> float:
    """Return the wait after the ``attempt``-th failure in a row, from 1 on; ``chance`` in [0, 1) is the jitter.

    >>> delay_seconds(1, chance=0.0), delay_seconds(3, chance=0.5), delay_seconds(99, chance=0.0, least_seconds=45)
    (0.25, 1.5, 45)
    """
    whole = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt - 1, 30))
    return max(whole * (0.5 + chance / 2), least_seconds)


def retry_after_seconds(text: str, *, now_ns: int) -> float:
    """Return the seconds that a ``Retry-After`` header asks for: a number or an HTTP date (RFC 9110, 10.2.3).

    One that cannot be read asks for nothing; more than ten minutes count as ten.

    >>> retry_after_seconds("3", now_ns=0), retry_after_seconds("Thu, 01 Jan 1970 00:00:09 GMT", now_ns=2 * 10**9)
    (3.0, 7.0)
    """
    if text.strip().isdecimal():
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now_ns / NANOSECONDS
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_SECONDS)


def refused_of(body: bytes, most: int) -> tuple[int, str]:
    """Return how many of ``most`` events an answer to a batch refuses, and why, as our server or a collector says it.

    What makes no sense refuses none: the status has told that the batch is stored.

    >>> refused_of(b'{"accepted":1,"rejected":2,"reasons":["too old"]}', 3), refused_of(b'{"rejected":"many"}', 3)
    ((2, "['too old']"), (0, ''))
    >>> refused_of(b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no body"}}', 3)
    (1, 'no body')
    """
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0, ""
    answer = answer if isinstance(answer, dict) else {}
    partial = answer.get("partialSuccess")
    partial = partial if isinstance(partial, dict) else {}
    said = str(answer.get("rejected") or partial.get("rejectedLogRecords"))
    count = min(int(said), most) if said.isdecimal() and len(said) <= _MOST_DIGITS else 0
    return count, str(answer.get("reasons") or partial.get("errorMessage") or "")


class Connection:
    """One kept-alive connection to one address."""

    def __init__(self, url: str, *, headers: Mapping[str, str], timeout_seconds: float) -> None:
        """Take the address apart; raises :class:`ConfigError` when it is none."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"{url!r} is no address to send events to", fix="write http://HOST:PORT")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_seconds)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {**headers, "Content-Encoding": "gzip"}
        self._used = False

    def post(self, body: bytes) -> Reply:
        """Send one body; raises ``OSError`` or ``http.client.HTTPException`` when no whole answer comes."""
        packed = gzip.compress(body, compresslevel=5, mtime=0)
        try:
            return self._post(packed)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not self._used:
                raise
            self.close()  # the server has ended an idle connection, as it may
            return self._post(packed)

    def _post(self, body: bytes) -> Reply:
        try:
            self._connection.request("POST", self._path, body, self._headers)
            answer = self._connection.getresponse()
            text = answer.read(_ANSWER_BYTES)
            if answer.length and len(text) < _ANSWER_BYTES:
                raise http.client.IncompleteRead(text, answer.length)
            reply = Reply(answer.status, answer.getheader("Retry-After", "") or "", text)
            if not answer.isclosed():
                self.close()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        self._used = True
        return reply

    def close(self) -> None:
        """Close it; the next post opens it again."""
        self._used = False
        self._connection.close()
