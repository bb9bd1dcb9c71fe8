"""Thinning what is written, without bias: a share of the ordinary events, every failure, and the share on each.

The decision follows from the request alone (BLAKE2b of its id, as a fraction of 1, below the probability), so a request
keeps all of its sampled lines or none, in every process that takes part in it. An event outside of a request is decided
by its own content. Each event of a sampled kind carries ``sample_probability``: a sum over ``1 / sample_probability``
is an unbiased estimate of what there was (Horvitz and Thompson, 1952).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from opsloop.errors import ConfigError
from opsloop.event import Event, encode_event

__all__ = ["Sampling", "fraction"]

_KEPT: Final = frozenset({"ERROR", "FATAL"})


def fraction(text: str) -> float:
    """Return a number in [0, 1) that follows from a text and is spread evenly over texts.

    >>> fraction("req-1") == fraction("req-1"), 0 <= fraction("req-2") < 1
    (True, True)
    """
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=7).digest()
    return (int.from_bytes(digest) >> 3) / 2**53


class Sampling:
    """The probability of each sampled kind; a kind that is not named is kept whole.

    >>> sampling = Sampling({"log": 0.25})
    >>> fate = [sampling.apply(Event(ts_ns=0, event="log", request_id=f"req-{n}")) for n in range(1000)]
    >>> sum(event is not None for event in fate)
    251
    >>> sampling.apply(Event(ts_ns=0, event="log", error=True)).attributes
    {'sample_probability': 1.0}
    """

    def __init__(self, probabilities: float | Mapping[str, float]) -> None:
        """Take one probability for ``log`` events, or one per kind; raises :class:`ConfigError` outside of [0, 1]."""
        chosen = {"log": probabilities} if isinstance(probabilities, int | float) else dict(probabilities)
        for kind, probability in chosen.items():
            if not 0 <= probability <= 1:
                message = f"the sample probability of {kind!r} is {probability}"
                raise ConfigError(message, fix="choose one from 0 to 1")
        self.probabilities: Mapping[str, float] = MappingProxyType({kind: float(p) for kind, p in chosen.items()})

    def apply(self, event: Event) -> Event | None:
        """Return the event with its probability, unchanged when its kind is not sampled, ``None`` when left out."""
        probability = self.probabilities.get(event.event)
        if probability is None:
            return event
        if event.error or event.severity in _KEPT:
            probability = 1.0
        elif fraction(event.request_id or event.trace_id or encode_event(event).decode()) >= probability:
            return None
        return event.replace(attributes={**event.attributes, "sample_probability": probability})
