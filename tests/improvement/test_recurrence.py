"""Recurrence: what is a repeat, what is late, what is only suspected, and that nothing is opened twice."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS
from opsloop.errors import InputError, NotFoundError
from opsloop.event import Event
from opsloop.improvement import advance, decode_guard, match_problem, observe, problem_event, rebuild
from opsloop.improvement.evidence import Evidence, Example, Sighting
from opsloop.improvement.fingerprint import Signature, fingerprint
from opsloop.improvement.history import History
from opsloop.improvement.incident import INCIDENT_TRANSITIONS, OVER, STATUSES

T0 = 1_767_603_600_000_000_000
COUNTER = itertools.count()


def at(minutes):
    """Return the moment so many minutes into the story."""
    return T0 + round(minutes * 60 * NANOSECONDS)


def seen(minutes, *, release="r1", message="timed out after 30ms", stage="retrieve", page="", examples=(), **kind):
    """Build evidence of a failure that was last seen at a moment."""
    signature = Signature(service="support", stage=stage, message=message, **kind)
    return Evidence(
        alert="unhealthy||e1",
        page=page or f"alert-{next(COUNTER)}",
        title="it broke",
        severity=2,
        signature=signature,
        fingerprint=fingerprint(signature),
        started_ns=at(minutes - 1),
        ended_ns=at(minutes),
        failing=3,
        sightings=(Sighting(release=release, n=3, first_ns=at(minutes - 1), last_ns=at(minutes)),),
        others={},
        examples=examples,
    )


def deploy(minutes, release):
    """Build a deploy event."""
    return Event(ts_ns=at(minutes), event="deploy", service="support", release=release)


def fixed():
    """Return a history: broken in r1 at minute 10, resolved at 20, fix r2 deployed at 30."""
    history = rebuild([deploy(0, "r1"), deploy(30, "r2")])
    history, opened = observe(history, seen(10), now_ns=at(11))
    name = opened[0].attributes["incident_id"]
    history, _ = advance(history, name, "resolved", now_ns=at(20), by="ana", fix_release="r2")
    return history


def outcome(history, evidence, minutes=100, **options):
    """Observe evidence; return (relation, matched_by, status, episode_no) of what was written."""
    after, events = observe(history, evidence, now_ns=at(minutes), **options)
    del after
    said = events[0].attributes
    return said["relation"], said["matched_by"], said["status"], said["episode_no"]


def test_the_first_time_is_new():
    """An unknown fingerprint opens a problem and its first incident, with ids that follow from them."""
    history, events = observe(History(), seen(10), now_ns=at(11))
    (incident,) = history.incidents.values()
    (problem,) = history.problems.values()
    assert (incident.relation, incident.status, incident.episode_no) == ("new", "active", 1)
    assert problem.id == f"P-{incident.fingerprint[4:12]}"
    assert problem.state == "open"
    assert observe(History(), seen(10, page="x"), now_ns=at(11))[1][0].event_id == events[0].event_id


def test_a_page_is_handled_once():
    """The same page again writes nothing; another page while it runs joins and opens nothing."""
    history, _ = observe(History(), seen(10, page="p1"), now_ns=at(11))
    assert observe(history, seen(10, page="p1"), now_ns=at(12)) == (history, ())
    joined, events = observe(history, seen(12, page="p2"), now_ns=at(13))
    assert len(joined.incidents) == 1
    assert next(iter(joined.incidents.values())).pages == ("p1", "p2")
    assert events[0].attributes["relation"] == "duplicate"


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (seen(40, release="r2"), ("repeat", "fingerprint", "active", 2)),
        (seen(40, release="r2", message="timed out after 99ms"), ("repeat", "fingerprint", "active", 2)),
        (seen(25, release="r2"), ("duplicate", "fingerprint", "resolved", 1)),
        (seen(40, release="r1"), ("duplicate", "fingerprint", "resolved", 1)),
        (seen(40, release=""), ("suspected_repeat", "fingerprint", "triage", 2)),
        (seen(40, release="r9"), ("suspected_repeat", "fingerprint", "triage", 2)),
        (seen(40, release="r2", message="another thing"), ("new", "", "active", 1)),
        (seen(40, release="r2", stage="tool:orders"), ("new", "", "active", 1)),
    ],
    ids=["repeat", "other-number", "before-the-fix", "old-release", "no-release", "unknown-release", "other", "stage"],
)
def test_release_and_time_decide(evidence, expected):
    """After the fix in its release it is a repeat; late events of the old release are not; unknown is suspected."""
    assert outcome(fixed(), evidence) == expected


def test_a_later_release_is_not_older_whatever_its_name():
    """The order is that of deployment: r0, deployed after the fix, brings the failure back."""
    assert outcome(fixed().after([deploy(50, "r0")]), seen(60, release="r0"))[0] == "repeat"


def test_a_rollback_that_undoes_the_fix_is_a_repeat():
    """r1 deployed again after the fix is newer than the fix: what it brings back came back."""
    assert outcome(fixed().after([deploy(50, "r1")]), seen(60, release="r1"))[0] == "repeat"


def test_a_fix_that_was_never_deployed_proves_nothing():
    """While the fix's release has not been deployed a new page is visible and suspected."""
    history = rebuild([event for event in fixed().events if event.release != "r2"])
    assert outcome(history, seen(40, release="r1"))[:3] == ("suspected_repeat", "fingerprint", "triage")


