"""SPRT: how often a live guard must be run before its verdict can be believed.

A model's answers vary, so one failure proves little and one pass as little. "Retry until green" passes a guard that
fails half the time; "three of three" blocks a guard that passes 99 times of 100 about three times of 100. Wald's
sequential probability ratio test (Wald 1945) tells a pass probability ``good`` from ``bad`` with both errors bounded,
in about five runs, and stops as soon as it knows.

A pass adds ln(bad/good), a failure ln((1-bad)/(1-good)). Block at ln((1-beta)/alpha) and above, pass at
ln(beta/(1-alpha)) and below; after ``max_runs`` it is inconclusive, which is neither.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from opsloop.errors import ConfigError

__all__ = ["Outlook", "Sprt"]


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule does at one true pass probability, by exact enumeration."""

    block: float
    inconclusive: float
    runs: float
    """The mean number of runs."""


class Sprt(msgspec.Struct, frozen=True, kw_only=True):
    """One test. ``alpha`` bounds blocking a good guard's change, ``beta`` passing a bad one's.

    >>> [Sprt().decide(passes, 0) for passes in (4, 5)]
    ['continue', 'pass']
    >>> round(Sprt().outlook(0.5).block, 3)
    0.96
    """

    good: float = 0.95
    bad: float = 0.5
    alpha: float = 0.01
    beta: float = 0.05
    max_runs: int = 25

    def __post_init__(self) -> None:
        """Refuse what is no test."""
        if not 0 < self.bad < self.good < 1:
            raise ConfigError(
                f"sprt: good {self.good:g} and bad {self.bad:g} cannot be told apart", fix="let 0 < bad < good < 1"
            )
        if not (0 < self.alpha < 1 and 0 < self.beta < 1 and self.alpha + self.beta < 1 and self.max_runs >= 1):
            raise ConfigError(
                f"sprt: alpha {self.alpha:g}, beta {self.beta:g}, max_runs {self.max_runs}",
                fix="let alpha + beta < 1, max_runs >= 1",
            )

    def decide(self, passes: int, failures: int) -> Literal["pass", "fail", "continue", "inconclusive"]:
        """Return what these counts mean."""
        ratio = passes * math.log(self.bad / self.good) + failures * math.log((1 - self.bad) / (1 - self.good))
        if ratio >= math.log((1 - self.beta) / self.alpha):
            return "fail"
        if ratio <= math.log(self.beta / (1 - self.alpha)):
            return "pass"
        return "continue" if passes + failures < self.max_runs else "inconclusive"

    def outlook(self, pass_probability: float) -> Outlook:
        """Return the exact chances of each verdict: every path of passes and failures is followed once."""
        live = {0: 1.0}
        block = inconclusive = runs = 0.0
        for n in range(1, self.max_runs + 1):
            reached: dict[int, float] = {}
            for failures, weight in live.items():
                for more, chance in ((0, pass_probability), (1, 1 - pass_probability)):
                    reached[failures + more] = reached.get(failures + more, 0.0) + weight * chance
            live = {}
            for failures, weight in reached.items():
                match self.decide(n - failures, failures):
                    case "fail":
                        block += weight
                        runs += n * weight
                    case "pass":
                        runs += n * weight
                    case "inconclusive":
                        inconclusive += weight
                        runs += n * weight
                    case "continue":
                        live[failures] = weight
        return Outlook(block=block, inconclusive=inconclusive, runs=runs)
