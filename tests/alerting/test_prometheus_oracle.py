"""With its own knobs off, an alert lives as one of Prometheus does: pending, firing, kept, gone."""

from __future__ import annotations

import pytest

from opsloop.alerting.lifecycle import AlertState, Phase, Timing, step
from opsloop.clock import NANOSECONDS, seeded
from opsloop.verdict import Verdict
from tests.integrations.promtool import expect, needs_closed_windows, run, series

SERIES = 60
INSTANTS = 80
MINUTE = 60
LOOKBACK = 5
"""Minutes for which an instant query sees a sample, both ends included: Prometheus before 3."""
FOR_MINUTES = 5
KEEP_MINUTES = 10
STATES = {"pending": {Phase.PENDING}, "firing": {Phase.FIRING, Phase.RECOVERING}}


def drawn(number):
    """Draw samples in runs, so that all durations occur: true, false, missing, stale."""
    chance = seeded(f"series {number}")
    found = []
    while len(found) < INSTANTS:
        kind = chance.choices([1, 0, None, "stale"], weights=[5, 3, 2, 1])[0]
        found += [kind] * (1 if kind == "stale" else chance.randint(1, 12))
    return found[:INSTANTS]


def seen(samples, instant, *, lookback=LOOKBACK):
    """Return the sample that a query at an instant sees, or ``None``."""
    for back in range(min(lookback, instant) + 1):
        sample = samples[instant - back]
        if sample is not None:
            return None if sample == "stale" else sample
    return None


def phases(samples, *, timing, lookback=LOOKBACK):
    """Return our phase at each instant; a vanished series reads as false, which is what Prometheus does."""
    state, found = AlertState(), []
    for instant in range(len(samples)):
        verdict = Verdict.BREACH if seen(samples, instant, lookback=lookback) == 1 else Verdict.OK
        state, _ = step(state, verdict, instant * MINUTE * NANOSECONDS, timing=timing)
        found.append(state.phase)
    return found


def life(*, for_minutes=FOR_MINUTES, keep_minutes=KEEP_MINUTES, lookback=LOOKBACK):
    """Return promtool's exit code and words for the life of every series by our machine with these knobs."""
    timing = Timing(for_seconds=for_minutes * MINUTE, clear_for_seconds=keep_minutes * MINUTE, expire_seconds=1e9)
    lives = [phases(drawn(number), timing=timing, lookback=lookback) for number in range(SERIES)]
    tests = []
    for instant in range(INSTANTS):
        for state, kinds in STATES.items():
            alive = [number for number in range(SERIES) if lives[number][instant] in kinds]
            samples = [(f'{{alertname="Oracle", alertstate="{state}", s="{number}"}}', 1) for number in alive]
            query = f'sum without (__name__) (ALERTS{{alertstate="{state}"}})'
            tests.append(expect(query, instant * MINUTE, samples))
    return tests


RULES = [
    {
        "name": "oracle",
        "rules": [
            {"alert": "Oracle", "expr": "x == 1", "for": f"{FOR_MINUTES}m", "keep_firing_for": f"{KEEP_MINUTES}m"}
        ],
    }
]


def verdict_of(folder, tests):
    """Let promtool judge our lives."""
    inputs = [series(f'x{{s="{number}"}}', drawn(number)) for number in range(SERIES)]
    return run(folder, RULES, interval_seconds=MINUTE, inputs=inputs, tests=tests)


@needs_closed_windows
def test_an_alert_lives_as_in_prometheus(tmp_path, capsys):
    """60 random series over 80 instants, with gaps and stale markers: every state is the same."""
    code, said = verdict_of(tmp_path, life())
    assert code == 0, said[:3000]
    with capsys.disabled():
        print(f"\n  {SERIES * INSTANTS * len(STATES)} states agree with Prometheus")  # noqa: T201 - how much was compared


@needs_closed_windows
@pytest.mark.parametrize(
    "knobs",
    [
        {"for_minutes": FOR_MINUTES + 1 / 60},
        {"keep_minutes": KEEP_MINUTES + 1 / 60},
        {"lookback": LOOKBACK - 1},
        {"lookback": LOOKBACK + 1},
    ],
    ids=["> in for", "<= in keep", "look-back short by one", "look-back long by one"],
)
def test_a_machine_off_by_one_is_found(knobs, tmp_path):
    """A comparison that is strict where it should not be, or a look-back off by one, disagrees somewhere."""
    code, said = verdict_of(tmp_path, life(**knobs))
    assert code == 1
    assert "FAILED" in said
