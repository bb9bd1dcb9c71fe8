"""What online eval answers over HTTP and on the command line."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opsloop.clock import Clock
from opsloop.endpoint import WINDOW_PARAMETERS, Arguments, Endpoint, Parameter, window_of
from opsloop.errors import InputError
from opsloop.filter import equals
from opsloop.online_eval.answer import answer_from_events
from opsloop.online_eval.estimate import Estimate, Sums, estimate
from opsloop.online_eval.monitor import Monitor
from opsloop.online_eval.scorers import SCORERS, Score
from opsloop.online_eval.scorers.groundedness import SentenceSupport, sentence_support
from opsloop.online_eval.sql import (
    Coverage,
    ScorerSums,
    WorstScore,
    coverage_statement,
    evidence_statement,
    sums_statement,
    to_coverage,
    to_sums,
    to_worst,
    worst_statement,
)
from opsloop.online_eval.watch import Drift, reading
from opsloop.settings import Settings
from opsloop.stream import Database
from opsloop.verdict import Reading

BUCKETS: Final = 60
WORST: Final = 20
REQUEST_ID: Final = Parameter("request_id", "the request whose answer is explained", required=True)


class Point(msgspec.Struct, frozen=True):
    """One scorer's mean in one bucket."""

    ts_ns: int
    """The bucket's end."""
    mean: float | None
    n: int


class ScorerSummary(msgspec.Struct, frozen=True):
    """One scorer over the window."""

    scorer: str
    version: str
    estimate: Estimate
    unscored: int
    series: list[Point]


class StratumState(msgspec.Struct, frozen=True):
    """One stratum of the detector as it stands now."""

    stratum: str
    floor: float
    n: int
    evidence: float
    """Its weighted share of E; for recovery while it is in drift."""
    drifted: bool
    window_n: int
    """Scores of this stratum in the window asked for."""
    window_evidence: float | None
    """What a detector would have gathered, unweighted, from those alone; ``None`` without a score there."""


class DriftState(msgspec.Struct, frozen=True):
    """The detector as it stands now."""

    reading: Reading
    evidence: float
    """E, over all strata that are not in drift."""
    alarm_at: float
    """A: at most one false alarm per this many scored answers."""
    drifts: list[Drift]
    strata: list[StratumState]


class Quality(msgspec.Struct, frozen=True):
    """The answer of ``GET /api/quality``."""

    start_ns: int
    end_ns: int
    bucket_ns: int
    scorers: list[ScorerSummary]
    drift: DriftState
    worst: list[WorstScore]
    coverage: Coverage


class ScorerVerdict(msgspec.Struct, frozen=True):
    """What one scorer says of the answer now, and whether the stream holds its verdict already."""

    scorer: str
    version: str
    score: Score
    stored: bool
    probability: float | None = None
    """The stored verdict's inclusion probability."""


class Explanation(msgspec.Struct, frozen=True):
    """The answer of ``GET /api/quality/explain``."""

    request_id: str
    question: str
    answer: str | None
    contexts: list[str]
    verdicts: list[ScorerVerdict]
    sentences: list[SentenceSupport]
    """The answer's sentences with their support: what to highlight."""


