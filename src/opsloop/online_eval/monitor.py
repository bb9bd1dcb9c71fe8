"""The monitor: keeps a watch up to date with the scores that the stream holds.

Scores are read in the order in which they were stored, so a restart rebuilds the same state from the same stream, and
scores that someone else wrote count as well. It reads at most the latest 200,000 at start.
"""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from opsloop.filter import equals
from opsloop.online_eval.sql import newest_scores_statement, scores_after_statement, to_score_rows
from opsloop.online_eval.watch import Watch, observe, watch_for
from opsloop.settings import EvalSettings
from opsloop.stream import Database
from opsloop.verdict import Reading

__all__ = ["FLOOR_GAUGE", "Monitor"]

FLOOR_GAUGE: Final = "quality_floor"
"""The name of the gauge event that keeps a learned floor."""
HISTORY_SCORES: Final = 200_000
OLDEST_NS: Final = 8 * 86_400 * 10**9
"""Scores of answers older than this are not looked for while running; it keeps each look short."""


class Monitor:
    """A :class:`Watch` over a database. Safe between threads."""

    def __init__(self, database: Database, settings: EvalSettings) -> None:
        """Start empty; the first :meth:`refresh` reads the history."""
        self._database = database
        self._settings = settings
        self._lock = threading.Lock()
        self._watch = watch_for(settings)
        self._sequence: int | None = None

    @property
    def watch(self) -> Watch:
        """The state as of the last refresh."""
        return self._watch

    def refresh(self, now_ns: int) -> list[Reading]:
        """Take new scores in; return the readings at which the verdict changed, in order, none for the history."""
        with self._lock:
            if self._sequence is None:
                self._watch = msgspec.structs.replace(self._watch, learned=self._learned())
                rows = self._database.rows(newest_scores_statement(HISTORY_SCORES))[::-1]
            else:
                start_ns = max(0, now_ns - OLDEST_NS)
                rows = self._database.rows(scores_after_statement(self._sequence, start_ns=start_ns))
            changes = []
            for row in to_score_rows(rows):
                self._watch, change = observe(self._watch, row)
                if change is not None and self._sequence is not None:
                    changes.append(change)
            last = rows[-1][0] if rows else 0
            self._sequence = max(self._sequence or 0, last)
            return changes

    def _learned(self) -> dict[str, float]:
        """Read the floors that an earlier run learned."""
        if self._settings.baseline == "declared":
            return {}
        stored = [event.attributes for event in self._database.query(equals(event="gauge", name=FLOOR_GAUGE))]
        return {str(each["stratum"]): float(each["value"]) for each in stored if "stratum" in each}
