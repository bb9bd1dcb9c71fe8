"""Quality: the mean score of the answers of a window, weighted by how likely each was to be scored.

Mean
    ``sum(x / p) / sum(1 / p)`` over scored rows, x the score and p its inclusion probability (Hajek 1971): an answer
    that stood for ten counts for ten. A row without a probability was certain to be scored.
Limits
    An answer that could not be scored is counted apart; it is neither a 0 nor a 1. A score outside [0, 1] or a
    probability outside [1e-9, 1] is no measurement and is left out.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from opsloop.dashboard.window import Window, number
from opsloop.event import Event, flatten

__all__ = ["LEAST_PROBABILITY", "Quality", "quality", "score_of"]

LEAST_PROBABILITY: Final = 1e-9
"""Below this one answer would stand for a thousand million, and a weight could overflow."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of a window."""

    mean: float | None = None
    """In [0, 1]; ``None`` when nothing was scored."""
    scored: int = 0
    unscored: int = 0


def quality(window: Window) -> Quality:
    """Work out the quality of a window.

    >>> half = {"status": "scored", "score": 0.5, "probability": 0.1}
    >>> full = {"status": "scored", "score": 1.0, "probability": 1.0}
    >>> seen = [Event(ts_ns=1, event="score", attributes=half), Event(ts_ns=2, event="score", attributes=full)]
    >>> round(quality(Window.of(seen, start_ns=0, end_ns=10)).mean, 4)
    0.5455
    """
    rows = window.of_kind("score")
    pairs = [pair for pair in map(score_of, rows) if pair is not None]
    unscored = sum(flatten(event.attributes).get("status") == "unscored" for event in rows)
    if not pairs:
        return Quality(unscored=unscored)
    mean = math.fsum(score / share for score, share in pairs) / math.fsum(1 / share for _, share in pairs)
    return Quality(mean=mean, scored=len(pairs), unscored=unscored)


def score_of(event: Event) -> tuple[float, float] | None:
    """Return (score, inclusion probability) of a scored row, or ``None`` for any other event."""
    if event.event != "score":
        return None
    leaves = flatten(event.attributes)
    score, share = number(leaves.get("score")), number(leaves.get("probability", "1"))
    if leaves.get("status") != "scored" or score is None or share is None:
        return None
    return (score, share) if 0 <= score <= 1 and LEAST_PROBABILITY <= share <= 1 else None
