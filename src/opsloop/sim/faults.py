"""Faults: what can be made to go wrong with the simulated bot, when, and how badly.

A fault acts on requests that start in its window ``(start_ns, end_ns]``. Each request draws its chances in a fixed
order, fault or none, so two worlds that differ by one fault differ in nothing but that fault's consequences.

=====================  ======================================  ============================  =======================
kind                   strength                                target ("" is all)            moves
=====================  ======================================  ============================  =======================
retriever_outage       share of retrievals that time out       route                         retrieval, errors, latency
slow_model             factor on the model's time              model                         latency, saturation
hallucination_drift    share of invented answers at the end    model                         quality
tenant_spike           factor on the tenant's traffic          tenant (required)             traffic, rejections
malformed_output       share of answers that break off         route                         quality, errors (JSON)
upstream_429           share of model calls refused            provider                      upstream, errors, retries
bad_release            share of requests that crash            release (required)            errors
=====================  ======================================  ============================  =======================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

import msgspec

from opsloop.clock import utc
from opsloop.errors import ConfigError

__all__ = ["FAULT_KINDS", "Fault", "FaultKind", "active_faults", "share_of"]

FaultKind = Literal[
    "retriever_outage",
    "slow_model",
    "hallucination_drift",
    "tenant_spike",
    "malformed_output",
    "upstream_429",
    "bad_release",
]
FAULT_KINDS: Final[tuple[str, ...]] = get_args(FaultKind)
_FACTORS: Final = frozenset({"slow_model", "tenant_spike"})
_TARGETED: Final = frozenset({"tenant_spike", "bad_release"})
RAMP: Final = 0.5
"""The part of its window over which a drift grows from nothing to its full strength."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong between two moments.

    >>> outage = Fault("retriever_outage", 0, 600, 0.9)
    >>> outage.acts_at(0), outage.acts_at(600), outage.acts_at(601)
    (False, True, False)
    """

    kind: FaultKind
    start_ns: int
    end_ns: int
    strength: float
    """A share in (0, 1], or a factor above 1 for ``slow_model`` and ``tenant_spike``."""
    target: str = ""
    """What it is limited to: a model, provider, tenant, route or release, by kind."""

    def __post_init__(self) -> None:
        """Refuse a window without length, a strength out of range and a missing target."""
        if self.kind not in FAULT_KINDS:
            raise ConfigError(f"unknown fault {self.kind!r}", fix=f"use one of {', '.join(FAULT_KINDS)}")
        if self.end_ns <= self.start_ns:
            window = f"({utc(self.start_ns)}, {utc(self.end_ns)}]"
            raise ConfigError(f"{self.kind}: the window {window} is empty", fix="let it end after it starts")
        if self.kind in _FACTORS and not self.strength > 1:
            raise ConfigError(f"{self.kind}: strength {self.strength} is no factor above 1", fix="use 3.0, say")
        if self.kind not in _FACTORS and not 0 < self.strength <= 1:
            raise ConfigError(f"{self.kind}: strength {self.strength} is no share in (0, 1]", fix="use 0.5, say")
        if self.kind in _TARGETED and not self.target:
            raise ConfigError(f"{self.kind} needs a target", fix="name the tenant or release that it strikes")

    def acts_at(self, ts_ns: int) -> bool:
        """Return whether the moment lies in the fault's window."""
        return self.start_ns < ts_ns <= self.end_ns

    def strength_at(self, ts_ns: int) -> float:
        """Return how strong it is at a moment of its window: constant, but a drift grows over its first half.

        >>> drift = Fault("hallucination_drift", 0, 100, 0.8)
        >>> [drift.strength_at(moment) for moment in (25, 50, 100)]
        [0.4, 0.8, 0.8]
        """
        if self.kind != "hallucination_drift":
            return self.strength
        grown = (ts_ns - self.start_ns) / (RAMP * (self.end_ns - self.start_ns))
        return self.strength * min(1.0, max(0.0, grown))


def active_faults(faults: Iterable[Fault], *, start_ns: int, end_ns: int) -> tuple[Fault, ...]:
    """Return the faults whose window shares a moment with ``(start_ns, end_ns]``."""
    return tuple(fault for fault in faults if fault.start_ns < end_ns and fault.end_ns > start_ns)


def share_of(faults: Sequence[Fault], kind: FaultKind, ts_ns: int, target: str, *, base: float = 0.0) -> float:
    """Return the strength of a kind at a moment for a target: the strongest that applies, or ``base`` if that is more.

    >>> share_of([Fault("upstream_429", 0, 10, 0.5, "openai")], "upstream_429", 5, "anthropic", base=0.001)
    0.001
    """
    strength = base
    for fault in faults:
        if fault.kind == kind and fault.acts_at(ts_ns) and fault.target in {"", target}:
            strength = max(strength, fault.strength_at(ts_ns))
    return strength
