"""One rule, one key, one instant: evaluation, life cycle and suppressor, with the record that explains them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from opsloop.alerting.composite import Context, Evaluation, Level, coincident, evaluate, leaves_of
from opsloop.alerting.datapoints import EXTRA_POINTS, m_of_n
from opsloop.alerting.explain import Explanation, Stage
from opsloop.alerting.expression import show
from opsloop.alerting.keys import ReadingIndex, readings_of
from opsloop.alerting.lifecycle import AlertState, Phase, Transition, announced, step
from opsloop.alerting.notice import title
from opsloop.alerting.route import key_of
from opsloop.alerting.rule import Rule, Rules
from opsloop.alerting.suppress import SuppressorState, suppress
from opsloop.verdict import Reading, Verdict

__all__ = ["Case", "Judgement", "Memory", "Told", "judge"]


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a page says: taken from the evaluation that fired, so that later notices of the episode say the same."""

    summary: str = ""
    votes: tuple[Reading, ...] = ()
    window: tuple[int, int] = (0, 0)
    severe: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of one rule and key between evaluations."""

    labels: dict[str, str] = {}
    severity: str = "page"
    alert: AlertState = AlertState()
    suppressor: SuppressorState = SuppressorState()
    verdict: Verdict | None = None
    breaching: tuple[str, ...] = ()
    """Signals that breach, or did and have not been seen to recover."""
    severe_by: str = ""
    """The severe single that opened the episode."""
    points: tuple[bool | None, ...] = ()
    """The newest evaluations, for a rule that judges m of n."""
    told_since_ns: int = 0
    """Since when it is announced as firing."""
    told: Told = Told()


class Case(msgspec.Struct, frozen=True):
    """What one judgement rests on."""

    rule: Rule
    rules: Rules
    memory: Memory
    readings: ReadingIndex
    now_ns: int

    def context(self, ids: Iterable[str]) -> tuple[Context, tuple[int, int]]:
        """Return the readings of these signals and this key that belong to the evaluation, and their shared window."""
        mine = readings_of(ids, self.memory.labels, self.readings)
        joined, window = coincident(mine, now_ns=self.now_ns)
        readings = {reading.id: reading for reading in joined}
        return Context(readings, self.rules.groups, self.rules.composites), window


class Judgement(msgspec.Struct, frozen=True):
    """The next memory, and why."""

    memory: Memory
    explanation: Explanation


def judge(case: Case) -> Judgement:
    """Judge one rule for one key at one instant."""
    rule, memory, now_ns = case.rule, case.memory, case.now_ns
    leaves = leaves_of(rule.when, case.rules.composites)
    context, window = case.context(leaves)
    unproved = {name for name in memory.breaching if not _recovered(name, context, rule.clear_factor)}
    evaluation = evaluate(
        rule.when,
        context,
        severe_alone=rule.severe_alone,
        severe_before=memory.severe_by,
        undecided={name for name in unproved if context.verdict(name) is not Verdict.BREACH},
        window=window,
    )
    verdict, points = _over_points(rule, evaluation.verdict, memory.points)
    alert, change = step(memory.alert, verdict, now_ns, timing=rule.timing, key=key_of(memory.labels))
    if change is not None and rule.retired:
        change = msgspec.structs.replace(change, reason="rule_changed: the alert was taken out of the configuration")
    firing, held = announced(alert, now_ns)
    suppressor, _ = suppress(
        memory.suppressor,
        firing=firing,
        on=_suppressed(case),
        now_ns=now_ns,
        wait_ns=rule.wait_ns,
        extension_ns=rule.extension_ns,
    )
    idle = alert.phase is Phase.INACTIVE
    breaching = {vote.id for vote in evaluation.votes} | (set() if idle else unproved)
    severe_by = evaluation.severe_by or (memory.severe_by if memory.severe_by in breaching else "")
    after = msgspec.structs.replace(
        memory,
        severity=rule.severity,
        alert=alert,
        suppressor=suppressor,
        verdict=evaluation.verdict,
        breaching=tuple(sorted(breaching)),
        severe_by="" if idle else severe_by,
        points=points,
        told_since_ns=now_ns if suppressor.acted and not memory.suppressor.acted else memory.told_since_ns,
        told=_told(case, evaluation) if change is not None and _fires(change) else memory.told,
    )
    explanation = Explanation(
        alert=rule.id,
        key=key_of(memory.labels),
        at_ns=now_ns,
        severity=rule.severity,
        formula=show(rule.when),
        window=window,
        inputs=tuple(context.readings[name] for name in leaves if name in context.readings),
        absent=tuple(name for name in leaves if name not in context.readings),
        votes=evaluation.votes,
        verdict=verdict,
        reason=evaluation.reason,
        phase=alert.phase.value,
        transition=change,
        path=_path(rule, memory, after, held),
        measures={name: case.rules.measures[name] for name in leaves if name in case.rules.measures},
    )
    return Judgement(after, explanation)


def _recovered(name: str, context: Context, clear_factor: float) -> bool:
    """Tell whether a signal that breached is OK again.

    One that breaches from above must fall to its clear line; an OK value above the threshold breaches from below.
    """
    reading = context.readings.get(name)
    if reading is None or reading.verdict is not Verdict.OK:
        return False
    if reading.value is None or reading.threshold is None or reading.value > reading.threshold:
        return True
    return reading.value <= clear_factor * reading.threshold


def _over_points(
    rule: Rule, verdict: Verdict, before: tuple[bool | None, ...]
) -> tuple[Verdict, tuple[bool | None, ...]]:
    """Return the verdict over the newest evaluations, for a rule that asks for more than one."""
    if rule.points == 1:
        return verdict, ()
    point = {Verdict.BREACH: True, Verdict.OK: False}.get(verdict)
    points = (*before, point)[-(rule.points + EXTRA_POINTS) :]
    return m_of_n(points, m=rule.points_to_fire, n=rule.points) or Verdict.NO_DATA, points


def _suppressed(case: Case) -> bool:
    unless = case.rule.unless
    if unless is None:
        return False
    context, _ = case.context(leaves_of(unless, case.rules.composites))
    return evaluate(unless, context).verdict is Verdict.BREACH


def _fires(change: Transition) -> bool:
    return change.after is Phase.FIRING and change.before is not Phase.RECOVERING


def _told(case: Case, evaluation: Evaluation) -> Told:
    rule = case.rule
    summary = title(
        rule.id,
        rule.severity,
        evaluation.reason,
        evaluation.votes,
        measures=case.rules.measures,
        key=key_of(case.memory.labels),
    )
    return Told(summary, evaluation.votes, evaluation.window, severe=evaluation.level is Level.SEVERE)


def _path(rule: Rule, before: Memory, after: Memory, held: str) -> tuple[Stage, ...]:
    """Return the stations of the notice up to the suppressor; its group and the receivers follow."""
    firing = after.alert.phase in {Phase.FIRING, Phase.RECOVERING}
    if not firing and not before.suppressor.acted:
        waits = after.alert.phase is Phase.PENDING
        why = f"pending, it fires after {rule.timing.for_seconds:g} s" if waits else "the alert is not firing"
        return (Stage("condition", passed=False, reason=why),)
    stages = [Stage("condition", passed=True, reason="firing" if firing else "no longer firing")]
    if held:
        return (*stages, Stage("damping", passed=False, reason=held))
    if after.suppressor.acted is not firing:
        why = f"held back by {show(rule.unless)}" if rule.unless and after.suppressor.on else "waits for the suppressor"
        return (*stages, Stage("suppressor", passed=False, reason=why))
    if rule.unless is not None:
        stages.append(Stage("suppressor", passed=True, reason="quiet"))
    return tuple(stages)
