"""One evaluation of all rules: the pure machine that runs live, over history, and in a lab.

``decide(rules, book, readings, now_ns) -> (book, decisions)``. The book holds what the machine remembers: a
:class:`Memory` for each rule and key, what each receiver was last told, and the last known readings. Nothing else
enters a decision, so the same readings give the same pages on every run.

A *key* is a set of labels. The readings of a rule's signals are joined on their common label names and values, so a
reading of tenant A and one of tenant B never add up, while a reading without labels belongs to every key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from opsloop.alerting.composite import Context, Evaluation, Level, coincident, evaluate, leaves_of
from opsloop.alerting.datapoints import EXTRA_POINTS, m_of_n
from opsloop.alerting.explain import Explanation, Stage
from opsloop.alerting.expression import show
from opsloop.alerting.lifecycle import AlertState, Phase, Transition, announced, step
from opsloop.alerting.notice import Member, Notice, title
from opsloop.alerting.route import Entry, Routing, fingerprint, key_of, route, told
from opsloop.alerting.rule import Rule, Rules
from opsloop.alerting.suppress import SuppressorState, suppress
from opsloop.verdict import Reading, Verdict

__all__ = ["Book", "Decision", "Memory", "decide", "keys_of"]

Labels = Mapping[str, str]


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of one rule and key between evaluations."""

    labels: dict[str, str] = {}
    alert: AlertState = AlertState()
    suppressor: SuppressorState = SuppressorState()
    verdict: Verdict | None = None
    breaching: tuple[str, ...] = ()
    """Signals that breach, or did and have not been seen to recover."""
    severe_by: str = ""
    points: tuple[bool | None, ...] = ()
    told_since_ns: int = 0
    """Since when it is announced as firing."""
    summary: str = ""
    votes: tuple[Reading, ...] = ()
    window: tuple[int, int] = (0, 0)
    severe: bool = False
    """Summary, votes, window and severity of the evaluation that fired."""


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered between evaluations: by (rule, key), by (rule, receiver) and by (signal, key)."""

    memories: Mapping[tuple[str, str], Memory] = {}
    entries: Mapping[tuple[str, str], Entry] = {}
    readings: Mapping[tuple[str, str], Reading] = {}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluation of one rule and key decided."""

    explanation: Explanation
    memory: Memory
    changed: bool
    """Whether the memory differs from before: only then is there anything to store."""
    notices: tuple[Notice, ...] = ()

    @property
    def transition(self) -> Transition | None:
        """The change of phase, if there was one."""
        return self.explanation.transition


def keys_of(ids: Iterable[str], readings: Iterable[Reading]) -> list[dict[str, str]]:
    """Return the label sets that a rule is judged for: the readings' labels joined on common names and values.

    >>> a, b = ({"tenant": name} for name in "ab")
    >>> def reading(name, labels):
    ...     return Reading(
    ...         id=name,
    ...         group=name,
    ...         verdict=Verdict.OK,
    ...         value=None,
    ...         threshold=None,
    ...         unit="",
    ...         n=0,
    ...         window_start_ns=0,
    ...         window_end_ns=1,
    ...         reason="",
    ...         labels=labels,
    ...     )
    >>> keys_of(["latency", "errors"], [reading("latency", a), reading("errors", b), reading("errors", {})])
    [{'tenant': 'a'}, {'tenant': 'b'}]
    """
    by_id: dict[str, list[dict[str, str]]] = {}
    for reading in readings:
        sets = by_id.setdefault(reading.id, [])
        if reading.labels not in sets:
            sets.append(reading.labels)
    keys: list[dict[str, str]] = [{}]
    for name in ids:
        sets = by_id.get(name, [])
        joined: list[dict[str, str]] = []
        for key in keys:
            joined.extend([{**key, **labels} for labels in sets if _agree(key, labels)] or [key])
        joined.extend(labels for labels in sets if not any(_agree(key, labels) for key in keys))
        keys = list({key_of(key): key for key in joined}.values())
    maximal = [key for key in keys if not any(key.items() < other.items() for other in keys)]
    return sorted(maximal, key=key_of)


def _agree(one: Labels, other: Labels) -> bool:
    return all(other.get(name, value) == value for name, value in one.items())


def decide(rules: Rules, book: Book, readings: Sequence[Reading], now_ns: int) -> tuple[Book, tuple[Decision, ...]]:
    """Judge every rule at ``now_ns`` over the readings handed in and the last known ones that are still fresh.

    Returns the next book and one decision per rule and key, in the order of the rules.
    """
    known = {(reading.id, key_of(reading.labels)): reading for reading in [*book.readings.values(), *readings]}
    fresh = {at: reading for at, reading in known.items() if now_ns - rules.hold_ns <= reading.window_end_ns}
    memories, entries = dict(book.memories), dict(book.entries)
    decisions: list[Decision] = []
    for rule in rules.rules:
        judged = [
            _judge(
                rule, rules, labels, book.memories.get((rule.id, key_of(labels)), Memory(labels=labels)), fresh, now_ns
            )
            for labels in _labels(rule, rules, book, fresh.values())
        ]
        for decision in judged:
            memories[rule.id, decision.explanation.key] = decision.memory
        mine = {key: memory for (name, key), memory in memories.items() if name == rule.id}
        decisions.extend(_with_notices(rule, judged, mine, entries, now_ns))
    return Book(memories=memories, entries=entries, readings=fresh), tuple(decisions)


