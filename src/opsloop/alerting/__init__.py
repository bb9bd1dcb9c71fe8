"""Alerting: page once, when two different signals breach in one shared window, and say why or why not.

Objects
    A *reading* is one signal's verdict in one window. A *rule* is a formula over readings with its damping. An
    *episode* runs from the first breach to the resolve. A *notice* is what a receiver is told about it.
Rule
    readings -> votes of distinct signals in one window -> formula (three-valued) -> life cycle -> suppressor ->
    grouping -> outbox -> receiver. Each arrow is a pure function, and each notice that stops on the way says where.
    Missing data is not recovery; suppression silences the action, never the state; delivery is at least once.
Limits
    One evaluation knows no more than its readings: their thresholds and windows are the dashboard's and online eval's.
    Keys (tenants, routes) are joined in memory, so their number should be bounded by the labels that readings carry.
"""

from __future__ import annotations

from opsloop.alerting.backtest import Report, backtest, replay_instants
from opsloop.alerting.composite import Context, Evaluation, Level, evaluate
from opsloop.alerting.decide import Book, Decision, decide
from opsloop.alerting.explain import Explanation, Stage
from opsloop.alerting.expression import Expression, show
from opsloop.alerting.grammar import parse
from opsloop.alerting.judge import Memory
from opsloop.alerting.lifecycle import AlertState, Phase, Timing, Transition, step
from opsloop.alerting.notice import Member, Notice
from opsloop.alerting.route import Entry, Grouping, fingerprint
from opsloop.alerting.rule import Rule, Rules, load_rules, read_rules

__all__ = [
    "AlertState",
    "Book",
    "Context",
    "Decision",
    "Entry",
    "Evaluation",
    "Explanation",
    "Expression",
    "Grouping",
    "Level",
    "Member",
    "Memory",
    "Notice",
    "Phase",
    "Report",
    "Rule",
    "Rules",
    "Stage",
    "Timing",
    "Transition",
    "backtest",
    "decide",
    "evaluate",
    "fingerprint",
    "load_rules",
    "parse",
    "read_rules",
    "replay_instants",
    "show",
    "step",
]
