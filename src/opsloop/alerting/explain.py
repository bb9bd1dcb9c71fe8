"""The explain trail: one record per evaluation of each rule and key.

It answers "why did it page?", "why was I not paged?", "did it recover, or did the data vanish?": the instant, the
window, every input with its numbers, the votes, the formula, the result, the transition, and the path of the notice
through suppressor, cool-down, grouping and receiver, ending where it stopped with what stopped it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from opsloop.alerting.lifecycle import Transition
from opsloop.alerting.notice import vote_text
from opsloop.clock import utc
from opsloop.verdict import Reading, Verdict

__all__ = ["Explanation", "Stage"]


class Stage(msgspec.Struct, frozen=True):
    """One station of a notice's path."""

    stage: str
    passed: bool
    reason: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why one evaluation of one rule did what it did."""

    alert: str
    key: str
    at_ns: int
    severity: str
    formula: str
    window: tuple[int, int]
    inputs: tuple[Reading, ...]
    """Every reading that belonged to the evaluation."""
    absent: tuple[str, ...]
    """Signals of the formula that had no reading in it."""
    votes: tuple[Reading, ...]
    verdict: Verdict
    reason: str
    phase: str
    transition: Transition | None
    path: tuple[Stage, ...]
    measures: Mapping[str, str] = {}

    @property
    def notified(self) -> bool:
        """Whether a notice went into the outbox."""
        return any(stage.stage.startswith("receiver") and stage.passed for stage in self.path)

    @property
    def outcome(self) -> str:
        """``page``, ``ticket``, ``resolved`` when a notice went out, else ``no page``."""
        if not self.notified:
            return f"no {self.severity}"
        return self.severity if self.phase in {"firing", "recovering"} else "resolved"

    def line(self) -> str:
        """Return the record in one line."""
        votes = ", ".join(vote_text(vote, measure=self.measures.get(vote.id, "")) for vote in self.votes)
        stopped = next((stage for stage in self.path if not stage.passed), self.path[-1] if self.path else None)
        named = f"{self.alert} [{self.key}]" if self.key else self.alert
        why = self.reason + (f": {votes}" if votes else "")
        said = stopped is None or (stopped.stage == "condition" and self.phase == "inactive")
        by = "" if said or stopped is None else f"; {stopped.stage}: {stopped.reason}"
        return f"{named} is {self.phase}, {self.outcome}: {why}{by}"

    def text(self) -> str:
        """Return the record on several lines, from the inputs to where the notice stopped."""
        start, end = self.window
        rows = [
            f"{self.alert}{f' [{self.key}]' if self.key else ''} at {utc(self.at_ns)}: {self.outcome}",
            f"  formula     {self.formula}",
            f"  window      ({utc(start)}, {utc(end)}]",
        ]
        for reading in self.inputs:
            numbers = vote_text(reading, measure=self.measures.get(reading.id, ""))
            rows.append(f"  input       {reading.verdict:<12} {numbers}{'  severe' if reading.severe else ''}")
        rows.extend(f"  input       {Verdict.NO_DATA:<12} {name}" for name in self.absent)
        rows.append(f"  result      {self.verdict}, {self.reason}")
        change = self.transition
        moved = f"{change.before} -> {change.state} ({change.reason})" if change else f"stays {self.phase}"
        rows.append(f"  transition  {moved}")
        rows.extend(f"  {'passed' if way.passed else 'stopped':<11} {way.stage}: {way.reason}" for way in self.path)
        return "\n".join(rows)