def endpoints(database: Database, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return online eval's operations."""
    monitor = Monitor(database, settings.eval)

    def quality(arguments: Arguments, body: bytes) -> Quality:
        del body
        start_ns, end_ns = window_of(arguments, clock=clock)
        monitor.refresh(clock.now_ns())
        return _quality(database, monitor, start_ns=start_ns, end_ns=end_ns, now_ns=clock.now_ns())

    def explain(arguments: Arguments, body: bytes) -> Explanation:
        del body
        return _explanation(database, arguments.get("request_id", ""))

    return (
        Endpoint(
            path="/api/quality",
            summary="Mean scores with intervals, their course, drift since when, the worst answers, coverage",
            handler=quality,
            parameters=WINDOW_PARAMETERS,
        ),
        Endpoint(
            path="/api/quality/explain",
            summary="Every scorer's verdict on one answer, sentence by sentence",
            handler=explain,
            parameters=(REQUEST_ID,),
        ),
    )


def _quality(database: Database, monitor: Monitor, *, start_ns: int, end_ns: int, now_ns: int) -> Quality:
    bucket_ns = max(1, -((start_ns - end_ns) // BUCKETS))
    sums = to_sums(database.rows(sums_statement(start_ns=start_ns, end_ns=end_ns, bucket_ns=bucket_ns)))
    return Quality(
        start_ns=start_ns,
        end_ns=end_ns,
        bucket_ns=bucket_ns,
        scorers=_summaries(sums, start_ns=start_ns, end_ns=end_ns, bucket_ns=bucket_ns),
        drift=_drift(database, monitor, start_ns=start_ns, end_ns=end_ns, now_ns=now_ns),
        worst=to_worst(database.rows(worst_statement(start_ns=start_ns, end_ns=end_ns, most=WORST))),
        coverage=to_coverage(database.rows(coverage_statement(start_ns=start_ns, end_ns=end_ns))),
    )


def _summaries(rows: list[ScorerSums], *, start_ns: int, end_ns: int, bucket_ns: int) -> list[ScorerSummary]:
    grouped: dict[tuple[str, str], list[ScorerSums]] = {}
    for row in rows:
        grouped.setdefault((row.scorer, row.version), []).append(row)
    return [
        ScorerSummary(
            scorer=scorer,
            version=version,
            estimate=estimate(sum((row.sums for row in group), Sums())),
            unscored=sum(row.unscored for row in group),
            series=[
                Point(min(end_ns, start_ns + (row.bucket + 1) * bucket_ns), estimate(row.sums).mean, row.sums.n)
                for row in group
            ],
        )
        for (scorer, version), group in grouped.items()
    ]


def _drift(database: Database, monitor: Monitor, *, start_ns: int, end_ns: int, now_ns: int) -> DriftState:
    watch = monitor.watch
    window: dict[str, tuple[int, float]] = {}
    for scorer, floor in {(name.partition("@")[0], s.floor) for name, s in watch.detector.strata.items()}:
        statement = evidence_statement(scorer=scorer, floor=floor, start_ns=start_ns, end_ns=end_ns)
        for name, n, evidence in database.rows(statement):
            if name in watch.detector.strata and watch.detector.strata[name].floor == floor:
                window[name] = (n, evidence)
    strata = [
        StratumState(
            stratum=name,
            floor=stratum.floor,
            n=stratum.n,
            evidence=stratum.weight * stratum.evidence,
            drifted=stratum.onset is not None,
            window_n=window.get(name, (0, None))[0],
            window_evidence=window.get(name, (0, None))[1],
        )
        for name, stratum in watch.detector.strata.items()
    ]
    return DriftState(
        reading=reading(watch, now_ns=now_ns),
        evidence=watch.detector.evidence,
        alarm_at=watch.detector.scores_per_false_page,
        drifts=list(watch.drifts.values()),
        strata=strata,
    )


def _explanation(database: Database, request_id: str) -> Explanation:
    if not request_id:
        raise InputError("no request_id was given", fix="add ?request_id=REQUEST")
    events = database.query(equals(request_id=request_id))
    answer = answer_from_events(events)
    if answer is None:
        raise InputError(f"there is no request {request_id!r}", fix="copy its request_id from a log line or a trace")
    stored: dict[tuple[str, str], dict[str, Any]] = {
        (str(event.attributes.get("scorer")), str(event.attributes.get("scorer_version"))): event.attributes
        for event in events
        if event.event == "score"
    }
    verdicts = []
    for name, scorer in SCORERS.items():
        found = stored.pop((name, scorer.version), None)
        probability = found.get("probability") if found else None
        verdicts.append(ScorerVerdict(name, scorer.version, scorer.score(answer), found is not None, probability))
    for (name, version), found in stored.items():
        verdicts.append(ScorerVerdict(name, version, _stored_score(found), stored=True))
    return Explanation(
        request_id=request_id,
        question=answer.question,
        answer=answer.answer,
        contexts=list(answer.contexts),
        verdicts=verdicts,
        sentences=sentence_support(answer.answer or "", answer.contexts),
    )


def _stored_score(found: dict[str, Any]) -> Score:
    """Return a verdict of a scorer that is not ours or of another version: a judge, a person."""
    value = found.get("score")
    if found.get("status") == "scored" and isinstance(value, int | float):
        return Score("scored", float(value), str(found.get("label", "")), str(found.get("explanation", "")))
    return Score("unscored", None, str(found.get("label", "")), str(found.get("explanation", "")))
