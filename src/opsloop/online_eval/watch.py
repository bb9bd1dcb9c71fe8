"""The watch: stored scores in, the drift reading out.

It holds one detector over strata of scorer, version, route and model, all summed, and says when the verdict changes.
Each scorer has the weight 1/J among J scorers, so one answer raises the evidence by at most 1 however many judge it.

The floor of a stratum is *declared* (the promise holds exactly), or *learned*: its first 200 scores are the reference,
and the floor is the lower of the declared one and what the reference supports less a tolerance. While a reference is
gathered the verdict is INSUFFICIENT, and nothing alarms.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from opsloop.clock import utc
from opsloop.online_eval.drift import Decision, Detector, declare, update
from opsloop.online_eval.estimate import lower_bound
from opsloop.settings import EvalSettings
from opsloop.verdict import Reading, Verdict

__all__ = ["Drift", "ScoreRow", "Watch", "observe", "reading", "stratum_name", "watch_for"]

REFERENCE_SCORES: Final = 200
TOLERANCE: Final = 0.02
"""How far below the reference's bound a learned floor lies: room for daily waves."""
RECENT_SCORES: Final = 50
STALE_SECONDS: Final = 3600.0
"""Without a score for this long the verdict is NO_DATA."""


class ScoreRow(msgspec.Struct, frozen=True):
    """One stored score, in the order in which it was stored."""

    sequence: int
    ts_ns: int
    """When the answer's request began."""
    request_id: str
    scorer: str
    stratum: str
    score: float


