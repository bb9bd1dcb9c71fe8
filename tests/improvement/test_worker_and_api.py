"""From page to flywheel over the real store: the worker opens and resolves, the endpoints show and move."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from opsloop.errors import InputError, NotFoundError, PayloadError
from opsloop.event import Event
from opsloop.filter import equals
from opsloop.improvement.api import endpoints
from opsloop.improvement.worker import IncidentWorker
from opsloop.settings import GuardSettings, Settings
from tests.improvement.test_evidence import SECOND, STORY, T0, alert, vote

ROOT = Path(__file__).parents[2]


def page(seconds, state="firing", *, episode="e1", severity="page", **changes):
    """Build a transition of an alert."""
    fired = alert(vote("errors"), severity=severity)
    attributes = fired.attributes | {"phase": "transition", "state": state, "episode": episode}
    name = f"alert:{episode}:{seconds}:{state}"
    return fired.replace(ts_ns=T0 + seconds * SECOND, event_id=name, attributes=attributes, **changes)


@pytest.fixture
def desk(clickhouse, clock, tmp_path):
    """A store with a failing service, a worker over it, and its endpoints by (method, path)."""
    clock.set_time(T0 + 400 * SECOND)
    clickhouse.append(STORY)
    settings = Settings(guards=GuardSettings(folder=str(tmp_path / "guards")))
    found = {(e.method, e.path): e for e in endpoints(clickhouse, settings, clock)}
    return clickhouse, IncidentWorker(clickhouse, settings, clock), found, tmp_path / "guards"


def ask(found, path, body=None, method="GET", **arguments):
    """Call an endpoint and return its answer as JSON values, as a client sees it."""
    raw = b"" if body is None else msgspec.json.encode(body)
    return msgspec.json.decode(msgspec.json.encode(found[(method, path)].handler(arguments, raw)))


def test_a_page_opens_one_incident_and_its_end_resolves_it(desk):
    """Whatever the number of turns and replicas: one incident, opened at the page's time, resolved at its end."""
    store, worker, found, _ = desk
    store.append([page(300), page(301, severity="ticket", episode="t"), page(299, "pending", episode="p")])
    written = worker.tick()
    assert [(e.attributes["status"], e.ts_ns - T0) for e in written] == [("active", 300 * SECOND)]
    assert worker.tick() == []
    (listed,) = ask(found, "/api/incidents")
    assert (listed["status"], listed["relation"], listed["severity"]) == ("active", "new", 2)
    assert listed["title"] == "retrieve: TimeoutError, timed out after <id>"
    store.append([page(390, "resolved")])
    assert [e.attributes["status"] for e in worker.tick()] == ["resolved"]
    assert worker.tick() == []
    assert ask(found, "/api/incidents")[0]["resolved_ns"] == T0 + 390 * SECOND


def test_two_pages_of_one_problem_are_one_incident(desk):
    """The second joins, and the incident is over only when both alerts are."""
    store, worker, found, _ = desk
    store.append([page(300), page(310, episode="e2"), page(320, "resolved")])
    assert [e.attributes["relation"] for e in worker.tick()] == ["new", "duplicate"]
    assert (ask(found, "/api/incidents")[0]["pages"], ask(found, "/api/incidents")[0]["status"]) == (2, "active")
    store.append([page(330, "resolved", episode="e2")])
    assert [e.attributes["status"] for e in worker.tick()] == ["resolved"]


def test_a_late_worker_writes_what_a_punctual_one_wrote(desk, clock):
    """After an outage the pages are taken in the order of time; a reopened alert is a new episode and stays open."""
    store, worker, found, _ = desk
    again = [event.replace(ts_ns=event.ts_ns + 400 * SECOND, event_id="") for event in STORY[:4]]
    store.append([*again, page(300), page(350, "resolved")])
    reopened = page(700)
    votes = [vote("errors", start=400, end=700)]
    store.append([reopened.replace(attributes=reopened.attributes | {"votes": votes})])
    clock.set_time(T0 + 800 * SECOND)
    assert [(e.attributes["relation"], e.attributes["status"]) for e in worker.tick()] == [
        ("new", "active"),
        ("new", "resolved"),
        ("repeat", "active"),
    ]
    assert worker.tick() == []
    assert [item["status"] for item in ask(found, "/api/incidents")] == ["active", "resolved"]


