"""Our objectives as Prometheus rules: the same windows, factors and budgets, evaluated by Prometheus.

Objects
    One *group* for each objective. Its recording rules come first and its alerts last, and Prometheus evaluates a group
    in order: an alert never reads the ratio of the evaluation before. Names are those that Sloth made common:
    ``slo:sli_error:ratio_rate1h``, ``slo:error_budget:ratio``, ``slo:period_error_budget_remaining:ratio``.
Rule
    ``ratio = increase(bad) / increase(total)`` of the exact counters that ``/metrics`` shows, event-weighted in every
    window, the period too. Without events there is no series, never NaN. An alert needs **both** windows strictly
    above the edge ``factor * E``, which is written as the nearest number to its exact value.
Evidence
    PromQL has no binomial tail. Chernoff's bound ``P(X >= bad) <= exp(-n D)`` stands in for it, with
    ``D = r ln(r/E) + (1-r) ln((1-r)/(1-E))``: the rules ask for ``n D > ln(1/ALPHA)``. The bound is never below the
    tail, so an exported rule never pages where the exact guard would not; it may ask for a failure or two more.
Limits
    While a counter is younger than a window, Prometheus extrapolates its count by up to half a scrape interval, and the
    evidence with it. A vanished series resolves in Prometheus, where we keep the alert. Goodput is judged again when a
    score comes in, which no counter can say, so its rules read the window gauges that we export. PromQL has no
    calendar either: the budget of a calendar period is read off our gauges. Composites stay with us.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

from opsloop.dashboard import Count, Tier, budget, tiers
from opsloop.dashboard.burn import ALPHA, DAY_SECONDS
from opsloop.integrations.document import write_yaml
from opsloop.settings import Settings, SloSettings

__all__ = [
    "BAD",
    "NATS",
    "TOTAL",
    "WINDOW_BAD",
    "WINDOW_TOTAL",
    "duration",
    "edge",
    "evidence_nats",
    "prometheus_rules",
    "rule_groups",
    "rule_windows",
]

TOTAL: Final = "opsloop_slo_events_total"
BAD: Final = "opsloop_slo_bad_events_total"
"""The counters of an objective, by the label ``slo``."""

WINDOW_TOTAL: Final = "opsloop_slo_window_events"
WINDOW_BAD: Final = "opsloop_slo_window_bad_events"
"""The same as gauges, counted anew at each evaluation, by the labels ``slo`` and ``window``."""

NATS: Final = math.log(1 / ALPHA)
"""How much evidence a tier needs, in nats: the logarithm of one over the chance that is allowed."""

_HEAD = """Recording and alert rules of opsloop's objectives, written by: opsloop export prometheus
Check with: promtool check rules FILE"""


def prometheus_rules(settings: Settings, *, evidence: bool = True) -> str:
    """Return the rule file of every objective in the settings, as YAML.

    With ``evidence`` an alert also needs Chernoff's bound; without, it is the plain two-window rule.

    >>> "alert: SloBurnsFast" in prometheus_rules(Settings())
    True
    """
    groups = rule_groups(settings.slo, service=settings.log.service, evidence=evidence)
    return write_yaml([{"groups": groups}], head=_HEAD)


def rule_groups(slos: Sequence[SloSettings], *, service: str, evidence: bool = True) -> list[dict[str, Any]]:
    """Return the groups as plain values, one for each objective."""
    return [_group(slo, slo.labels.get("service", service), evidence=evidence) for slo in slos]


def rule_windows(slo: SloSettings) -> tuple[float, ...]:
    """Return the window lengths in seconds that the rules of an objective need, shortest first.

    The last is its period, but for a calendar's, which has no fixed length.

    >>> [duration(seconds) for seconds in rule_windows(SloSettings(id="up"))]
    ['5m', '30m', '1h', '2h', '6h', '1d', '3d', '30d']
    """
    pairs = {seconds for tier in _tiers(slo) for seconds in (tier.short_seconds, tier.long_seconds)}
    return (*sorted(pairs), *([slo.period_days * DAY_SECONDS] if slo.calendar is None else []))


def duration(seconds: float) -> str:
    """Return a length of time as Prometheus writes it, exact to the millisecond.

    >>> duration(300), duration(60_480), duration(0.5)
    ('5m', '16h48m', '500ms')
    """
    rest = round(seconds * 1000)
    text = ""
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")):
        whole, rest = divmod(rest, size)
        text += f"{whole}{unit}" if whole else ""
    return text or "0s"


def edge(tier: Tier, target: float) -> float:
    """Return the error ratio that a tier begins above: the float nearest to ``factor * E``.

    Multiplied in floats, as ``factor * E`` in a rule would be, it lies beside the ratio that it names.

    >>> edge(tiers(target=0.998, period_days=30)[0], 0.998), 14.4 * 0.002
    (0.0288, 0.028800000000000003)
    """
    return float(Fraction(repr(tier.factor)) * budget(target))


def evidence_nats(count: Count, target: float) -> float:
    """Return Chernoff's ``n D`` of a window: above :data:`NATS`, failures are evidence. 0 inside the budget.

    >>> evidence_nats(Count(25, 1000), 0.99) > NATS, evidence_nats(Count(27, 1000), 0.99) > NATS
    (False, True)
    """
    allowed = float(budget(target))
    if not count.total or count.bad / count.total <= allowed:
        return 0.0
    ratio = count.bad / count.total
    good = 1 - ratio
    kept = good * math.log(good / (1 - allowed)) if good else 0.0
    return count.total * (ratio * math.log(ratio / allowed) + kept)


def _group(slo: SloSettings, service: str, *, evidence: bool) -> dict[str, Any]:
    names = {"service": service, "slo": slo.id}
    rules = [
        *(rule for seconds in rule_windows(slo) for rule in _window_rules(slo, names, seconds)),
        *_budget_rules(slo, names),
        *(_evidence_rule(slo, names, tier) for tier in _tiers(slo) if evidence),
        *_burn_alerts(slo, names, evidence=evidence),
        _no_data_alert(slo, names),
    ]
    return {"name": f"opsloop-slo-{slo.id}", "rules": rules}


def _tiers(slo: SloSettings) -> tuple[Tier, ...]:
    return tiers(target=slo.target, period_days=slo.period_days)


def _record(name: str, expr: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"record": name, "expr": expr, "labels": labels}


def _window_rules(slo: SloSettings, names: dict[str, str], seconds: float) -> list[dict[str, Any]]:
    """Return the events and the error ratio of one window."""
    window = duration(seconds)
    labels = {**names, "window": window}
    total, bad = (_events(slo, metric, window) for metric in (TOTAL, BAD))
    events, ratio = _names(window)
    return [
        _record(events, f"{total} > 0", labels),
        _record(ratio, f"{bad} / ({total} > 0)", labels),
    ]


def _events(slo: SloSettings, metric: str, window: str) -> str:
    """Return the query of the events in a window: of all replicas together, as each counts what it stored.

    Goodput is read off the gauge of that window, which all replicas of a store show alike.
    """
    if slo.sli == "goodput":
        gauge = WINDOW_TOTAL if metric == TOTAL else WINDOW_BAD
        return f'max({gauge}{{slo="{slo.id}", window="{window}"}})'
    return f'sum(increase({metric}{{slo="{slo.id}"}}[{window}]))'


def _names(window: str) -> tuple[str, str]:
    return f"slo:sli_events:increase{window}", f"slo:sli_error:ratio_rate{window}"


def _selected(metric: str, names: dict[str, str]) -> str:
    inside = ", ".join(f'{name}="{value}"' for name, value in names.items())
    return f"{metric}{{{inside}}}"


def _budget_rules(slo: SloSettings, names: dict[str, str]) -> list[dict[str, Any]]:
    """Return what the objective allows, and how much of it the period has left."""
    allowed = float(budget(slo.target))
    windows = rule_windows(slo)
    now, whole = (_selected(_names(duration(seconds))[1], names) for seconds in (windows[0], windows[-1]))
    share = _selected("slo:error_budget:ratio", names)
    burnt = f"{whole} / on (service, slo) {share}"
    left = f"1 - {_selected('slo:period_burn_rate:ratio', names)}"
    if slo.calendar is not None:
        burnt = f'max(opsloop_slo_burn{{slo="{slo.id}", window="{slo.calendar}"}})'
        left = f'max(opsloop_slo_budget_remaining_ratio{{slo="{slo.id}"}})'
    return [
        _record("slo:objective:ratio", f"vector({slo.target!r})", names),
        _record("slo:error_budget:ratio", f"vector({allowed!r})", names),
        _record("slo:time_period:days", f"vector({slo.period_days:g})", names),
        _record("slo:current_burn_rate:ratio", f"{now} / on (service, slo) {share}", names),
        _record("slo:period_burn_rate:ratio", burnt, names),
        _record("slo:period_error_budget_remaining:ratio", left, names),
    ]


def _evidence_rule(slo: SloSettings, names: dict[str, str], tier: Tier) -> dict[str, Any]:
    window = duration(tier.long_seconds)
    events, ratio = (_selected(name, names) for name in _names(window))
    allowed, kept = float(budget(slo.target)), slo.target
    expr = (
        f"{events} * (\n"
        f"  {ratio} * ln({ratio} / {allowed!r})\n"
        f"  + (1 - {ratio}) * ln(clamp_min(1 - {ratio}, {_LEAST!r}) / {kept!r})\n"
        f")\n"
    )
    return _record(f"slo:sli_evidence:nats{window}", expr, {**names, "window": window})


_LEAST: Final = 1e-300
"""Nothing good at all has no logarithm: multiplied by its share of 0 it counts nothing."""


def _burn_alerts(slo: SloSettings, names: dict[str, str], *, evidence: bool) -> list[dict[str, Any]]:
    found = _tiers(slo)
    return [
        _burn_alert(slo, names, found[:2], alert="SloBurnsFast", severity="page", evidence=evidence),
        _burn_alert(slo, names, found[2:], alert="SloBurnsSlowly", severity="ticket", evidence=evidence),
    ]


def _burn_alert(
    slo: SloSettings, names: dict[str, str], pair: Sequence[Tier], *, alert: str, severity: str, evidence: bool
) -> dict[str, Any]:
    """Return the alert of two tiers: either is enough, the faster one's ratio is the value."""
    parts = ["(\n" + "".join(_conditions(slo, names, tier, evidence=evidence)) + ")\n" for tier in pair]
    return {
        "alert": alert,
        "expr": "or\n".join(parts),
        "labels": {**names, "severity": severity},
        "annotations": {
            "summary": f"{slo.id} burns its error budget: "
            + " or ".join(f"{tier.factor:g}x over {tier.name}" for tier in pair),
            "description": "{{ $value | humanizePercentage }} of the events were bad, where "
            f"{float(budget(slo.target)):.4%} are allowed in {_period(slo)}.",
        },
    }


