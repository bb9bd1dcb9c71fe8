"""The worker over a real store: what it scores, what it writes, what it says, and what survives a restart."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.clock import ManualClock
from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.filter import equals
from opsloop.online_eval import sample_key
from opsloop.online_eval.judge import Judge, Reply
from opsloop.online_eval.worker import EvalWorker
from opsloop.settings import EvalSettings, JudgeSettings, Settings
from opsloop.verdict import Verdict, reading_from_event

SECOND = 10**9
PAGE = "Refunds arrive within five working days after we receive the parcel."
INVENTED = "Dragons guard purple mountains beyond northern rivers."


def request(number, text, ts_ns, **fields):
    """Build the two events of one request."""
    shared = {"ts_ns": ts_ns, "request_id": f"r{number:04}"}
    said = {"input": "When do refunds arrive?", "output": text}
    return [
        Event(
            event="request", route="/chat", model="m", attributes=said, **{"duration_us": 500_000, **shared, **fields}
        ),
        Event(event="retrieve", attributes={"documents": [{"id": "d", "content": PAGE}]}, **shared),
    ]


def configured(**changes):
    """Return settings with groundedness alone, floor .9 and A = 1,000."""
    base = {"scorers": ("groundedness",), "floor": 0.9, "scores_per_false_page": 1000}
    return Settings(eval=EvalSettings(**base | changes))


def serve(database, clock, texts, *, start=0):
    """Write one request a second, the last of them finished and settled at the clock's new time."""
    now_ns = clock.now_ns()
    database.append(e for n, text in enumerate(texts) for e in request(start + n, text, now_ns + n * SECOND))
    clock.advance(seconds=len(texts) + 15)


def scores(database):
    """Return the stored scores as {request id: score}."""
    return {event.request_id: event.attributes.get("score") for event in database.query(equals(event="score"))}


def drift_events(database):
    """Return the verdicts that were written, in order."""
    return [reading_from_event(event).verdict for event in database.query(equals(event="breach"))]


def test_a_score_event(clickhouse, clock):
    """Every attribute of the contract is there, and the same answer is never scored twice."""
    serve(clickhouse, clock, [PAGE])
    worker = EvalWorker(clickhouse, configured(), clock)
    worker.tick()
    worker.tick()
    (event,) = clickhouse.query(equals(event="score"))
    assert event == Event(
        ts_ns=event.ts_ns,
        event="score",
        event_id="score:r0000:groundedness:1",
        request_id="r0000",
        route="/chat",
        model="m",
        attributes={
            "scorer": "groundedness",
            "scorer_version": "1",
            "status": "scored",
            "score": 1.0,
            "label": "grounded",
            "explanation": "share found in the passages: words 1.00, pairs 1.00, best sentence 1.00",
            "probability": 1.0,
            "stratum": "groundedness@1 /chat m",
        },
    )


def test_drift_and_recovery_are_told_once_each(clickhouse, clock):
    """OK with the first score, BREACH when answers are invented, OK again when they are not; nothing in between."""
    worker = EvalWorker(clickhouse, configured(), clock)
    assert worker.tick()[0].verdict is Verdict.NO_DATA
    assert drift_events(clickhouse) == []
    serve(clickhouse, clock, [PAGE] * 5)
    assert worker.tick()[0].verdict is Verdict.OK
    bad_from_ns = clock.now_ns()
    serve(clickhouse, clock, [INVENTED] * 6, start=5)
    (reading,) = worker.tick()
    assert (reading.verdict, reading.window_start_ns) == (Verdict.BREACH, bad_from_ns - 1)
    assert reading.value < 0.2
    serve(clickhouse, clock, [PAGE] * 200, start=11)
    assert worker.tick()[0].verdict is Verdict.OK
    assert drift_events(clickhouse) == [Verdict.OK, Verdict.BREACH, Verdict.OK]
    clock.advance(seconds=3700)
    assert worker.tick()[0].verdict is Verdict.NO_DATA
    assert drift_events(clickhouse)[-1] is Verdict.NO_DATA


def test_a_restart_changes_nothing(clickhouse, clock):
    """A new worker over the same stream says the same, writes nothing, and goes on where the old one was."""
    serve(clickhouse, clock, [PAGE] * 5 + [INVENTED] * 8)
    before = EvalWorker(clickhouse, configured(), clock).tick()
    stored = clickhouse.query()
    after = EvalWorker(clickhouse, configured(), clock)
    assert after.tick() == before
    assert clickhouse.query() == stored
    serve(clickhouse, clock, [PAGE], start=13)
    after.tick()
    assert scores(clickhouse)["r0013"] == 1.0


def test_an_answer_settles_and_may_be_late(clickhouse, clock):
    """A request that ended a moment ago waits; one that arrives five minutes late is scored; a day late it is not."""
    worker = EvalWorker(clickhouse, configured(), clock)
    clickhouse.append(request(1, PAGE, clock.now_ns()))
    clock.advance(seconds=5)
    worker.tick()
    assert scores(clickhouse) == {}
    clock.advance(seconds=10)
    worker.tick()
    assert list(scores(clickhouse)) == ["r0001"]
    clickhouse.append(request(2, PAGE, clock.now_ns() - 300 * SECOND))
    clickhouse.append(request(3, PAGE, clock.now_ns() - 86_400 * SECOND))
    worker.tick()
    assert list(scores(clickhouse)) == ["r0002", "r0001"]


