"""Online eval in SQL over the event table; each statement has its definition in Python, and a test that they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.online_eval.drift import BETS, bets
from opsloop.online_eval.estimate import Sums
from opsloop.online_eval.sample import DOMAIN
from opsloop.online_eval.watch import ScoreRow

__all__ = [
    "ANSWER_KINDS",
    "SAMPLE_KEY",
    "Coverage",
    "Pending",
    "ScorerSums",
    "WorstScore",
    "answer_events_statement",
    "coverage_statement",
    "evidence_statement",
    "newest_scores_statement",
    "pending_statement",
    "scores_after_statement",
    "sums_statement",
    "to_coverage",
    "to_events",
    "to_pending",
    "to_score_rows",
    "to_sums",
    "to_worst",
    "worst_statement",
]

ANSWER_KINDS: Final = ("request", "llm", "retrieve")
_ANSWER_FIELDS: Final = ("ts_ns", "event", "service", "request_id", "tenant", "route", "model")
LONGEST_REQUEST_NS: Final = 3600 * 10**9
"""A request that ran longer than an hour is not looked for: times in the table are starts, and reading is bounded."""
_DOMAIN_SQL: Final = DOMAIN.replace("\0", r"\0")
SAMPLE_KEY: Final = (
    "bitShiftRight(reinterpretAsUInt64(reverse(substring("
    f"SHA256(concat('{_DOMAIN_SQL}', request_id)), 1, 8))), 11) / 9007199254740992"
)
"""The request's u of :func:`opsloop.online_eval.sample.sample_key`, bit for bit."""
_SCORE: Final = "JSONExtract(attributes, 'score', 'Nullable(Float64)')"
_WINDOW: Final = "ts_ns > {start_ns:Int64} AND ts_ns <= {end_ns:Int64}"
_SCORED: Final = f"event = 'score' AND leaves['status'] = 'scored' AND {_SCORE} IS NOT NULL"
_STRATUM: Final = (
    "if(leaves['stratum'] != '', leaves['stratum'], concat(leaves['scorer'], '@', leaves['scorer_version']))"
)
_ROW: Final = f"sequence, ts_ns, request_id, leaves['scorer'], {_STRATUM}, assumeNotNull({_SCORE})"


class Pending(msgspec.Struct, frozen=True):
    """A finished request whose answer has no score yet."""

    request_id: str
    ts_ns: int
    finished_ns: int
    u: float


class ScorerSums(msgspec.Struct, frozen=True):
    """One scorer's sums in one bucket of a window."""

    scorer: str
    version: str
    bucket: int
    """Counted from 0 at the window's start."""
    unscored: int
    sums: Sums


class WorstScore(msgspec.Struct, frozen=True):
    """One low score, for a list."""

    request_id: str
    ts_ns: int
    scorer: str
    score: float
    label: str
    explanation: str


class Coverage(msgspec.Struct, frozen=True):
    """How much of a window was looked at, in requests."""

    answered: int
    """Requests that did not fail and were not rejected."""
    sampled: int
    """Those with any score row."""
    scored: int
    """Those with at least one score."""


def pending_statement(*, start_ns: int, end_ns: int, rate: float, marker: str, most: int) -> Statement:
    """Select the requests that finished in (start_ns, end_ns], did not fail, are sampled and lack ``marker``.

    ``marker`` is the ``scorer:version`` whose score event tells that an answer was done. Of more than ``most`` the
    ones of smallest u come, so a bound on the work is a lower rate, never a bias.
    """
    finished = "ts_ns + 1000 * toInt64(ifNull(duration_us, 0))"
    sql = f"""
        SELECT request_id, ts_ns, {finished} AS finished_ns, {SAMPLE_KEY} AS u FROM events
        WHERE event = 'request' AND request_id != '' AND NOT error AND ifNull(status_code, 200) < 400
          AND ts_ns > {{start_ns:Int64}} - {LONGEST_REQUEST_NS} AND ts_ns <= {{end_ns:Int64}}
          AND ifNull(duration_us, 0) <= {LONGEST_REQUEST_NS // 1000}
          AND finished_ns > {{start_ns:Int64}} AND finished_ns <= {{end_ns:Int64}}
          AND u < {{rate:Float64}}
          AND concat('score:', request_id, ':', {{marker:String}}) NOT IN (
            SELECT event_id FROM events WHERE event = 'score'
              AND ts_ns > {{start_ns:Int64}} - {LONGEST_REQUEST_NS} AND ts_ns <= {{end_ns:Int64}})
        ORDER BY u, request_id, ts_ns, sequence LIMIT 1 BY request_id LIMIT {{most:UInt64}}"""
    parameters = {"start_ns": start_ns, "end_ns": end_ns, "rate": rate, "marker": marker, "most": most}
    return Statement(sql, parameters)


def to_pending(rows: Sequence[tuple[Any, ...]]) -> list[Pending]:
    """Read the rows of :func:`pending_statement`."""
    return [Pending(*row) for row in rows]


def answer_events_statement(request_ids: Sequence[str], *, start_ns: int, end_ns: int) -> Statement:
    """Select what :func:`opsloop.online_eval.answer.answers_from_events` reads of some requests' events."""
    sql = f"""SELECT {", ".join(_ANSWER_FIELDS)}, attributes FROM events
        PREWHERE request_id IN {{request_ids:Array(String)}} AND event IN {{kinds:Array(String)}}
        WHERE {_WINDOW} ORDER BY ts_ns, sequence"""
    parameters = {"request_ids": list(request_ids), "kinds": list(ANSWER_KINDS)}
    return Statement(sql, {**parameters, "start_ns": start_ns, "end_ns": end_ns})