def _labels(rule: Rule, rules: Rules, book: Book, readings: Iterable[Reading]) -> list[dict[str, str]]:
    """Return the keys to judge: those with readings, and those that are not over yet though their data vanished."""
    leaves = leaves_of(rule.when, rules.composites)
    found = {key_of(labels): labels for labels in keys_of(leaves, readings)}
    for (name, key), memory in book.memories.items():
        open_still = memory.alert.phase is not Phase.INACTIVE or memory.suppressor.acted or memory.alert.flapping
        if name == rule.id and open_still:
            found.setdefault(key, memory.labels)
    return [found[key] for key in sorted(found)]


def _context(
    rules: Rules, ids: Iterable[str], labels: Labels, readings: Mapping[tuple[str, str], Reading], now_ns: int
) -> tuple[Context, tuple[int, int]]:
    """Return the readings of one key that belong to this evaluation, the most specific one for each signal."""
    wanted = set(ids)
    chosen: dict[str, Reading] = {}
    for _, reading in sorted(readings.items()):
        if reading.id in wanted and reading.labels.items() <= labels.items():
            before = chosen.get(reading.id)
            if before is None or len(reading.labels) >= len(before.labels):
                chosen[reading.id] = reading
    joined, window = coincident(chosen.values(), now_ns=now_ns, hold_ns=rules.hold_ns)
    return Context({reading.id: reading for reading in joined}, rules.groups, rules.composites), window


def _judge(
    rule: Rule,
    rules: Rules,
    labels: dict[str, str],
    memory: Memory,
    readings: Mapping[tuple[str, str], Reading],
    now_ns: int,
) -> Decision:
    leaves = leaves_of(rule.when, rules.composites)
    context, window = _context(rules, leaves, labels, readings, now_ns)
    undecided = frozenset(name for name in memory.breaching if not _recovered(name, context, rule.clear_factor))
    evaluation = evaluate(
        rule.when,
        context,
        severe_alone=rule.severe_alone,
        severe_before=memory.severe_by,
        undecided=undecided - {vote.id for vote in context.readings.values() if vote.verdict is Verdict.BREACH},
        window=window,
    )
    verdict, points = _over_points(rule, evaluation.verdict, memory.points)
    key = key_of(labels)
    alert, change = step(memory.alert, verdict, now_ns, timing=rule.timing, key=key)
    firing, held = announced(alert, now_ns)
    on = False
    if rule.unless is not None:
        beside, _ = _context(rules, leaves_of(rule.unless, rules.composites), labels, readings, now_ns)
        on = evaluate(rule.unless, beside).verdict is Verdict.BREACH
    suppressor, _ = suppress(
        memory.suppressor, firing=firing, on=on, now_ns=now_ns, wait_ns=rule.wait_ns, extension_ns=rule.extension_ns
    )
    after = _remember(rule, rules, memory, evaluation, alert, suppressor, points, undecided, change, now_ns)
    explanation = Explanation(
        alert=rule.id,
        key=key,
        at_ns=now_ns,
        severity=rule.severity,
        formula=show(rule.when),
        window=window,
        inputs=tuple(context.readings[name] for name in leaves if name in context.readings),
        absent=tuple(name for name in leaves if name not in context.readings),
        votes=evaluation.votes,
        signals=evaluation.signals,
        signals_total=evaluation.signals_total,
        verdict=verdict,
        reason=evaluation.reason,
        phase=alert.phase.value,
        transition=change,
        path=_path(rule, memory, after, held),
        measures={name: rules.measures[name] for name in leaves if name in rules.measures},
    )
    return Decision(explanation=explanation, memory=after, changed=after != memory)


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
    if rule.points == 1:
        return verdict, ()
    point = {Verdict.BREACH: True, Verdict.OK: False}.get(verdict)
    points = (*before, point)[-(rule.points + EXTRA_POINTS) :]
    return m_of_n(points, m=rule.points_to_fire, n=rule.points) or Verdict.NO_DATA, points


def _remember(
    rule: Rule,
    rules: Rules,
    memory: Memory,
    evaluation: Evaluation,
    alert: AlertState,
    suppressor: SuppressorState,
    points: tuple[bool | None, ...],
    undecided: frozenset[str],
    change: Transition | None,
    now_ns: int,
) -> Memory:
    idle = alert.phase is Phase.INACTIVE
    breaching = {vote.id for vote in evaluation.votes} | (frozenset() if idle else undecided)
    severe_by = evaluation.severe_by or (memory.severe_by if memory.severe_by in breaching else "")
    after = msgspec.structs.replace(
        memory,
        alert=alert,
        suppressor=suppressor,
        verdict=evaluation.verdict,
        breaching=tuple(sorted(breaching)),
        severe_by="" if idle else severe_by,
        points=points,
        told_since_ns=now_ns if suppressor.acted and not memory.suppressor.acted else memory.told_since_ns,
    )
    if change is not None and change.after is Phase.FIRING and change.before is not Phase.RECOVERING:
        key = key_of(memory.labels)
        summary = title(rule.id, rule.severity, evaluation.reason, evaluation.votes, measures=rules.measures, key=key)
        after = msgspec.structs.replace(
            after,
            summary=summary,
            votes=evaluation.votes,
            window=evaluation.window,
            severe=evaluation.level is Level.SEVERE,
        )
    return after


