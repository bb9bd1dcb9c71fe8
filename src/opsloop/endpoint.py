"""Endpoints: what a room answers over HTTP and on the command line, as plain functions.

A room's ``api`` file returns a tuple of :class:`Endpoint`. The server mounts them and puts them into the OpenAPI
document; the command line calls the same ones over HTTP when a server runs, or in its own process when none does. So a
handler knows nothing of either: it gets checked arguments and returns a value that msgspec can encode.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS, Clock, parse_time
from opsloop.errors import InputError

__all__ = [
    "WINDOW_PARAMETERS",
    "Arguments",
    "Download",
    "Endpoint",
    "Parameter",
    "ago_seconds",
    "duration_seconds",
    "window_of",
]


class Parameter(msgspec.Struct, frozen=True):
    """One query or path parameter."""

    name: str
    help: str
    kind: Literal["string", "integer", "number", "boolean"] = "string"
    required: bool = False


Arguments = Mapping[str, str]
"""Path and query parameters by name, as text."""


class Download(msgspec.Struct, frozen=True):
    """An answer that is a file, made while it is sent: it may be larger than memory."""

    filename: str
    media_type: str
    chunks: Generator[bytes, None, None]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. ``handler(arguments, body)`` returns the answer or raises :class:`OpsloopError`.

    The answer is a value that msgspec can encode, or a :class:`Download`.
    """

    path: str
    """Such as ``/api/requests/{request_id}``."""
    summary: str
    handler: Callable[[Arguments, bytes], Any]
    method: Literal["GET", "POST"] = "GET"
    parameters: tuple[Parameter, ...] = ()
    scope: Literal["read", "ingest", "admin"] = "read"
    """The token scope that it takes."""


WINDOW_PARAMETERS: Final = (
    Parameter("from", "start of the window: ISO 8601, ns since the epoch, or a time ago such as 1h"),
    Parameter("to", "end of the window, in the same forms; now when left out"),
)
_DURATION: Final = re.compile(r"(?P<amount>[0-9]+(?:\.[0-9]+)?)(?P<unit>ms|us|s|m|h|d|w)")
_MOST_DIGITS: Final = 20
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def duration_seconds(text: str) -> float:
    """Return the seconds that a text such as ``90s``, ``1.5h`` or ``7d`` means; raises :class:`InputError`.

    >>> duration_seconds("1.5h")
    5400.0
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is no duration", fix="write a number with us, ms, s, m, h, d or w, such as 15m")
    return float(match["amount"]) * _UNITS[match["unit"]]


def ago_seconds(text: str) -> float:
    """Return how long ago a text such as ``15m``, ``-15m`` or ``15m ago`` means; raises :class:`InputError`.

    >>> ago_seconds("-1.5h"), ago_seconds("90s ago")
    (5400.0, 90.0)
    """
    return duration_seconds(text.strip().removeprefix("-").removesuffix(" ago"))


def window_of(arguments: Arguments, *, clock: Clock, default_seconds: float = 3600.0) -> tuple[int, int]:
    """Return (start_ns, end_ns) of the window that ``from`` and ``to`` name.

    >>> from opsloop.clock import ManualClock
    >>> window_of({"from": "10s"}, clock=ManualClock(60 * 10**9))
    (50000000000, 60000000000)
    """
    now_ns = clock.now_ns()
    end_ns = _moment(arguments["to"], now_ns) if arguments.get("to") else now_ns
    start_ns = (
        _moment(arguments["from"], now_ns) if arguments.get("from") else end_ns - round(default_seconds * NANOSECONDS)
    )
    if start_ns >= end_ns:
        raise InputError("the window's start is not before its end", fix="let from be earlier than to")
    return start_ns, end_ns


def _moment(text: str, now_ns: int) -> int:
    if text == "now":
        return now_ns
    if text.isdecimal() and len(text) <= _MOST_DIGITS:
        return int(text)
    with suppress(InputError):
        return now_ns - round(ago_seconds(text) * NANOSECONDS)
    try:
        return parse_time(text)
    except ValueError as cause:
        raise InputError(f"{text!r} is no time", fix="write ISO 8601 with a zone, or a time ago such as 1h") from cause