def test_without_a_named_fix_time_alone_decides():
    """When nobody named a release, what is seen after the incident was over is a repeat."""
    history, opened = observe(History(), seen(10), now_ns=at(11))
    history, _ = advance(history, opened[0].attributes["incident_id"], "resolved", now_ns=at(20))
    assert outcome(history, seen(21))[0] == "repeat"
    assert outcome(history, seen(19))[0] == "duplicate"


def test_a_fix_can_be_named_after_the_resolve():
    """The worker resolves by itself; a person names the release later, and from then on it decides."""
    history, opened = observe(rebuild([deploy(0, "r1"), deploy(30, "r2")]), seen(10), now_ns=at(11))
    name = opened[0].attributes["incident_id"]
    history, _ = advance(history, name, "resolved", now_ns=at(20))
    assert outcome(history, seen(25))[0] == "repeat"
    history, _ = advance(history, name, "resolved", now_ns=at(22), fix_release="r2")
    assert history.incidents[name].resolved_ns == at(20)
    assert outcome(history, seen(25))[0] == "duplicate"


def test_a_cancelled_incident_was_none():
    """After a false alarm the real failure is new, not a repeat."""
    history, opened = observe(History(), seen(10), now_ns=at(11))
    history, _ = advance(history, opened[0].attributes["incident_id"], "cancelled", now_ns=at(12))
    assert outcome(history, seen(20)) == ("new", "fingerprint", "active", 2)


def test_a_merge_steers_what_comes_and_can_be_taken_back():
    """After a merge the fingerprint belongs to the other problem by alias; undone, it is its own again."""
    history = fixed()
    history, events = observe(history, seen(35, message="another thing"), now_ns=at(36))
    other = events[0].attributes
    history, _ = advance(history, other["incident_id"], "resolved", now_ns=at(37))
    first = next(name for name in history.problems if name != other["problem_id"])
    merged = history.after([problem_event(other["problem_id"], ts_ns=at(38), by="ana", merged_into=first)])
    assert match_problem(merged, seen(40, message="another thing")).by == "alias"
    assert outcome(merged, seen(40, release="r2", message="another thing")) == ("repeat", "alias", "active", 3)
    undone = merged.after([problem_event(other["problem_id"], ts_ns=at(39), by="ana", merged_into="")])
    assert match_problem(undone, seen(40, message="another thing")).problem_id == other["problem_id"]


GUARD = """\
schema: guard/v1
id: G-1
problem: {problem}
input: {{vars: {{question: refund}}}}
case:
  assert: [{{type: contains, value: 30 days}}]
invariant:
  applies_to: {{route: /chat}}
  assert: [{{type: not-contains, value: ombudsman}}]
"""


