"""Which answers are scored, decided by the request's id alone.

Every request has one number ``u`` in [0, 1), from SHA-256 of its id. It is scored iff ``u < probability``. So a retry
decides alike, every process decides alike, all scorers meet on the same requests, and a higher rate contains a lower
one. The inclusion probability travels with each score, and estimates weight by its inverse.

Where only k answers can be afforded, :func:`priority_sample` keeps exactly the k of greatest ``weight / u`` and says
with which probability each got in (N. Duffield, C. Lund, M. Thorup: Priority sampling for estimation of arbitrary
subset sums, J. ACM 54(6), 2007).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

import msgspec

from opsloop.errors import ConfigError

__all__ = ["DOMAIN", "Sampled", "priority_sample", "sample_key", "sampled", "stratum_rates"]

DOMAIN: Final = "opsloop:sample:v1\0"
"""Stands before the id in the hash: another purpose takes another domain, and so samples independently."""

S = TypeVar("S", bound=Hashable)


class Sampled(msgspec.Struct, frozen=True):
    """The decision about one request, with what it rests on."""

    request_id: str
    u: float
    probability: float
    """The chance, over all ids, with which such a request is taken."""
    taken: bool
    reason: str


def sample_key(request_id: str) -> float:
    """Return the request's number in [0, 1): 53 bits of SHA-256, so every value is exact.

    >>> sample_key("req-A"), sample_key("req-B")
    (0.5904327009130291, 0.02208485819775874)
    """
    digest = hashlib.sha256((DOMAIN + request_id).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def sampled(request_id: str, rate: float) -> Sampled:
    """Decide whether a request is scored at ``rate``, a share in [0, 1].

    >>> sampled("req-B", 0.1).reason
    'taken: u 0.0221 is below the rate 0.1'
    """
    rate = _share(rate, "the sampling rate")
    u = sample_key(request_id)
    taken = u < rate
    reason = f"{'taken' if taken else 'left out'}: u {u:.4f} is {'below' if taken else 'not below'} the rate {rate:g}"
    return Sampled(request_id, u, rate, taken, reason)


def stratum_rates(previous: Mapping[S, int], budgets: Mapping[S, float], *, minimum: float = 0.01) -> dict[S, float]:
    """Return each stratum's sampling rate for the window that begins now.

    ``previous`` holds how many requests each stratum had in the *previous* window, ``budgets`` how many scores it may
    cost. Looking only backward keeps the rate independent of what it samples, which estimates and the drift promise
    need. rate = clip(budget / requests, minimum, 1); a stratum that had no request is scored in full.

    >>> stratum_rates({"chat": 1000, "search": 20}, {"chat": 50, "search": 50, "new": 50})
    {'chat': 0.05, 'search': 1.0, 'new': 1.0}
    """
    low = _share(minimum, "the minimum rate")
    rates = {}
    for stratum, budget in budgets.items():
        count = previous.get(stratum, 0)
        rates[stratum] = 1.0 if count <= 0 else min(1.0, max(low, budget / count))
    return rates


def priority_sample(weights: Mapping[str, float], most: int) -> list[Sampled]:
    """Take exactly ``most`` requests (or all, if there are fewer), the heavier the likelier.

    ``weights`` maps request ids to positive weights. q = weight / u; the ``most`` largest are kept, tau is the next q,
    and probability = min(1, weight / tau). Merging two samples' inputs gives the sample of both.

    >>> [taken.request_id for taken in priority_sample({"req-A": 1.0, "req-B": 1.0, "req-C": 1.0}, 1)]
    ['req-B']
    """
    if most < 1:
        return []
    for request_id, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"request {request_id!r} has weight {weight}", fix="give each a positive finite weight")
    ranked = sorted(((_priority(name, weight), name) for name, weight in weights.items()), reverse=True)
    tau = ranked[most][0] if most < len(ranked) else 0.0
    return [_taken(name, weights[name], tau) for _, name in ranked[:most]]


def _priority(request_id: str, weight: float) -> float:
    return weight / max(sample_key(request_id), 2.0**-54)


def _taken(request_id: str, weight: float, tau: float) -> Sampled:
    probability = min(1.0, weight / tau) if tau else 1.0
    reason = f"taken: weight {weight:g} over u is among the largest, threshold {tau:.4g}"
    return Sampled(request_id, sample_key(request_id), probability, taken=True, reason=reason)


def _share(value: float, what: str) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{what} is {value}", fix="give a share between 0 and 1")
    return float(value)
