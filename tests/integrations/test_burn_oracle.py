"""Prometheus says what we say: every ratio, burn and alert, over eight scenarios."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.dashboard import Count, budget, burn, judge_tiers, tail, tiers
from opsloop.dashboard.burn import ALPHA
from opsloop.integrations.prometheus_rules import (
    BAD,
    NATS,
    TOTAL,
    duration,
    edge,
    evidence_nats,
    prometheus_rules,
    rule_groups,
    rule_windows,
)
from opsloop.settings import DEFAULT_SLOS, Settings, SloSettings
from opsloop.verdict import Verdict
from tests.integrations.promtool import expect, needs_closed_windows, needs_promtool, rounded, run, series
from tests.integrations.scenarios import SCENARIOS

TARGET = 0.99
FAR = 1_000_000
"""Where the counters start: Prometheus extrapolates no counter below zero."""
PLAIN, GUARDED = "plain", "guarded"


class Truth:
    """A scenario's counts, and what burn.py says of them at each step."""

    def __init__(self, counts, step_seconds):
        self.counts = counts
        self.step_seconds = step_seconds
        self._bad = [0, *itertools.accumulate(bad for bad, _ in counts)]
        self._total = [0, *itertools.accumulate(total for _, total in counts)]
        self.tiers = tiers(target=TARGET, period_days=30)

    def window(self, step, seconds):
        """Count the events of ``(end - seconds, end]`` where step ``n`` ends at ``n * step_seconds``."""
        start = max(0, step - round(seconds / self.step_seconds))
        return Count(self._bad[step] - self._bad[start], self._total[step] - self._total[start])

    def pairs(self, step):
        """Return the (long, short) counts of each tier."""
        return [(self.window(step, tier.long_seconds), self.window(step, tier.short_seconds)) for tier in self.tiers]

    def burning(self, step):
        """Tell of each tier whether both windows burn: what is breached, or would be with more evidence."""
        readings = judge_tiers(self.tiers, self.pairs(step), target=TARGET)
        return [reading.verdict in {Verdict.BREACH, Verdict.INSUFFICIENT} for reading in readings]

    def proven(self, step):
        """Tell of each tier whether it is in breach: burning, with the exact guard's evidence."""
        readings = judge_tiers(self.tiers, self.pairs(step), target=TARGET)
        return [reading.verdict is Verdict.BREACH for reading in readings]

    def bounded(self, step):
        """Tell of each tier whether it burns with evidence by Chernoff's bound."""
        return [
            on and evidence_nats(long, TARGET) * self.stretched(step, tier.long_seconds) > NATS
            for on, tier, (long, _) in zip(self.burning(step), self.tiers, self.pairs(step), strict=True)
        ]

    def stretched(self, step, seconds):
        """Return by how much Prometheus extrapolates a count whose counter is younger than the window."""
        covered = step * self.step_seconds
        missing = max(0, seconds - covered)
        return 1 + (missing if missing < 1.1 * self.step_seconds else self.step_seconds / 2) / covered

    def inputs(self):
        """Return the counters as Prometheus scrapes them, for a plain and a guarded objective."""
        return [
            series(f'{name}{{slo="{slo}"}}', [FAR + value for value in values])
            for slo in (PLAIN, GUARDED)
            for name, values in ((BAD, self._bad), (TOTAL, self._total))
        ]


def groups():
    """Return the rules of both objectives: without evidence, as a column beside it with."""
    plain, guarded = (SloSettings(id=name, target=TARGET) for name in (PLAIN, GUARDED))
    return rule_groups([plain], service="bot", evidence=False) + rule_groups([guarded], service="bot", evidence=True)


def labels(slo, **more):
    """Return a label set as promtool reads it."""
    pairs = {"service": "bot", "slo": slo, **more}
    return "{" + ", ".join(f'{name}="{value}"' for name, value in pairs.items()) + "}"


def fires(slo, alert, seconds, firing):
    """Expect an alert to fire, or not."""
    expr = f'count(ALERTS{{slo="{slo}", alertname="{alert}", alertstate="firing"}})'
    return expect(expr, seconds, [("{}", 1)] if firing else [])


def expected(truth, steps):
    """Return what Prometheus has to say at each step, by our own numbers."""
    tests = []
    pairs = sorted({seconds for tier in truth.tiers for seconds in (tier.long_seconds, tier.short_seconds)})
    ratios = f'{{__name__=~"slo:sli_error:ratio_rate.*", slo="{PLAIN}", window!="30d"}}'
    burns = f'{ratios} / on (service, slo) group_left slo:error_budget:ratio{{slo="{PLAIN}"}}'
    for step in steps:
        at = step * truth.step_seconds
        counts = {duration(seconds): truth.window(step, seconds) for seconds in pairs}
        known = {window: count for window, count in counts.items() if count.total}
        shares = [(labels(PLAIN, window=window), rounded(each.bad / each.total)) for window, each in known.items()]
        spent = [(labels(PLAIN, window=window), rounded(burn(each, TARGET))) for window, each in known.items()]
        tests += [expect(f"round({ratios}, 1e-9)", at, shares), expect(f"round({burns}, 1e-9)", at, spent)]
        for slo, verdicts in ((PLAIN, truth.burning(step)), (GUARDED, truth.bounded(step))):
            tests.append(fires(slo, "SloBurnsFast", at, any(verdicts[:2])))
            tests.append(fires(slo, "SloBurnsSlowly", at, any(verdicts[2:])))
    return tests