@pytest.mark.parametrize(
    ("example", "by"),
    [
        (Example(request_id="1", input="refund", output="no refund"), "guard"),
        (Example(request_id="1", input={"question": "refund"}, output="no refund"), "guard"),
        (Example(request_id="1", input="refund", output="within 30 days"), ""),
        (Example(request_id="1", input="else", output="ask the ombudsman", route="/chat"), "guard"),
        (Example(request_id="1", input="else", output="ask the ombudsman", route="/other"), ""),
        (Example(request_id="1", input="refund"), ""),
    ],
)
def test_a_guard_recognises_its_failure_in_other_words(example, by):
    """Its case where the input matches, else its invariant: the failure of the proof is the problem come back."""
    history = fixed()
    (problem,) = history.problems
    guard = decode_guard(GUARD.format(problem=problem))
    evidence = seen(40, release="r2", message="worded otherwise entirely", stage="generate", examples=(example,))
    match = match_problem(history, evidence, guards=[guard])
    assert match.by == by
    if by:
        assert outcome(history, evidence, guards=[guard]) == ("repeat", "guard", "active", 2)


def test_likeness_only_suggests():
    """A message of nearly the same words opens a problem of its own that points at the other, and merges nothing."""
    history = fixed()
    (problem,) = history.problems
    after, _ = observe(history, seen(40, message="timed out again after 30ms"), now_ns=at(41))
    incident = next(i for i in after.incidents.values() if i.suspects)
    assert (incident.relation, incident.status, incident.suspects) == ("suspected_repeat", "triage", problem)
    assert incident.problem_id != problem


@given(st.lists(st.sampled_from(STATUSES), max_size=6))
def test_an_incident_never_goes_back(steps):
    """Whatever is asked of it, an incident only moves forward along its table, and what is over stays over."""
    history, opened = observe(History(), seen(10), now_ns=at(11))
    name = opened[0].attributes["incident_id"]
    for number, step in enumerate(steps):
        before = history.incidents[name].status
        if step == before:
            assert advance(history, name, step, now_ns=at(12 + number))[1] == ()
        elif step in INCIDENT_TRANSITIONS[before]:
            history, _ = advance(history, name, step, now_ns=at(12 + number))
            assert history.incidents[name].status == step
        else:
            with pytest.raises(InputError, match=f"is {before} and cannot be {step}"):
                advance(history, name, step, now_ns=at(12 + number))
    if history.incidents[name].status in OVER:
        assert history.incidents[name].ended_ns is not None


def test_an_unknown_incident_is_named():
    """A step of an incident that does not exist is refused."""
    with pytest.raises(NotFoundError, match="INC-nothing"):
        advance(History(), "INC-nothing", "resolved", now_ns=0)


actions = st.lists(
    st.tuples(
        st.sampled_from(["page", "page", "resolve", "deploy", "acknowledge"]),
        st.integers(0, 2),
        st.sampled_from(["r1", "r2", ""]),
    ),
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(actions, st.randoms(use_true_random=False))
def test_any_order_of_arrival_tells_the_same_story(actions, random):
    """The events of any story, shuffled and doubled, fold into the same history; a problem has one open incident."""
    history = rebuild([deploy(0, "r1")])
    for number, (action, which, release) in enumerate(actions):
        now = at(10 + number * 10)
        open_ones = [incident.id for incident in history.incidents.values() if not incident.over]
        if action == "page":
            history, _ = observe(history, seen(10 + number * 10, message="abc"[which] * 3, release=release), now_ns=now)
        elif action == "deploy":
            history = history.after([deploy(10 + number * 10, release or "r3")])
        elif open_ones:
            status = "resolved" if action == "resolve" else "acknowledged"
            history, _ = advance(history, open_ones[which % len(open_ones)], status, now_ns=now, fix_release=release)
        for problem in history.problems:
            assert sum(not incident.over for incident in history.incidents_of(problem)) <= 1
    events = [*history.events, *history.events]
    random.shuffle(events)
    assert rebuild(events) == history
    assert msgspec.json.encode(rebuild(events)) == msgspec.json.encode(history)
