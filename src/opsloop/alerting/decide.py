"""One evaluation of all rules: the pure machine that runs live, over history, and in a lab.

``decide(rules, book, readings, now_ns) -> (book, decisions)``. The book holds what the machine remembers: a memory for
each rule and key, what each receiver was last told, and the last known readings. Nothing else enters a decision, so the
same readings give the same pages on every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from opsloop.alerting.composite import leaves_of
from opsloop.alerting.dispatch import Dispatch, dispatch
from opsloop.alerting.explain import Explanation, Stage
from opsloop.alerting.judge import Case, Memory, judge
from opsloop.alerting.keys import ReadingIndex, index_readings, keys_of
from opsloop.alerting.lifecycle import Phase, Transition
from opsloop.alerting.notice import Notice
from opsloop.alerting.route import Entry, key_of
from opsloop.alerting.rule import Rule, Rules
from opsloop.verdict import Reading

__all__ = ["Book", "Decision", "decide", "open_alerts"]


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
    """The notices of the rule's group, with the first decision of the group that changed its phase."""

    @property
    def transition(self) -> Transition | None:
        """The change of phase, if there was one."""
        return self.explanation.transition


def decide(rules: Rules, book: Book, readings: Sequence[Reading], now_ns: int) -> tuple[Book, tuple[Decision, ...]]:
    """Judge every rule at ``now_ns`` over the readings handed in.

    A reading that was handed in before and is missing now stands in while its window ended at most one evaluation
    interval ago. Returns the next book and one decision per rule and key, in the order of the rules.
    """
    fresh = {at: reading for at, reading in book.readings.items() if now_ns - rules.hold_ns <= reading.window_end_ns}
    fresh |= {(reading.id, key_of(reading.labels)): reading for reading in readings}
    indexed = index_readings(fresh.values())
    memories, entries = dict(book.memories), dict(book.entries)
    decisions: list[Decision] = []
    for rule in rules.rules:
        made = []
        for labels in _labels(rule, rules, book, indexed):
            at = (rule.id, key_of(labels))
            before = book.memories.get(at, Memory(labels=labels, severity=rule.severity))
            judged = judge(Case(rule, rules, before, indexed, now_ns))
            memories[at] = judged.memory
            changed = judged.memory != before
            made.append(Decision(explanation=judged.explanation, memory=judged.memory, changed=changed))
        group = {key: memory for (name, key), memory in memories.items() if name == rule.id}
        last = {receiver: entry for (name, receiver), entry in entries.items() if name == rule.id}
        sent = dispatch(rule, group, last, now_ns) if made else []
        entries |= {(rule.id, one.receiver): one.entry for one in sent if one.entry is not None}
        decisions.extend(_with_notices(made, sent))
    return Book(memories=memories, entries=entries, readings=fresh), tuple(decisions)


def open_alerts(book: Book) -> dict[str, str]:
    """Return the alerts that are not over, by id, each with its severity as it was last told."""
    return {name: memory.severity for (name, _), memory in sorted(book.memories.items()) if _open(memory)}


def _open(memory: Memory) -> bool:
    return memory.alert.phase is not Phase.INACTIVE or memory.suppressor.acted or memory.alert.flapping


def _labels(rule: Rule, rules: Rules, book: Book, readings: ReadingIndex) -> list[dict[str, str]]:
    """Return the keys to judge: those with readings, and those that are not over yet though their data vanished."""
    leaves = leaves_of(rule.when, rules.composites)
    found = {} if rule.retired else {key_of(labels): labels for labels in keys_of(leaves, readings)}
    for (name, key), memory in book.memories.items():
        if name == rule.id and _open(memory):
            found.setdefault(key, memory.labels)
    return [found[key] for key in sorted(found)]


def _with_notices(made: list[Decision], sent: Sequence[Dispatch]) -> list[Decision]:
    """Continue each path through the group to the receivers, and hand the notices to the first that changed phase."""
    ways = tuple(Stage(f"receiver {one.receiver}", one.routing.notify, one.routing.reason) for one in sent)
    ways = ways or (Stage("receiver", passed=False, reason="no receiver is configured"),)
    for at, decision in enumerate(made):
        path = decision.explanation.path
        if path[-1].passed:
            explanation = msgspec.structs.replace(decision.explanation, path=(*path, *ways))
            made[at] = msgspec.structs.replace(decision, explanation=explanation)
    notices = tuple(one.notice for one in sent if one.notice is not None)
    if notices:
        first = next((at for at, decision in enumerate(made) if decision.transition is not None), 0)
        made[first] = msgspec.structs.replace(made[first], notices=notices)
    return made
