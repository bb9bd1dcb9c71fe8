"""The worker: scores answers soon after they were given, and says when their quality drifts.

Each tick looks at the requests that finished since the last one, a few seconds ago at the latest, so that their other
events are there too. A request that comes in late is still found for ten minutes. Work is bounded: of more than
``answers_per_tick`` waiting answers the hash takes that many, evenly over the whole time, with their probability
stored. So a history of days that is filled in at once is sampled at once, in the order of time, and never a backlog.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opsloop.clock import NANOSECONDS, Clock
from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.filter import equals
from opsloop.online_eval.answer import Answer, answers_from_events
from opsloop.online_eval.judge import Judge
from opsloop.online_eval.monitor import FLOOR_GAUGE, Monitor
from opsloop.online_eval.sample import priority_sample
from opsloop.online_eval.scorers import Score, Scorer, scorers_named
from opsloop.online_eval.sql import Pending, answer_events_statement, pending_statement, to_events, to_pending
from opsloop.online_eval.watch import reading, stratum_name
from opsloop.settings import JudgeSettings, Settings, environment
from opsloop.stream import Database
from opsloop.verdict import Reading, Verdict, reading_event, reading_from_event

BATCH_ANSWERS: Final = 250
"""Answers whose events are read, and whose scores are written, in one go."""
DOUBT_WEIGHT: Final = 10
"""An answer of score 0 is this much likelier to be judged, and one more."""
SLACK_NS: Final = 60 * NANOSECONDS
"""Clocks of two services may differ by this much."""


class EvalWorker:
    """Scores, detects and reports; call :meth:`tick` every few seconds, from one thread of one process."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        clock: Clock,
        *,
        judge: Judge | None = None,
        answers_per_tick: int = 2000,
        settle_seconds: float = 10.0,
        late_seconds: float = 600.0,
        backfill_seconds: float = 7 * 86_400.0,
    ) -> None:
        """Check the settings; raises :class:`ConfigError` for a scorer or a judge's key that does not exist.

        ``judge`` stands in for the one that the settings describe.
        """
        self._database = database
        self._settings = settings.eval
        self._clock = clock
        self._scorers = scorers_named(settings.eval.scorers)
        configured = settings.eval.judge
        self._judge = judge or (_judge(configured, clock) if configured else None)
        self._judged_per_tick = configured.answers_per_tick if configured else 0
        self._most = answers_per_tick
        self._settle_ns = round(settle_seconds * NANOSECONDS)
        self._late_ns = round(late_seconds * NANOSECONDS)
        self._backfill_ns = round(backfill_seconds * NANOSECONDS)
        self._monitor = Monitor(database, settings.eval)
        self._cursor_ns: int | None = None
        self._verdict: Verdict | None = None
        self._start_ns = 0
        self._kept_floors: set[str] = set()

    def tick(self) -> list[Reading]:
        """Score what waits, write the scores and any change of the drift verdict; return the drift reading."""
        now_ns = self._clock.now_ns()
        if self._cursor_ns is None:
            self._begin(now_ns)
        self._score_waiting(now_ns)
        for change in self._monitor.refresh(now_ns):
            self._report(change)
        self._keep_floors()
        current = reading(self._monitor.watch, now_ns=now_ns)
        if current.verdict is not (self._verdict or Verdict.NO_DATA):
            self._report(current)
        return [current]

    def _begin(self, now_ns: int) -> None:
        """Derive from the stream how far an earlier worker came and what it said last."""
        self._monitor.refresh(now_ns)
        ours = equals(event="score", scorer=self._scorers[0].name) if self._scorers else equals(event="score")
        scored = self._database.query(ours, limit=1, newest_first=True)
        oldest_ns = max(0, now_ns - self._backfill_ns)
        self._cursor_ns = max(oldest_ns, scored[0].ts_ns) if scored else oldest_ns
        self._start_ns = 0 if scored else oldest_ns
        said = self._database.query(equals(event="breach", id="drift"), limit=1, newest_first=True)
        self._verdict = reading_from_event(said[0]).verdict if said else None

    def _score_waiting(self, now_ns: int) -> None:
        """Score the answers that wait, oldest first, and move the cursor on."""
        end_ns = now_ns - self._settle_ns
        cursor_ns = self._cursor_ns or 0
        start_ns = max(0, self._start_ns, cursor_ns - self._late_ns)
        if not self._scorers or start_ns >= end_ns:
            return
        rate = self._settings.sample_rate
        first = self._scorers[0]
        statement = pending_statement(
            start_ns=start_ns, end_ns=end_ns, rate=rate, marker=f"{first.name}:{first.version}", most=self._most + 1
        )
        waiting = to_pending(self._database.rows(statement))
        if len(waiting) > self._most:
            # bottom-k: the first u that is left out is the probability of those that are taken
            rate = waiting[self._most].u
            waiting = waiting[: self._most]
            self._start_ns = end_ns
        waiting.sort(key=lambda found: (found.ts_ns, found.request_id))
        doubts: list[tuple[Answer, float]] = []
        for at in range(0, len(waiting), BATCH_ANSWERS):
            batch = self._answers(waiting[at : at + BATCH_ANSWERS])
            events = []
            for answer in batch:
                scores = [(scorer, scorer.score(answer)) for scorer in self._scorers]
                events += [score_event(answer, scorer, found, probability=rate) for scorer, found in scores]
                worst = min((found.score for _, found in scores if found.score is not None), default=1.0)
                doubts.append((answer, 1 - worst))
            self._database.append(events)
        if self._judge is not None:
            self._database.append(_judged(self._judge, doubts, self._judged_per_tick, rate))
        self._cursor_ns = max(cursor_ns, end_ns)

    def _answers(self, waiting: list[Pending]) -> list[Answer]:
        """Read the events of some requests and put their answers together."""
        statement = answer_events_statement(
            [found.request_id for found in waiting],
            start_ns=min(found.ts_ns for found in waiting) - SLACK_NS,
            end_ns=max(found.finished_ns for found in waiting) + SLACK_NS,
        )
        return answers_from_events(to_events(self._database.rows(statement)))

    def _keep_floors(self) -> None:
        """Store the floors that were learned just now, so that they outlive this process."""
        watch = self._monitor.watch
        self._database.append(
            Event(
                ts_ns=watch.last_ns or 0,
                event="gauge",
                event_id=f"{FLOOR_GAUGE}:{stratum}",
                attributes={"name": FLOOR_GAUGE, "value": floor, "unit": "score", "stratum": stratum},
            )
            for stratum, floor in watch.learned.items()
            if stratum not in self._kept_floors
        )
        self._kept_floors.update(watch.learned)

    def _report(self, change: Reading) -> None:
        self._database.append([reading_event(change)])
        self._verdict = change.verdict