class Drift(msgspec.Struct, frozen=True):
    """One stratum in drift."""

    stratum: str
    floor: float
    onset_ns: int
    """When the answer began with which the drift most likely started."""
    alarm_ns: int
    """When the answer began whose score made it certain enough."""
    evidence: float
    """E at the alarm."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """The state: pure data, rebuilt from the stored scores in order."""

    detector: Detector
    floors: dict[str, float]
    """The declared floor of each scorer that is watched."""
    baseline: Literal["declared", "learned"] = "declared"
    references: dict[str, tuple[float, ...]] = {}
    """Scores of strata whose floor is still being learned."""
    learned: dict[str, float] = {}
    """What was learned once, by stratum; it stays, or a slow decline would become the new normal."""
    recent: dict[str, tuple[tuple[int, float], ...]] = {}
    """The latest (ts_ns, score) of each stratum."""
    drifts: dict[str, Drift] = {}
    last_ns: int | None = None
    """The latest answer seen; late ones do not set it back."""
    changed_ns: int = 0
    """Where the verdict changed last; changes have distinct times, and so distinct ids."""

    @property
    def verdict(self) -> Verdict:
        """What the scores seen so far say."""
        if self.drifts:
            return Verdict.BREACH
        if self.detector.strata:
            return Verdict.OK
        return Verdict.INSUFFICIENT if self.references else Verdict.NO_DATA


def stratum_name(scorer: str, version: str, route: str = "", model: str = "") -> str:
    """Return the stratum that a score belongs to.

    >>> stratum_name("groundedness", "1", "/chat")
    'groundedness@1 /chat'
    """
    return " ".join(filter(None, (f"{scorer}@{version}", route, model)))


def watch_for(settings: EvalSettings) -> Watch:
    """Return the empty watch that the settings ask for."""
    watched = (*settings.scorers, "judge") if settings.judge else settings.scorers
    floors = {name: settings.floors.get(name, settings.floor) for name in watched}
    detector = Detector(floor=settings.floor, scores_per_false_page=settings.scores_per_false_page)
    return Watch(detector=detector, floors=floors, baseline=settings.baseline)


def observe(watch: Watch, row: ScoreRow) -> tuple[Watch, Reading | None]:
    """Take one stored score into account; return the reading if it changed the verdict or what is in drift.

    A score of a scorer that is not watched changes nothing.
    """
    if row.scorer not in watch.floors:
        return watch, None
    before = watch.verdict
    last_ns = max(row.ts_ns, watch.last_ns or 0)
    kept = (*watch.recent.get(row.stratum, ()), (row.ts_ns, row.score))[-RECENT_SCORES:]
    watch = msgspec.structs.replace(watch, last_ns=last_ns, recent={**watch.recent, row.stratum: kept})
    if row.stratum not in watch.detector.strata:
        watch = _begin(watch, row)
    decision = None
    if row.stratum in watch.detector.strata:
        detector, decision = update(watch.detector, row.score, row.ts_ns, stratum=row.stratum)
        watch = msgspec.structs.replace(watch, detector=detector, drifts=_drifts(watch, decision, row.ts_ns))
    changed = watch.verdict is not before or (decision is not None and (decision.alarm or decision.cleared))
    if not changed:
        return watch, None
    last_ns = max(last_ns, watch.changed_ns + 1)
    watch = msgspec.structs.replace(watch, last_ns=last_ns, changed_ns=last_ns)
    return watch, reading(watch)


def reading(watch: Watch, *, now_ns: int | None = None) -> Reading:
    """Return the drift reading; with ``now_ns``, NO_DATA once nothing was scored for an hour."""
    last_ns = watch.last_ns
    if last_ns is None:
        return _silent(now_ns or 0, now_ns or 0, "no answer has been scored yet")
    if now_ns is not None and now_ns - last_ns > STALE_SECONDS * 1e9:
        was = f", when the verdict was {watch.verdict}"
        return _silent(last_ns, now_ns, f"no answer was scored since {utc(last_ns)}{was}")
    if watch.drifts:
        return _drifted(watch)
    if not watch.detector.strata:
        name, scores = max(watch.references.items(), key=lambda item: len(item[1]))
        reason = f"{len(scores)} of {REFERENCE_SCORES} reference scores for {name}"
        return _made(watch, Verdict.INSUFFICIENT, name, reason=reason)
    strata = watch.detector.strata
    name = max(strata, key=lambda key: strata[key].weight * strata[key].evidence)
    gathered, limit = watch.detector.evidence, watch.detector.scores_per_false_page
    reason = f"evidence {gathered:.4g} of {limit:g} against the floors, most in {name}"
    return _made(watch, Verdict.OK, name, floor=strata[name].floor, reason=reason)


def _begin(watch: Watch, row: ScoreRow) -> Watch:
    """Declare a stratum that was not seen before, at once or when its reference is complete."""
    declared, weight = watch.floors[row.scorer], 1 / len(watch.floors)
    if watch.baseline == "declared" or row.stratum in watch.learned:
        floor = declared if watch.baseline == "declared" else min(declared, watch.learned[row.stratum])
        detector = declare(watch.detector, row.stratum, floor=floor, weight=weight)
        return msgspec.structs.replace(watch, detector=detector)
    reference = (*watch.references.get(row.stratum, ()), row.score)
    references = {**watch.references, row.stratum: reference}
    if len(reference) <= REFERENCE_SCORES:
        return msgspec.structs.replace(watch, references=references)
    del references[row.stratum]
    floor = max(0.0, lower_bound(reference[:REFERENCE_SCORES]) - TOLERANCE)
    learned = {**watch.learned, row.stratum: floor}
    return _begin(msgspec.structs.replace(watch, references=references, learned=learned), row)


def _drifts(watch: Watch, decision: Decision, ts_ns: int) -> dict[str, Drift]:
    drifts = watch.drifts
    if decision.cleared:
        return {name: drift for name, drift in drifts.items() if name != decision.stratum}
    if decision.alarm and decision.onset is not None:
        floor = watch.detector.strata[decision.stratum].floor
        found = Drift(decision.stratum, floor, decision.onset, ts_ns, decision.evidence)
        return {**drifts, decision.stratum: found}
    return drifts


def _drifted(watch: Watch) -> Reading:
    """Speak of the drift that began first, and name the others."""
    first = min(watch.drifts.values(), key=lambda drift: (drift.onset_ns, drift.stratum))
    limit = watch.detector.scores_per_false_page
    reason = f"{first.stratum} below its floor {first.floor:.3g} since {utc(first.onset_ns)}"
    reason += f": evidence {first.evidence:.4g} reached {limit:g} at {utc(first.alarm_ns)}"
    others = [name for name in watch.drifts if name != first.stratum]
    reason += f"; also {', '.join(others)}" if others else ""
    return _made(watch, Verdict.BREACH, first.stratum, floor=first.floor, since_ns=first.onset_ns, reason=reason)


def _made(
    watch: Watch,
    verdict: Verdict,
    stratum: str,
    *,
    reason: str,
    floor: float | None = None,
    since_ns: int | None = None,
) -> Reading:
    """Return the reading whose value is the mean of a stratum's latest scores, or of those since ``since_ns``."""
    recent, last_ns = watch.recent[stratum], watch.last_ns or 0
    counted = [pair for pair in recent if since_ns is None or pair[0] >= since_ns] or list(recent)
    mean = sum(score for _, score in counted) / len(counted)
    return Reading(
        id="drift",
        group="quality",
        verdict=verdict,
        value=mean,
        threshold=floor,
        unit="score",
        n=len(counted),
        window_start_ns=min(last_ns, since_ns if since_ns is not None else min(ts_ns for ts_ns, _ in counted)) - 1,
        window_end_ns=last_ns,
        reason=f"{reason} (mean {mean:.3g} of its last {len(counted)})",
    )


def _silent(start_ns: int, end_ns: int, reason: str) -> Reading:
    return Reading(
        id="drift",
        group="quality",
        verdict=Verdict.NO_DATA,
        value=None,
        threshold=None,
        unit="score",
        n=0,
        window_start_ns=start_ns,
        window_end_ns=end_ns,
        reason=reason,
    )
