"""What the API answers, over a store that a worker has filled."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.online_eval.api import endpoints
from opsloop.online_eval.worker import EvalWorker
from opsloop.settings import EvalSettings, Settings

PAGE = "Refunds arrive within five working days after we receive the parcel."
INVENTED = "Dragons guard purple mountains beyond northern rivers."
SETTINGS = Settings(eval=EvalSettings(scorers=("groundedness", "citation"), floor=0.9, scores_per_false_page=1000))


@pytest.fixture
def operations(clickhouse, clock):
    """The two operations over ten good and ten invented answers, scored."""
    events = []
    for number in range(20):
        shared = {"ts_ns": clock.now_ns() + number * 6 * 10**9, "request_id": f"r{number:02}"}
        said = {"input": "When do refunds arrive?", "output": PAGE if number < 10 else f"{PAGE} {INVENTED}"}
        documents = {"documents": [{"id": "d", "content": PAGE}]}
        events.append(Event(event="request", attributes=said, **shared))
        events.append(Event(event="retrieve", attributes=documents, **shared))
    clickhouse.append(events)
    clock.advance(seconds=130)
    EvalWorker(clickhouse, SETTINGS, clock).tick()
    return {operation.path: operation for operation in endpoints(clickhouse, SETTINGS, clock)}


def ask(operations, path, **arguments):
    """Call one operation and return its answer as JSON would carry it."""
    return msgspec.to_builtins(operations[path].handler(arguments, b""))


def test_quality(operations):
    """Means with intervals, what was not scored, the course, the drift since when, the worst, and coverage."""
    told = ask(operations, "/api/quality", **{"from": "3m"})
    by_name = {entry["scorer"]: entry for entry in told["scorers"]}
    found = by_name["groundedness"]["estimate"]
    assert (found["n"], found["n_eff"]) == (20, 20.0)
    assert found["low"] < found["mean"] < found["high"] < 1
    assert by_name["citation"]["unscored"] == 20
    assert by_name["citation"]["estimate"]["mean"] is None
    series = by_name["groundedness"]["series"]
    assert sum(point["n"] for point in series) == 20
    assert [series[0]["mean"], series[-1]["mean"]] == [1.0, pytest.approx(0.5405, abs=1e-4)]
    assert told["coverage"] == {"answered": 20, "sampled": 20, "scored": 20}
    assert {entry["request_id"] for entry in told["worst"]} == {f"r{n}" for n in range(10, 20)}
    assert told["worst"][0]["explanation"] == "share found in the passages: words 0.53, pairs 0.59, best sentence 0.50"


def test_the_drift_state(operations):
    """The reading, E and A, the drift with its onset, and each stratum's evidence now and in the window alone."""
    drift = ask(operations, "/api/quality", **{"from": "3m"})["drift"]
    worst = ask(operations, "/api/quality", **{"from": "3m"})["worst"]
    assert drift["reading"]["verdict"] == "BREACH"
    assert (drift["evidence"], drift["alarm_at"]) == (0.0, 1000.0)
    assert drift["drifts"][0]["onset_ns"] == min(entry["ts_ns"] for entry in worst)
    (stratum,) = drift["strata"]
    assert (stratum["stratum"], stratum["floor"], stratum["drifted"]) == ("groundedness@1", 0.9, True)
    assert stratum["window_n"] == 20
    assert stratum["window_evidence"] > 2000


def test_an_empty_window(operations):
    """A window without a score has no mean, no worst answer and no coverage, and no zero in their place."""
    told = ask(operations, "/api/quality", **{"from": "3h", "to": "2h"})
    assert (told["scorers"], told["worst"]) == ([], [])
    assert told["coverage"] == {"answered": 0, "sampled": 0, "scored": 0}
    assert told["drift"]["strata"][0]["window_evidence"] is None


def test_explain(operations):
    """Every scorer's verdict on one answer, which are stored, and the sentences with their support."""
    told = ask(operations, "/api/quality/explain", request_id="r15")
    assert told["contexts"] == [PAGE]
    verdicts = {entry["scorer"]: entry for entry in told["verdicts"]}
    assert verdicts["groundedness"]["stored"]
    assert verdicts["groundedness"]["probability"] == 1.0
    assert not verdicts["leakage"]["stored"]
    assert verdicts["citation"]["score"] == {"status": "unscored", "explanation": "the answer cites nothing"}
    assert [(part["text"], part["grounded"]) for part in told["sentences"]] == [(PAGE, True), (INVENTED, False)]


def test_explain_shows_the_verdicts_of_others(operations, clickhouse, clock):
    """A judge's or a person's verdict on the answer is shown as it was stored."""
    attributes = {"scorer": "judge", "scorer_version": "x", "status": "scored", "score": 1, "label": "pass"}
    clickhouse.append([Event(ts_ns=clock.now_ns(), event="score", request_id="r15", attributes=attributes)])
    last = ask(operations, "/api/quality/explain", request_id="r15")["verdicts"][-1]
    assert last == {
        "scorer": "judge",
        "version": "x",
        "score": {"status": "scored", "score": 1.0, "label": "pass"},
        "stored": True,
        "probability": None,
    }


def test_explain_needs_a_request(operations):
    """A missing or unknown request id is the caller's fault, and says what to do."""
    with pytest.raises(InputError, match=r"no request_id was given; add \?request_id=REQUEST"):
        ask(operations, "/api/quality/explain")
    with pytest.raises(InputError, match="there is no request 'nope'"):
        ask(operations, "/api/quality/explain", request_id="nope")