def _period(slo: SloSettings) -> str:
    return f"a {slo.calendar}" if slo.calendar else f"{slo.period_days:g} days"


def _conditions(slo: SloSettings, names: dict[str, str], tier: Tier, *, evidence: bool) -> list[str]:
    limit = edge(tier, slo.target)
    long, short = (duration(seconds) for seconds in (tier.long_seconds, tier.short_seconds))
    lines = [
        f"  max without (window) ({_selected(_names(long)[1], names)} > {limit!r})\n",
        "  and\n",
        f"  max without (window) ({_selected(_names(short)[1], names)} > {limit!r})\n",
    ]
    if evidence:
        needed = f"{_selected(f'slo:sli_evidence:nats{long}', names)} > {NATS!r}"
        lines += ["  and\n", f"  max without (window) ({needed})\n"]
    return lines


def _no_data_alert(slo: SloSettings, names: dict[str, str]) -> dict[str, Any]:
    """Return the alert that tells of a silence as long as a full outage would take to page."""
    fastest = _tiers(slo)[0]
    seconds = math.ceil(edge(fastest, slo.target) * fastest.long_seconds)
    metric = WINDOW_TOTAL if slo.sli == "goodput" else TOTAL
    return {
        "alert": "SloHasNoData",
        "expr": f'absent({metric}{{slo="{slo.id}"}})',
        "for": duration(seconds),
        "labels": {**names, "severity": "ticket"},
        "annotations": {
            "summary": f"nothing is known of {slo.id}: its counters are gone",
            "description": f"A full outage of {duration(seconds)} would have paged. Check that opsloop is scraped.",
        },
    }
