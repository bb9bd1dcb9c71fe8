"""A notice: what a receiver is told about one alert, complete enough to be sent again after a crash.

A notice carries what a person on call needs: what, since when, each vote with its value, threshold, n and window, and
why it was sent. Its ``id`` is the idempotency key: receiver, alert, episode of the group and running number; sending it
twice is harmless because it is always the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from opsloop.verdict import Reading

__all__ = ["Member", "Notice", "quantity", "title", "vote_text"]

_QUALIFIER: Final = re.compile(r"_(p[0-9.]+|mean|max)$")


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key of the alert within a notice."""

    fingerprint: str
    labels: dict[str, str]
    status: Literal["firing", "resolved"]
    starts_at_ns: int
    ends_at_ns: int | None = None
    summary: str
    votes: tuple[Reading, ...] = ()
    window: tuple[int, int] = (0, 0)


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message to one receiver."""

    id: str
    receiver: str
    alert: str
    severity: str
    """``page`` or ``ticket``, as the rule says."""
    severe: bool = False
    status: Literal["firing", "resolved"]
    reason: str
    """Why it is sent now: first notification, new alerts added, …"""
    episode: str
    number: int
    at_ns: int
    formula: str
    title: str
    members: tuple[Member, ...]

    @property
    def incident_key(self) -> str:
        """The key of the whole episode to the outside: a resolve carries the same one as its page."""
        return f"opsloop/{self.alert}/{self.episode}"[:255]


def quantity(value: float, unit: str) -> str:
    """Return a value with its unit for people.

    >>> [quantity(2.31e6, "us"), quantity(0.042, "ratio"), quantity(0.62, "score"), quantity(1_250_000, "microusd")]
    ['2.31 s', '4.2 %', '0.62', '$1.25']
    """
    match unit:
        case "us":
            if abs(value) >= 1e6:
                return f"{value / 1e6:.2f} s"
            return f"{value / 1e3:.0f} ms" if abs(value) >= 1e3 else f"{value:.0f} us"
        case "ratio":
            return f"{value * 100:.1f} %"
        case "microusd":
            return f"${value / 1e6:.2f}"
        case "burn":
            return f"{value:.1f}x"
        case "score" | "":
            return f"{value:.2f}"
        case _:
            return f"{value:.4g} {unit}"


def vote_text(reading: Reading, *, measure: str = "") -> str:
    """Return one vote with its numbers.

    >>> from opsloop.verdict import Verdict
    >>> slow = Reading(
    ...     id="latency",
    ...     group="latency",
    ...     verdict=Verdict.BREACH,
    ...     value=2.31e6,
    ...     threshold=1.5e6,
    ...     unit="us",
    ...     n=240,
    ...     window_start_ns=0,
    ...     window_end_ns=1,
    ...     reason="",
    ... )
    >>> vote_text(slow, measure="latency_us_p95")
    'latency (p95 2.31 s > 1.50 s, n=240)'
    """
    found = _QUALIFIER.search(measure)
    qualifier = f"{found[1]} " if found else ""
    if reading.value is None:
        return f"{reading.id} ({reading.verdict}, n={reading.n})"
    value = f"{qualifier}{quantity(reading.value, reading.unit)}"
    if reading.threshold is not None:
        sign = ">" if reading.value > reading.threshold else "<" if reading.value < reading.threshold else "="
        value += f" {sign} {quantity(reading.threshold, reading.unit)}"
    return f"{reading.id} ({value}, n={reading.n})"


def title(
    alert: str, severity: str, reason: str, votes: Sequence[Reading], *, measures: Mapping[str, str], key: str = ""
) -> str:
    """Return the one line that a page shows."""
    named = f"{alert} [{key}]" if key else alert
    told = ", ".join(vote_text(vote, measure=measures.get(vote.id, "")) for vote in votes)
    return f"{named}: {severity}, {reason}" + (f": {told}" if told else "")