def points(truth, tests):
    """Count what is compared: each window's ratio and burn, known or not, and two alerts with and without evidence."""
    windows = {seconds for tier in truth.tiers for seconds in (tier.long_seconds, tier.short_seconds)}
    return len(tests) // 6 * (2 * len(windows) + 4)


def truth_of(name):
    """Return the truth of a scenario and the steps to look at: every fourth minute, or every hour."""
    make, step_seconds = SCENARIOS[name]
    counts = make()
    stride = 4 if len(counts) < 1000 else 12
    return Truth(counts, step_seconds), range(5, len(counts) + 1, stride)


@needs_closed_windows
@pytest.mark.parametrize("name", SCENARIOS)
def test_prometheus_agrees_at_every_point(name, tmp_path, capsys):
    """Ratios, burns and alerts are those of burn.py, without evidence, and with it as Chernoff bounds it."""
    truth, steps = truth_of(name)
    tests = expected(truth, steps)
    code, said = run(tmp_path, groups(), interval_seconds=truth.step_seconds, inputs=truth.inputs(), tests=tests)
    assert code == 0, said[:4000]
    columns = ("burning", truth.burning), ("with exact evidence", truth.proven), ("with the bound", truth.bounded)
    fired = []
    for how, find in columns:
        pages, tickets = (sum(any(find(step)[part]) for step in steps) for part in (slice(2), slice(2, 4)))
        fired.append(f"{pages} pages and {tickets} tickets {how}")
    with capsys.disabled():
        print(f"\n  {name}: {points(truth, tests)} points agree; {', '.join(fired)}")  # noqa: T201 - how much was compared


MUTANTS = {
    "the hour is a minute long": ("spike", 240, lambda text: text.replace("[1h]", "[61m]")),
    "the hour is a minute short": ("spike", 240, lambda text: text.replace("[1h]", "[59m]")),
    "the long window only": ("spike", 240, lambda text: text.replace("ratio_rate5m{", "ratio_rate1h{")),
    "the short window only": ("spike", 240, lambda text: text.replace("ratio_rate1h{", "ratio_rate5m{")),
    "not strictly above": ("on the edge", 90, lambda text: text.replace("> 0.06", ">= 0.06")),
    "no evidence": ("low traffic", 330, lambda text: text.replace(f"> {NATS!r}", "> 0")),
}


@needs_closed_windows
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_rule_is_found(mutant, tmp_path):
    """A window off by a minute, a missing window or a shifted threshold disagrees somewhere."""
    scenario, last, change = MUTANTS[mutant]
    truth, steps = truth_of(scenario)
    steps = [step for step in steps if step <= last]
    broken = copy.deepcopy(groups())
    for rule in (rule for group in broken for rule in group["rules"]):
        rule["expr"] = change(rule["expr"])
    assert broken != groups()
    tests = expected(truth, steps)
    code, said = run(tmp_path, broken, interval_seconds=truth.step_seconds, inputs=truth.inputs(), tests=tests)
    assert code == 1, f"{mutant}: nobody noticed"
    assert "FAILED" in said


SLOS = (
    *DEFAULT_SLOS,
    SloSettings(id="useful", sli="goodput", target=0.9, period_days=7),
    SloSettings(id="good.enough", sli="quality", target=0.8, period_days=90),
    SloSettings(id="odd", target=0.9999, period_days=10.5, labels={"service": "search"}),
)


@needs_promtool
@pytest.mark.parametrize("evidence", [True, False])
def test_promtool_takes_the_rules(evidence, tmp_path):
    """Rules of every kind of objective and period parse, and no two of them are the same."""
    file = tmp_path / "rules.yaml"
    file.write_text(prometheus_rules(Settings(slo=SLOS), evidence=evidence))
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@given(total=st.integers(1, 5000), bad=st.integers(0, 5000), target=st.sampled_from([0.8, 0.95, 0.99, 0.999]))
def test_the_bound_never_asks_for_less_than_the_guard(total, bad, target):
    """Chernoff's bound is no smaller than the binomial tail: an exported rule never pages where we would not."""
    count = Count(min(bad, total), total)
    bound = math.exp(-evidence_nats(count, target))
    chance = tail(total, count.bad, float(budget(target)))
    assert chance <= bound * (1 + 1e-9)
    if evidence_nats(count, target) > NATS:
        assert chance < ALPHA


@given(target=st.decimals("0.9", "0.9999", places=4), period=st.sampled_from([7, 28, 30, 90]))
def test_an_edge_is_the_number_nearest_to_the_exact_one(target, period):
    """No other float lies nearer to ``factor * E``."""
    for tier in tiers(target=float(target), period_days=period):
        limit = edge(tier, float(target))
        exact = Fraction(repr(tier.factor)) * budget(float(target))
        for other in (math.nextafter(limit, 0), math.nextafter(limit, 1)):
            assert abs(Fraction(limit) - exact) <= abs(Fraction(other) - exact)


def test_every_window_of_the_tiers_has_its_rules():
    """The windows are those of the tiers, and the period."""
    slo = SloSettings(id="up", target=0.999)
    assert [duration(each) for each in rule_windows(slo)] == ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"]
    (group,) = rule_groups([slo], service="bot")
    recorded = [rule["record"] for rule in group["rules"] if "record" in rule]
    assert [name for name in recorded if name.startswith("slo:sli_error:")] == [
        f"slo:sli_error:ratio_rate{duration(each)}" for each in rule_windows(slo)
    ]