def _judge(settings: JudgeSettings, clock: Clock) -> Judge:
    key = environment().get(settings.key_env, "") if settings.key_env else ""
    if settings.key_env and not key:
        raise ConfigError(f"the judge's key {settings.key_env} is not set", fix=f"set {settings.key_env}")
    return Judge(settings, clock, key=key)


def _judged(judge: Judge, doubts: Sequence[tuple[Answer, float]], most: int, rate: float) -> list[Event]:
    """Ask the judge about a few answers, those with a low free score more likely, and store what the chance was."""
    answers = {answer.request_id: answer for answer, _ in doubts}
    weights = {answer.request_id: 1 + DOUBT_WEIGHT * doubt for answer, doubt in doubts}
    verdicts = []
    for chosen in priority_sample(weights, most):
        answer = answers[chosen.request_id]
        # both samples rest on the same u, so the chance of passing both is the smaller one, not the product
        probability = min(rate, chosen.probability)
        verdicts.append(score_event(answer, judge, judge.score(answer), probability=probability))
    return verdicts


def score_event(answer: Answer, scorer: Scorer, found: Score, *, probability: float) -> Event:
    """Return the event that carries a score; the same answer and scorer have the same id."""
    attributes = {
        "scorer": scorer.name,
        "scorer_version": scorer.version,
        "status": found.status,
        "label": found.label,
        "explanation": found.explanation,
        "probability": probability,
        "stratum": stratum_name(scorer.name, scorer.version, answer.route, answer.model),
    }
    if found.score is not None:
        attributes["score"] = found.score
    return Event(
        ts_ns=answer.ts_ns,
        event="score",
        event_id=f"score:{answer.request_id}:{scorer.name}:{scorer.version}",
        service=answer.service,
        request_id=answer.request_id,
        tenant=answer.tenant,
        route=answer.route,
        model=answer.model,
        attributes=attributes,
    )
