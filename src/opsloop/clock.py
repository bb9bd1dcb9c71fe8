"""Time, chance and ids: the only file that reads a clock or rolls a die.

Everything else is handed a :class:`Clock` and an :class:`Ids`, so every decision can be tested without sleeping and
replayed over yesterday's events. There are two times, and they are not interchangeable:

* ``now_ns()``: wall-clock time, nanoseconds since 1970-01-01 UTC. For timestamps. It can jump.
* ``monotonic_ns()``: never goes back and has no meaning outside its process. For durations and deadlines.
"""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "Ids", "ManualClock", "SeededIds", "SystemClock", "SystemIds", "parse_time", "seeded", "utc"]

NANOSECONDS = 1_000_000_000


@runtime_checkable
class Clock(Protocol):
    """What the rest of the package knows of time."""

    def now_ns(self) -> int:
        """Return wall-clock time in nanoseconds since the epoch, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Return a time in nanoseconds that never goes back, for durations."""
        ...


class SystemClock:
    """The machine's own clocks: ``now_ns()`` and ``monotonic_ns()``, without a call in between."""

    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


class ManualClock:
    """A clock that stands still until it is told to move.

    >>> clock = ManualClock("2026-01-05T09:00:00Z")
    >>> clock.advance(seconds=1.5)
    >>> utc(clock.now_ns())
    '2026-01-05T09:00:01.500Z'
    """

    def __init__(self, start: int | str = 0) -> None:
        """Start at ``start``: nanoseconds since the epoch, or an ISO 8601 time with a zone."""
        self._now_ns = start if isinstance(start, int) else parse_time(start)
        self._monotonic_ns = 0

    def now_ns(self) -> int:
        """Return the time that was set."""
        return self._now_ns

    def monotonic_ns(self) -> int:
        """Return how far the clock was advanced, in nanoseconds."""
        return self._monotonic_ns

    def advance(self, *, seconds: float = 0, ns: int = 0) -> None:
        """Move both clocks on. Raises ``ValueError`` for a negative step: use :meth:`set_time` to jump back."""
        step = round(seconds * NANOSECONDS) + ns
        if step < 0:
            raise ValueError(f"cannot advance by {step} ns: use set_time() to move the wall clock back")
        self._now_ns += step
        self._monotonic_ns += step

    def set_time(self, moment: int | str) -> None:
        """Set the wall clock, forward or back, as an operator or NTP would; the monotonic clock does not move."""
        self._now_ns = moment if isinstance(moment, int) else parse_time(moment)


class Ids(Protocol):
    """Where new identifiers come from."""

    def request_id(self) -> str:
        """Return a new request id."""
        ...

    def trace_id(self) -> str:
        """Return 32 hex digits, not all zero (W3C Trace Context)."""
        ...

    def span_id(self) -> str:
        """Return 16 hex digits, not all zero (W3C Trace Context)."""
        ...


class SystemIds:
    """Ids from the operating system's random source."""

    def request_id(self) -> str:
        """Return ``req-`` and 16 hex digits."""
        return f"req-{secrets.token_hex(8)}"

    def trace_id(self) -> str:
        """Return 32 random hex digits."""
        return secrets.token_hex(16)

    def span_id(self) -> str:
        """Return 16 random hex digits."""
        return secrets.token_hex(8)


class SeededIds:
    """Ids that come out the same on every run with the same seed.

    >>> SeededIds(7).request_id() == SeededIds(7).request_id()
    True
    """

    def __init__(self, seed: int = 0) -> None:
        """Start the sequence at ``seed``."""
        self._random = seeded(seed)

    def request_id(self) -> str:
        """Return ``req-`` and 16 hex digits."""
        return f"req-{self._random.getrandbits(64):016x}"

    def trace_id(self) -> str:
        """Return 32 hex digits."""
        return f"{self._random.getrandbits(128) | 1:032x}"

    def span_id(self) -> str:
        """Return 16 hex digits."""
        return f"{self._random.getrandbits(64) | 1:016x}"


def seeded(seed: int | str) -> random.Random:
    """Return a private random generator whose whole sequence follows from ``seed``.

    >>> seeded(1).random() == seeded(1).random()
    True
    """
    return random.Random(seed)  # noqa: S311 - simulation and jitter, never secrets


def parse_time(text: str) -> int:
    """Return nanoseconds since the epoch for an ISO 8601 time with a zone, exact to the nanosecond.

    Raises ``ValueError`` when the text is no time or names no zone: a local time without one is a guess.

    >>> parse_time("1970-01-01T00:00:01.000000002Z")
    1000000002
    """
    head, dot, tail = text.partition(".")
    digits = ""
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        head += tail[len(digits) :]
    moment = datetime.fromisoformat(head)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: add Z or an offset such as +02:00")
    whole = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return whole * NANOSECONDS + int((digits + "0" * 9)[:9])


def utc(ts_ns: int) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds, for people and for JSON.

    >>> utc(1_767_603_600_250_000_000)
    '2026-01-05T09:00:00.250Z'
    """
    seconds, rest = divmod(ts_ns, NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