def test_failures_have_no_answer_to_score(clickhouse, clock):
    """Errors and rejections are passed over; an answer that was not recorded is a row without a score."""
    now_ns = clock.now_ns()
    clickhouse.append(request(1, "x", now_ns, error=True) + request(2, "x", now_ns, status_code=429))
    clickhouse.append([Event(ts_ns=now_ns, event="request", request_id="r0003")])
    clock.advance(seconds=15)
    assert EvalWorker(clickhouse, configured(), clock).tick()[0].verdict is Verdict.NO_DATA
    assert scores(clickhouse) == {"r0003": None}


def test_a_long_history_is_sampled_at_once(clickhouse, clock):
    """Of 300 waiting answers over three days one tick scores 40, those of smallest key, with the right chance."""
    start_ns = clock.now_ns() - 3 * 86_400 * SECOND
    clickhouse.append(e for n in range(300) for e in request(n, PAGE, start_ns + n * 800 * SECOND))
    worker = EvalWorker(clickhouse, configured(), clock, answers_per_tick=40)
    worker.tick()
    ranked = sorted((f"r{n:04}" for n in range(300)), key=sample_key)
    stored = clickhouse.query(equals(event="score"))
    assert {event.request_id for event in stored} == set(ranked[:40])
    assert {event.attributes["probability"] for event in stored} == {sample_key(ranked[40])}
    worker.tick()
    assert len(scores(clickhouse)) == 40
    serve(clickhouse, clock, [PAGE], start=300)
    worker.tick()
    assert len(scores(clickhouse)) == 41


def test_the_rate_decides_who_is_scored(clickhouse, clock):
    """At a rate of .3 exactly the requests whose key is below .3 are scored, each with probability .3."""
    serve(clickhouse, clock, [PAGE] * 40)
    EvalWorker(clickhouse, configured(sample_rate=0.3), clock).tick()
    assert set(scores(clickhouse)) == {f"r{n:04}" for n in range(40) if sample_key(f"r{n:04}") < 0.3}


def test_scores_of_others_count(clickhouse, clock):
    """A score that another program wrote under a watched scorer's name reaches the detector."""
    worker = EvalWorker(clickhouse, configured(scorers=("groundedness", "refusal")), clock)
    serve(clickhouse, clock, [PAGE] * 3)
    worker.tick()
    attributes = {"scorer": "refusal", "scorer_version": "human", "status": "scored", "score": 0.0}
    clickhouse.append(
        Event(ts_ns=clock.now_ns() + n, event="score", request_id=f"h{n}", attributes=attributes) for n in range(12)
    )
    (reading,) = worker.tick()
    assert reading.verdict is Verdict.BREACH
    assert reading.reason.startswith("refusal@human below its floor 0.9")


def test_a_learned_floor_outlives_the_process(clickhouse, clock):
    """What 200 answers taught is stored once and read again, so a slow decline is not learned as normal."""
    wanted = configured(baseline="learned")
    serve(clickhouse, clock, ["Refunds arrive within five golden days."] * 210)
    assert EvalWorker(clickhouse, wanted, clock).tick()[0].verdict is Verdict.OK
    (gauge,) = clickhouse.query(equals(event="gauge"))
    assert gauge.attributes["stratum"] == "groundedness@1 /chat m"
    clickhouse.append(request(999, INVENTED, clock.now_ns() - 20 * SECOND))
    again = EvalWorker(clickhouse, wanted, clock)
    again.tick()
    assert again._monitor.watch.learned == {"groundedness@1 /chat m": gauge.attributes["value"]}
    assert clickhouse.query(equals(event="gauge")) == [gauge]


class Passing:
    """A transport whose judge passes everything."""

    def post(self, url, headers, body):
        """Return a passing verdict."""
        content = '{"reason": "fine", "verdict": "pass"}'
        return Reply(200, {}, msgspec.json.encode({"choices": [{"message": {"content": content}}]}))


def test_the_judge_looks_at_a_few_doubtful_answers(clickhouse, clock):
    """Of 20 answers at most 4 are judged, doubtful ones among them, and each verdict carries its chance."""
    judging = JudgeSettings(url="http://judge.example/v1", model="m", answers_per_tick=4)
    wanted = configured(judge=judging)
    judge = Judge(judging, clock, transport=Passing())
    serve(clickhouse, clock, [PAGE] * 15 + [INVENTED] * 5)
    EvalWorker(clickhouse, wanted, clock, judge=judge).tick()
    verdicts = clickhouse.query(equals(event="score", scorer="judge"))
    assert len(verdicts) == 4
    assert all(0 < event.attributes["probability"] <= 1 for event in verdicts)
    assert any(event.request_id >= "r0015" for event in verdicts)


def test_settings_are_checked_at_start(clickhouse):
    """An unknown scorer and a judge's key that is not set are refused before anything runs."""
    with pytest.raises(ConfigError, match="there is no scorer 'groundednes'; did you mean 'groundedness'"):
        EvalWorker(clickhouse, configured(scorers=("groundednes",)), ManualClock(0))
    judging = JudgeSettings(url="http://judge.example", model="m", key_env="OPSLOOP_TEST_NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="the judge's key OPSLOOP_TEST_NO_SUCH_KEY is not set"):
        EvalWorker(clickhouse, configured(judge=judging), ManualClock(0))