def _path(rule: Rule, before: Memory, after: Memory, held: str) -> tuple[Stage, ...]:
    """Return the stations of the notice up to the suppressor; grouping and receivers follow."""
    firing = after.alert.phase in {Phase.FIRING, Phase.RECOVERING}
    told = before.suppressor.acted
    if not firing and not told:
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


def _with_notices(
    rule: Rule,
    judged: Sequence[Decision],
    memories: Mapping[str, Memory],
    entries: dict[tuple[str, str], Entry],
    now_ns: int,
) -> list[Decision]:
    """Route one rule's group to each receiver, and put what came of it into the decisions."""
    prints = {fingerprint(_named(rule, memory.labels)): memory for memory in memories.values()}
    firing = {name: memory.told_since_ns for name, memory in prints.items() if memory.suppressor.acted}
    notices: list[Notice] = []
    routings: list[tuple[str, Routing]] = []
    for receiver in rule.receivers:
        last = entries.get((rule.id, receiver))
        resolved = frozenset() if last is None else (last.firing | last.resolved) - frozenset(firing)
        routing = route(last, firing=firing, resolved=resolved, now_ns=now_ns, grouping=rule.grouping)
        routings.append((receiver, routing))
        if routing.notify:
            episode, number = _episode(last, firing, prints)
            entry = told(last, firing, at_ns=now_ns, episode=episode, number=number)
            notices.append(_notice(rule, receiver, routing.reason, entry, prints, last))
            entries[rule.id, receiver] = entry
    decisions = [_routed(decision, routings) for decision in judged]
    if notices:
        first = next((at for at, d in enumerate(decisions) if d.transition is not None), 0)
        decisions[first] = msgspec.structs.replace(decisions[first], notices=tuple(notices))
    return decisions


def _routed(decision: Decision, routings: Sequence[tuple[str, Routing]]) -> Decision:
    path = decision.explanation.path
    if path and path[-1].passed:
        ways = [Stage(f"receiver {name}", passed=way.notify, reason=way.reason) for name, way in routings]
        path = (*path, *(ways or [Stage("receiver", passed=False, reason="no receiver is configured")]))
        explanation = msgspec.structs.replace(decision.explanation, path=path)
        return msgspec.structs.replace(decision, explanation=explanation)
    return decision


def _named(rule: Rule, labels: Labels) -> dict[str, str]:
    return {"alertname": rule.id, "severity": rule.severity, **labels}


def _episode(last: Entry | None, firing: Mapping[str, int], prints: Mapping[str, Memory]) -> tuple[str, int]:
    """Return the group's episode and the number of its next notice; the member that fired first names the episode."""
    if last is not None and last.firing:
        return last.episode, last.number + 1
    episode = prints[min(firing, key=lambda name: (firing[name], name))].alert.episode
    return episode, last.number + 1 if last is not None and last.episode == episode else 1


def _notice(
    rule: Rule, receiver: str, reason: str, entry: Entry, prints: Mapping[str, Memory], last: Entry | None
) -> Notice:
    ended = (last.firing if last else frozenset()) - entry.firing
    shown = [name for name in sorted(prints) if name in entry.firing or name in ended]
    members = tuple(_member(rule, name, prints[name], firing=name in entry.firing) for name in shown)
    members = tuple(sorted(members, key=lambda member: (member.status, member.starts_at_ns, member.fingerprint)))
    head = members[0].summary
    extra = f" (and {len(members) - 1} more)" if len(members) > 1 else ""
    return Notice(
        id=f"{receiver}:{rule.id}:{entry.episode}:{entry.number}",
        receiver=receiver,
        alert=rule.id,
        severity=rule.severity,
        severe=any(prints[name].severe for name in entry.firing),
        status="firing" if entry.firing else "resolved",
        reason=reason,
        episode=entry.episode,
        number=entry.number,
        at_ns=entry.at_ns,
        formula=show(rule.when),
        title=(head if entry.firing else f"resolved: {head}") + extra,
        members=members,
    )


def _member(rule: Rule, name: str, memory: Memory, *, firing: bool) -> Member:
    return Member(
        fingerprint=name,
        labels=_named(rule, memory.labels),
        status="firing" if firing else "resolved",
        starts_at_ns=memory.alert.fired_at_ns or memory.alert.active_at_ns,
        ends_at_ns=None if firing else memory.alert.resolved_at_ns,
        summary=memory.summary,
        votes=memory.votes,
        window=memory.window,
    )
