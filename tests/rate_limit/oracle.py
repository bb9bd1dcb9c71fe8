"""The definition of a rate limit in exact rationals; it shares nothing with the implementation."""

from __future__ import annotations

from fractions import Fraction


class RateOracle:
    """Remembers what was admitted; an admit of ``cost`` at ``now`` is legal iff no interval holds too much."""

    def __init__(self, amount, period_ns, burst):
        self.per_ns = Fraction(amount, period_ns)
        self.burst = burst
        self.admitted = []

    def legal(self, cost, now_ns):
        """Tell whether an arrival may be admitted."""
        if cost > self.burst:
            return False
        total = Fraction(cost)
        for then_ns, earlier in reversed(self.admitted):
            total += earlier
            if total > self.burst + self.per_ns * (now_ns - then_ns):
                return False
        return True

    def record(self, cost, now_ns):
        """Remember what the subject admitted, rightly or not, so that a fault does not cascade."""
        self.admitted.append((now_ns, cost))
