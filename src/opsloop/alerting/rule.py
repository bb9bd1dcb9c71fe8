"""Rules: the configured alerts, parsed, checked against what exists, and ready to be judged.

Everything that can be wrong with a rule file is found here, before anything runs: an id that is no signal, a vote that
can never reach m, composites that name each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from opsloop.alerting.composite import groups_of
from opsloop.alerting.expression import And, AtLeast, Expression, Not, Or, ids_of
from opsloop.alerting.grammar import parse
from opsloop.alerting.lifecycle import Timing
from opsloop.alerting.route import Grouping
from opsloop.clock import NANOSECONDS
from opsloop.errors import ConfigError
from opsloop.settings import AlertSettings, ObjectiveSettings, Settings, SloSettings

__all__ = ["SLO_GROUPS", "Rule", "Rules", "load_rules", "read_rules", "with_retired"]

SLO_GROUPS: Final[Mapping[str, str]] = {
    "availability": "errors",
    "goodput": "errors",
    "latency": "latency",
    "time_to_first_token": "latency",
    "quality": "quality",
}
"""The signal that each kind of SLO burns on: the error ratio and the burn of one SLO are one vote."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One alert, ready to be judged."""

    id: str
    when: Expression
    unless: Expression | None
    severe_alone: bool
    severity: str
    points: int
    points_to_fire: int
    clear_factor: float
    wait_ns: int
    extension_ns: int
    timing: Timing
    grouping: Grouping
    receivers: tuple[str, ...]
    retired: bool = False
    """Taken out of the configuration while it was firing: kept until it is told as resolved."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """All rules, and what their formulas may name."""

    rules: tuple[Rule, ...]
    groups: Mapping[str, str]
    """The group of each signal, by its id."""
    measures: Mapping[str, str]
    """What each objective measures, by its id, such as ``latency_us_p95``."""
    hold_ns: int
    """How long after its window a reading stands in for one that is missing."""

    @property
    def composites(self) -> Mapping[str, Expression]:
        """Each rule's formula by its id: a formula may name another rule."""
        return {rule.id: rule.when for rule in self.rules}


def load_rules(settings: Settings, *, groups: Mapping[str, str] | None = None) -> Rules:
    """Parse and check ``[[alert]]`` of the settings.

    A formula may name each objective, ``burn-ID`` and ``slow-burn-ID`` of each SLO, ``absent-ID`` of either where it
    has ``absent_seconds``, ``drift`` of the scores, each other alert, and what ``groups`` adds: further signals by id,
    with the group of each.
    Raises :class:`ConfigError` naming the alert and the place in its formula.

    >>> [rule.id for rule in load_rules(Settings()).rules]
    ['service-unhealthy']
    """
    burns = {f"{pace}-{slo.id}": SLO_GROUPS[slo.sli] for slo in settings.slo for pace in ("burn", "slow-burn")}
    watched: list[ObjectiveSettings | SloSettings] = [*settings.objective, *settings.slo]
    absences = {f"absent-{each.id}": "traffic" for each in watched if each.absent_seconds is not None}
    signals = {"drift": "quality", **burns, **absences}
    signals |= {objective.id: objective.group for objective in settings.objective}
    signals |= groups or {}
    receivers = tuple(receiver.id for receiver in settings.receiver)
    interval_ns = round(settings.server.evaluate_seconds * NANOSECONDS)
    rules = Rules(
        rules=tuple(_rule(alert, interval_ns, receivers) for alert in settings.alert),
        groups=signals,
        measures={objective.id: objective.measure for objective in settings.objective},
        hold_ns=interval_ns,
    )
    _check(rules)
    return rules


def read_rules(tables: Sequence[object], settings: Settings, *, groups: Mapping[str, str] | None = None) -> Rules:
    """Read ``[[alert]]`` tables, as TOML gives them, in place of the settings' own: what a backtest tries out."""
    try:
        alerts = msgspec.convert(list(tables), tuple[AlertSettings, ...], strict=False)
    except msgspec.ValidationError as cause:
        raise ConfigError(f"[[alert]]: {cause}", fix="see docs/settings.md for every setting of an alert") from cause
    return load_rules(msgspec.structs.replace(settings, alert=alerts), groups=groups)