def test_the_life_of_an_incident_over_the_api(desk):
    """Acknowledge, resolve with the fix, read the timeline and the post-mortem: each step once, by whom it was."""
    store, worker, found, _ = desk
    store.append([page(300)])
    name = worker.tick()[0].attributes["incident_id"]
    path = "/api/incidents/{incident_id}"
    said = ask(found, f"{path}/acknowledge", {"by": "ana"}, "POST", incident_id=name)
    assert said["status"] == "acknowledged"
    assert ask(found, f"{path}/acknowledge", None, "POST", incident_id=name)["status"] == "acknowledged"
    fix = {"by": "ana", "note": "rolled forward", "fix_release": "r2"}
    assert ask(found, f"{path}/resolve", fix, "POST", incident_id=name)["status"] == "resolved"
    detail = ask(found, path, incident_id=name)
    assert [entry["status"] for entry in detail["incident"]["timeline"]] == ["active", "acknowledged", "resolved"]
    assert detail["problem"]["state"] == "fixed"
    assert detail["incident"]["evidence"]["examples"][0]["request_id"] == "req-1"
    text = ask(found, f"{path}/postmortem", incident_id=name)["markdown"]
    for expected in ("by ana: rolled forward", "Fixed in release r2.", "4 requests failed", "- [ ] Add a guard"):
        assert expected in text
    assert len(store.query(equals(event="incident"))) == 3
    with pytest.raises(InputError, match="is resolved and cannot be acknowledged"):
        ask(found, f"{path}/acknowledge", {}, "POST", incident_id=name)


def test_problems_are_merged_by_people(desk):
    """A merge is recorded with who did it, and only between problems that exist."""
    store, worker, found, _ = desk
    tool = [event.replace(release="r3", event_id="") for event in STORY if event.event == "tool"]
    other = page(310, episode="e2")
    store.append([page(300), *[event.replace(ts_ns=T0 + 305 * SECOND) for event in tool]])
    store.append([other.replace(attributes=other.attributes | {"votes": [vote("errors", start=304, end=306)]})])
    worker.tick()
    first, second = (problem["id"] for problem in ask(found, "/api/problems"))
    path = "/api/problems/{problem_id}/decide"
    assert ask(found, path, {"by": "ana", "merged_into": first}, "POST", problem_id=second)["merged_into"] == first
    assert (
        len(ask(found, "/api/incidents/{incident_id}", incident_id=ask(found, "/api/incidents")[0]["id"])["episodes"])
        == 2
    )
    with pytest.raises(NotFoundError, match="P-none"):
        ask(found, path, {"merged_into": "P-none"}, "POST", problem_id=first)


def test_guards_are_recorded_and_shown(desk):
    """The worker writes each guard's states once; a file that cannot be read is shown and retires nothing."""
    _, worker, found, folder = desk
    source = ROOT / "guards" / "prompt-leak" / "G-prompt-leak.guard.yaml"
    folder.mkdir()
    (folder / source.name).write_text(source.read_text())
    assert [e.attributes["state"] for e in worker.tick()] == ["proposed", "proved", "active"]
    assert worker.tick() == []
    (folder / "broken.guard.yaml").write_text("id: [")
    (folder / source.name).unlink()
    assert worker.tick() == []
    (shown,) = ask(found, "/api/guards")
    assert "broken.guard.yaml:1: not YAML" in shown["reason"]
    (folder / "broken.guard.yaml").unlink()
    assert [e.attributes["state"] for e in worker.tick()] == ["retired"]


def test_the_flywheel_counts_what_is_stored(desk):
    """The endpoint's report rests on the store's own traffic and incidents."""
    store, worker, found, _ = desk
    store.append([page(300), Event(ts_ns=T0 + 1, event="deploy", release="r1")])
    worker.tick()
    report = ask(found, "/api/flywheel", weeks="2")
    this = report["weeks"][-1]
    requests = sum(event.event == "request" for event in STORY)
    assert (this["week"], this["new"], this["requests"], this["deploys"]) == ("2026-W02", 1, requests, 1)
    for weeks in ("0", "two", "9999"):
        with pytest.raises(InputError, match="weeks"):
            ask(found, "/api/flywheel", weeks=weeks)


def test_wrong_questions_are_answered_with_what_is_wrong(desk):
    """An unknown incident is not found, a body that is no step is refused."""
    _, _, found, _ = desk
    with pytest.raises(NotFoundError, match="INC-none"):
        ask(found, "/api/incidents/{incident_id}", incident_id="INC-none")
    with pytest.raises(PayloadError, match="unknown field"):
        ask(found, "/api/incidents/{incident_id}/resolve", {"fix": "r2"}, "POST", incident_id="INC-none")


def test_who_may_do_what(desk):
    """Reading needs the read scope; every step of a person needs admin."""
    _, _, found, _ = desk
    assert {method: {e.scope for (m, _), e in found.items() if m == method} for method in ("GET", "POST")} == {
        "GET": {"read"},
        "POST": {"admin"},
    }
