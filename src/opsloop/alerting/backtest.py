"""Backtest: what a rule file would have done over stored readings.

The same machine as live, fed with the readings of the past, instant by instant. A stored ``breach`` event says what a
signal's verdict became; between two of them it stayed so, therefore each reading stands until the next of its id and
labels, or until ``stand_ns`` have passed without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from opsloop.alerting.decide import Book, Decision, decide
from opsloop.alerting.explain import Explanation
from opsloop.alerting.notice import Notice
from opsloop.alerting.route import key_of
from opsloop.alerting.rule import Rules
from opsloop.clock import NANOSECONDS
from opsloop.event import Event
from opsloop.verdict import Reading, reading_from_event

__all__ = ["STAND_SECONDS", "Report", "backtest", "replay_instants"]

STAND_SECONDS: Final = 86_400.0
"""How long a stored reading stands without a later one."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What would have happened."""

    evaluations: int
    pages: int
    """Notices of ``page`` rules that tell of a firing alert for the first time; each receiver's twin counts once."""
    tickets: int
    notices: tuple[Notice, ...]
    explanations: tuple[Explanation, ...]
    """One record for each evaluation that changed anything."""
    pages_by_alert: dict[str, int] = {}


def backtest(rules: Rules, readings_by_instant: Mapping[int, Sequence[Reading]]) -> Report:
    """Run the rules over readings by instant (nanoseconds) and report the notices that would have gone out.

    >>> from opsloop.alerting.rule import load_rules
    >>> from opsloop.settings import Settings
    >>> backtest(load_rules(Settings()), {60_000_000_000: []}).pages
    0
    """
    book = Book()
    decisions: list[Decision] = []
    evaluations = 0
    for now_ns in sorted(readings_by_instant):
        book, made = decide(rules, book, readings_by_instant[now_ns], now_ns)
        evaluations += len(made)
        decisions.extend(decision for decision in made if decision.changed or decision.notices)
    notices = tuple(notice for decision in decisions for notice in decision.notices)
    first = {(n.alert, n.episode, n.number): n for n in notices if n.status == "firing" and "repeat" not in n.reason}
    pages = [notice for notice in first.values() if notice.severity == "page"]
    return Report(
        evaluations=evaluations,
        pages=len(pages),
        tickets=len(first) - len(pages),
        notices=notices,
        explanations=tuple(decision.explanation for decision in decisions),
        pages_by_alert={rule.id: sum(page.alert == rule.id for page in pages) for rule in rules.rules},
    )


def replay_instants(
    events: Iterable[Event], *, start_ns: int, end_ns: int, interval_ns: int, stand_seconds: float = STAND_SECONDS
) -> dict[int, list[Reading]]:
    """Return readings by instant in (start, end] from stored ``breach`` events, which may begin before ``start``.

    An instant is every ``interval_ns`` and every moment at which a reading changed. A reading that stands is moved to
    the instant: its window keeps its length, its numbers are those that were measured when it changed.
    """
    changes = sorted((reading_from_event(event) for event in events), key=lambda reading: reading.window_end_ns)
    moments = {reading.window_end_ns for reading in changes}
    moments |= set(range(start_ns + interval_ns, end_ns + 1, interval_ns))
    stand_ns = round(stand_seconds * NANOSECONDS)
    standing: dict[tuple[str, str], Reading] = {}
    found: dict[int, list[Reading]] = {}
    waiting = iter([*changes, None])
    change = next(waiting)
    for now_ns in sorted(moment for moment in moments if moment <= end_ns):
        while change is not None and change.window_end_ns <= now_ns:
            standing[change.id, key_of(change.labels)] = change
            change = next(waiting)
        if now_ns > start_ns:
            found[now_ns] = [
                _moved(reading, now_ns) for reading in standing.values() if _stands(reading, now_ns, stand_ns)
            ]
    return found


def _stands(reading: Reading, now_ns: int, stand_ns: int) -> bool:
    return now_ns - reading.window_end_ns <= stand_ns


def _moved(reading: Reading, now_ns: int) -> Reading:
    length = reading.window_end_ns - reading.window_start_ns
    return msgspec.structs.replace(reading, window_start_ns=now_ns - length, window_end_ns=now_ns)
