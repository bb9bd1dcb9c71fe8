"""Traffic to compare burn over: for each step the failed and all events, the same on every run."""

from __future__ import annotations

import math

from opsloop.clock import seeded

MINUTE = 60
FIVE_MINUTES = 300
DAY_STEPS = 24 * 12


def _drawn(name, rates, *, errors):
    """Draw each step's events around its rate, and how many of them failed."""
    chance = seeded(name)
    counts = []
    for step, rate in enumerate(rates):
        total = round(rate + (chance.random() - 0.5) * rate) if rate >= 4 else int(chance.random() < rate)
        ratio = errors(step)
        counts.append((sum(chance.random() < ratio for _ in range(total)), total))
    return counts


def steady(minutes=300):
    """Half of the budget of 99% all the time."""
    return _drawn("steady", [40] * minutes, errors=lambda _: 0.005)


def spike(minutes=420):
    """Most requests fail for twenty minutes; later everything fails for four."""
    at = {**dict.fromkeys(range(150, 170), 0.8), **dict.fromkeys(range(330, 334), 1.0)}
    return _drawn("spike", [40] * minutes, errors=lambda step: at.get(step, 0.001))


def slow_burn(minutes=480):
    """A share of failures that creeps from nothing to a tenth."""
    return _drawn("slow burn", [30] * minutes, errors=lambda step: step / 3000)


def low_traffic(minutes=480):
    """Six requests an hour, of which a few fail."""
    return _drawn("low traffic", [0.1] * minutes, errors=lambda step: 0.25 if 200 < step < 400 else 0.02)


def gap(minutes=480):
    """No request at all for two and a half hours in the middle of an outage."""
    rates = [0 if 200 <= step < 350 else 20 for step in range(minutes)]
    return _drawn("gap", rates, errors=lambda step: 0.4 if 180 < step < 400 else 0.004)


def on_the_edge(minutes=300):
    """Exactly six in a hundred fail, all the time: six times what 99% allow, and not more."""
    return [(6, 100)] * minutes


def diurnal():
    """A day in steps of five minutes whose nights are quiet, with an outage at night and one by day."""
    rates = [110 + 100 * math.sin(step / DAY_STEPS * 2 * math.pi) for step in range(DAY_STEPS)]
    at = {**dict.fromkeys(range(80, 86), 0.3), **dict.fromkeys(range(210, 222), 0.6)}
    return _drawn("diurnal", rates, errors=lambda step: at.get(step, 0.003))


def four_days():
    """Four days in steps of five minutes, with a day that loses three times its budget."""
    rates = [60 + 50 * math.sin(step / DAY_STEPS * 2 * math.pi) for step in range(4 * DAY_STEPS)]
    return _drawn("four days", rates, errors=lambda step: 0.05 if DAY_STEPS * 1.2 < step < DAY_STEPS * 2.4 else 0.004)


SCENARIOS = {
    "steady": (steady, MINUTE),
    "spike": (spike, MINUTE),
    "slow burn": (slow_burn, MINUTE),
    "low traffic": (low_traffic, MINUTE),
    "gap": (gap, MINUTE),
    "on the edge": (on_the_edge, MINUTE),
    "diurnal": (diurnal, FIVE_MINUTES),
    "four days": (four_days, FIVE_MINUTES),
}