def to_events(rows: Sequence[tuple[Any, ...]]) -> list[Event]:
    """Read the rows of :func:`answer_events_statement`: events with the fields that an answer needs."""
    return [
        Event(
            **dict(zip(_ANSWER_FIELDS, row[:-1], strict=True)),
            attributes=msgspec.json.decode(row[-1]) if row[-1] else {},
        )
        for row in rows
    ]


def newest_scores_statement(most: int) -> Statement:
    """Select the latest stored scores, newest first: what the watch is rebuilt from."""
    sql = f"SELECT {_ROW} FROM events WHERE {_SCORED} ORDER BY sequence DESC LIMIT {{most:UInt64}}"
    return Statement(sql, {"most": most})


def scores_after_statement(sequence: int, *, start_ns: int) -> Statement:
    """Select the scores stored after ``sequence``, in the order in which they were stored."""
    sql = f"""SELECT {_ROW} FROM events WHERE {_SCORED}
        AND ts_ns > {{start_ns:Int64}} AND sequence > {{after:UInt64}} ORDER BY sequence"""
    return Statement(sql, {"start_ns": start_ns, "after": sequence})


def to_score_rows(rows: Sequence[tuple[Any, ...]]) -> list[ScoreRow]:
    """Read the rows of the two statements above."""
    return [ScoreRow(*row) for row in rows]


def sums_statement(*, start_ns: int, end_ns: int, bucket_ns: int) -> Statement:
    """Add up a window's scores by scorer, version and bucket: see :class:`opsloop.online_eval.estimate.Sums`."""
    sql = f"""
        SELECT scorer, version, bucket, countIf(x IS NULL), countIf(x IS NOT NULL),
          sumIf(w, x IS NOT NULL), ifNull(sum(w * x), 0), sumIf(w * w, x IS NOT NULL),
          ifNull(sum(w * w * x), 0), ifNull(sum(w * w * x * x), 0)
        FROM (
          SELECT leaves['scorer'] AS scorer, leaves['scorer_version'] AS version,
            intDiv(ts_ns - {{start_ns:Int64}} - 1, {{bucket_ns:Int64}}) AS bucket,
            if(leaves['status'] = 'scored', {_SCORE}, NULL) AS x,
            1 / ifNull(JSONExtract(attributes, 'probability', 'Nullable(Float64)'), 1) AS w
          FROM events WHERE event = 'score' AND {_WINDOW})
        GROUP BY scorer, version, bucket ORDER BY scorer, version, bucket"""
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns, "bucket_ns": bucket_ns})


def to_sums(rows: Sequence[tuple[Any, ...]]) -> list[ScorerSums]:
    """Read the rows of :func:`sums_statement`."""
    return [ScorerSums(row[0], row[1], row[2], row[3], Sums(*row[4:])) for row in rows]


def worst_statement(*, start_ns: int, end_ns: int, most: int) -> Statement:
    """Select a window's lowest scores, the latest first among equals."""
    sql = f"""SELECT request_id, ts_ns, leaves['scorer'], assumeNotNull({_SCORE}) AS x, leaves['label'],
          leaves['explanation']
        FROM events WHERE {_SCORED} AND {_WINDOW} AND x < 1
        ORDER BY x, ts_ns DESC, sequence DESC LIMIT {{most:UInt64}}"""
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns, "most": most})


def to_worst(rows: Sequence[tuple[Any, ...]]) -> list[WorstScore]:
    """Read the rows of :func:`worst_statement`."""
    return [WorstScore(*row) for row in rows]


def coverage_statement(*, start_ns: int, end_ns: int) -> Statement:
    """Count the requests of a window that were answered, sampled and scored."""
    sql = f"""SELECT
          uniqExactIf(request_id, event = 'request' AND NOT error AND ifNull(status_code, 200) < 400),
          uniqExactIf(request_id, event = 'score'),
          uniqExactIf(request_id, event = 'score' AND leaves['status'] = 'scored')
        FROM events WHERE event IN ('request', 'score') AND request_id != '' AND {_WINDOW}"""
    return Statement(sql, {"start_ns": start_ns, "end_ns": end_ns})


def to_coverage(rows: Sequence[tuple[Any, ...]]) -> Coverage:
    """Read the one row of :func:`coverage_statement`."""
    return Coverage(*rows[0])


def evidence_statement(*, scorer: str, floor: float, start_ns: int, end_ns: int) -> Statement:
    """Fold a window's scores into the evidence of a detector that started at its beginning, by stratum.

    Rows are (stratum, scores, evidence). Bit-equal with :func:`opsloop.online_eval.drift.update` before an alarm.
    """
    sql = f"""
        SELECT stratum, length(xs), arrayAvg(arrayFold(
          (acc, x) -> arrayMap((r, l) -> (1 + r) * (1 + l * ({{floor:Float64}} - least(1., greatest(0., x)))),
            acc, {{bets:Array(Float64)}}),
          xs, arrayWithConstant({BETS}, 0.)))
        FROM (
          SELECT {_STRATUM} AS stratum,
            arrayMap(pair -> pair.2, arraySort(groupArray((sequence, assumeNotNull({_SCORE}))))) AS xs
          FROM events WHERE {_SCORED} AND leaves['scorer'] = {{scorer:String}} AND {_WINDOW} GROUP BY stratum)
        ORDER BY stratum"""
    parameters = {"scorer": scorer, "floor": floor, "bets": list(bets(floor)), "start_ns": start_ns, "end_ns": end_ns}
    return Statement(sql, parameters)