def with_retired(rules: Rules, open_alerts: Mapping[str, str], *, receivers: tuple[str, ...]) -> Rules:
    """Add a rule that never holds for each open alert (id: severity) that is configured no more, so that it ends.

    >>> rules = load_rules(Settings())
    >>> [rule.id for rule in with_retired(rules, {"gone": "page"}, receivers=()).rules]
    ['service-unhealthy', 'gone']
    """
    known = {rule.id for rule in rules.rules}
    never = [
        msgspec.structs.replace(
            _rule(AlertSettings(id=name, when="FALSE", clear_for_seconds=0), 0, receivers),
            severity=severity,
            retired=True,
        )
        for name, severity in open_alerts.items()
        if name not in known
    ]
    return msgspec.structs.replace(rules, rules=(*rules.rules, *never))


def _rule(alert: AlertSettings, interval_ns: int, receivers: tuple[str, ...]) -> Rule:
    def nanoseconds(seconds: float | None) -> int:
        return interval_ns if seconds is None else round(seconds * NANOSECONDS)

    if alert.points_to_fire > alert.points:
        message = f"alert {alert.id!r}: points_to_fire is {alert.points_to_fire}, but points is {alert.points}"
        raise ConfigError(message, fix="let points be the larger one")
    return Rule(
        id=alert.id,
        when=parse(alert.when, where=f"alert {alert.id!r}, when"),
        unless=parse(alert.unless, where=f"alert {alert.id!r}, unless") if alert.unless else None,
        severe_alone=alert.severe_alone,
        severity=alert.severity,
        points=alert.points,
        points_to_fire=alert.points_to_fire,
        clear_factor=alert.clear_factor,
        wait_ns=nanoseconds(alert.wait_seconds) if alert.unless else 0,
        extension_ns=nanoseconds(alert.extension_seconds) if alert.unless else 0,
        timing=Timing(
            for_seconds=alert.for_seconds,
            clear_for_seconds=alert.clear_for_seconds,
            min_firing_seconds=alert.min_firing_seconds,
            expire_seconds=alert.expire_seconds,
            reopen_seconds=alert.reopen_seconds,
            cool_down_seconds=alert.cool_down_seconds,
            flap_changes=alert.flap_changes,
            flap_seconds=alert.flap_seconds,
        ),
        grouping=Grouping(
            group_wait_seconds=alert.group_wait_seconds,
            group_interval_seconds=alert.group_interval_seconds,
            repeat_seconds=alert.repeat_seconds,
        ),
        receivers=alert.notify or receivers,
    )


def _check(rules: Rules) -> None:
    composites = rules.composites
    both = sorted(set(composites) & set(rules.groups))
    if both:
        raise ConfigError(f"{both[0]!r} names an alert and a signal", fix="give the alert another id")
    for rule in rules.rules:
        formulas = [rule.when] if rule.unless is None else [rule.when, rule.unless]
        for formula in formulas:
            for name in ids_of(formula):
                if name not in rules.groups and name not in composites:
                    known = ", ".join(sorted({*rules.groups, *composites} - {rule.id}))
                    raise ConfigError(f"alert {rule.id!r} names the unknown signal {name!r}", fix=f"use one of {known}")
        _refuse_cycles(rule.id, (), composites)
        if rule.unless is not None and rule.id in _reached(rule.unless, composites):
            raise ConfigError(f"alert {rule.id!r} suppresses itself", fix="take it out of its unless")
    for rule in rules.rules:
        for formula in [rule.when] if rule.unless is None else [rule.when, rule.unless]:
            for vote in _votes(formula):
                signals = sorted(set(groups_of(vote.ids, rules.groups, composites).values()))
                if not vote.percent and vote.m > len(signals):
                    message = (
                        f"alert {rule.id!r} asks for {vote.m} votes, but its list has {len(signals)} distinct "
                        f"signals ({', '.join(signals)})"
                    )
                    raise ConfigError(message, fix="ids of one group are one vote: lower m or add other signals")


def _refuse_cycles(name: str, path: tuple[str, ...], composites: Mapping[str, Expression]) -> None:
    if name in path:
        circle = " -> ".join((*path[path.index(name) :], name))
        raise ConfigError(f"alerts name each other in a circle: {circle}", fix="take one of these references out")
    for inner in ids_of(composites[name]):
        if inner in composites:
            _refuse_cycles(inner, (*path, name), composites)


def _reached(expression: Expression, composites: Mapping[str, Expression]) -> set[str]:
    found = set(ids_of(expression))
    for name in list(found):
        if name in composites:
            found |= _reached(composites[name], composites)
    return found


def _votes(expression: Expression) -> Iterator[AtLeast]:
    match expression:
        case AtLeast():
            yield expression
        case Not(part):
            yield from _votes(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from _votes(part)
        case _:
            return
