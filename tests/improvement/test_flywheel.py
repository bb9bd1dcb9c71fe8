"""The flywheel: each condition of a prevention, each column of a week, and the same report in any order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS, parse_time
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.improvement import find_preventions, flywheel, guard_event, rebuild, weekly_requests
from opsloop.improvement.flywheel import week_index, week_name
from opsloop.improvement.gate import landed_event
from opsloop.improvement.rate import durations, exact_interval, rate
from opsloop.improvement.sql import weekly_requests_from_rows, weekly_requests_statement

MONDAY = parse_time("2026-01-05T00:00:00Z")
HOUR = 3600 * NANOSECONDS
DAY = 24 * HOUR
FINGERPRINT = "fp1:0000000000000001"


def incident(hours, *, name="INC-1", status="active", relation="new", episode=1, problem="P-1", release="r1"):
    """Build one event of an incident."""
    return Event(
        ts_ns=MONDAY + hours * HOUR,
        event="incident",
        event_id=f"incident:{name}:{status}",
        release=release,
        attributes={
            "incident_id": name,
            "problem_id": problem,
            "episode_no": episode,
            "status": status,
            "relation": relation,
            "matched_by": "",
            "fingerprint": FINGERPRINT,
            "severity": 2,
            "title": "it broke",
            "evidence": {"started_ns": MONDAY + hours * HOUR - 60 * NANOSECONDS},
        },
    )


def guarded(hours=1, *states):
    """Build the events of a guard's life, an hour apart."""
    return [
        guard_event("G-1", "P-1", state, ts_ns=MONDAY + (hours + n) * HOUR, step=n)
        for n, state in enumerate(states or ("proposed", "proved", "active"))
    ]


def result(hours, verdict="fail", *, baseline="pass", change="pr-1", mode="frozen", own=True, guard="G-1"):
    """Build one gate result."""
    return Event(
        ts_ns=MONDAY + hours * HOUR,
        event="gate",
        attributes={
            "phase": "result",
            "change_id": change,
            "guard_id": guard,
            "problem_id": "P-1",
            "mode": mode,
            "verdict": verdict,
            "baseline_verdict": baseline if verdict == "fail" else "",
            "fingerprint": FINGERPRINT if own else "fp1:ffffffffffffffff",
            "matches_proof": False,
        },
    )


def deploy(hours, release="r2", change=""):
    """Build a deploy, of a change or of none."""
    attributes = {"change_id": change} if change else {}
    return Event(ts_ns=MONDAY + hours * HOUR, event="deploy", release=release, attributes=attributes)


BASE = [incident(0), incident(1, status="resolved"), *guarded()]


@pytest.mark.parametrize(
    ("events", "days", "expected"),
    [
        ([result(10), result(11, "pass"), deploy(12, change="pr-1")], 1, ("prevented", "settled")),
        ([result(10), result(11, "pass"), landed_event("pr-1", ts_ns=MONDAY + 12 * HOUR)], 1, ("prevented", "settled")),
        (
            [result(10, mode="live"), result(11), result(12, "pass"), deploy(13, change="pr-1")],
            1,
            ("prevented", "settled"),
        ),
        ([result(10)], 1, ("prevented", "pending")),
        ([result(10), deploy(12, change="pr-2")], 1, ("prevented", "pending")),
        ([result(10)], 15, ("prevented", "settled")),
        ([result(10), deploy(12, change="pr-1")], 1, ("overridden", "settled")),
        ([result(10), deploy(11, change="pr-1"), result(12, "pass")], 1, ("overridden", "settled")),
        ([result(10), result(11, "inconclusive"), deploy(12, change="pr-1")], 1, ("overridden", "settled")),
        ([result(10, baseline="fail")], 1, ("preexisting", "settled")),
        ([result(10, baseline="")], 1, ("preexisting", "settled")),
        ([result(10, own=False)], 1, ("caught_other", "settled")),
        (
            [result(10, own=False), result(11), result(12, "pass"), deploy(13, change="pr-1")],
            1,
            ("prevented", "settled"),
        ),
        ([result(10, "error")], 1, None),
        ([result(10, "inconclusive")], 1, None),
        ([result(10, "skipped")], 1, None),
        ([result(10, mode="selftest")], 1, None),
        ([result(10, change="")], 1, None),
        ([result(2)], 1, None),
        ([result(10, guard="G-unknown")], 1, None),
    ],
)
def test_the_conditions_of_a_prevention(events, days, expected):
    """Each condition alone decides: confirmed, fresh, its own, not deployed failing, once."""
    found = find_preventions(rebuild([*BASE, *events]), now_ns=MONDAY + days * DAY)
    assert [(item.outcome, item.state) for item in found] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    "life",
    [("proposed",), ("proposed", "proved"), ("proposed", "active"), ("proposed", "proved", "active", "quarantined")],
)
def test_only_an_active_guard_prevents(life):
    """A guard that was never proved, not activated or is quarantined prevents nothing."""
    events = [incident(0), *guarded(1, *life), result(10)]
    assert find_preventions(rebuild(events), now_ns=MONDAY + DAY) == ()


def test_a_guard_without_an_earlier_incident_prevents_nothing():
    """The incident has to come before the change; a guard made without one is no flywheel."""
    late = incident(20)
    assert find_preventions(rebuild([late, *guarded(), result(10)]), now_ns=MONDAY + DAY) == ()


def test_the_columns_of_a_week():
    """Repeats split by whether an active guard existed when their release shipped; cancelled ones are none."""
    events = [
        *BASE,
        deploy(24, "r2"),
        incident(30, name="INC-2", relation="repeat", episode=2, release="r2"),
        incident(31, name="INC-3", relation="repeat", episode=3, release="r0"),
        deploy(0, "r0"),
        incident(32, name="INC-4", relation="suspected_repeat", status="triage", episode=4),
        incident(33, name="INC-5", problem="P-5"),
        incident(34, name="INC-5", problem="P-5", status="cancelled"),
    ]
    blocks = [
        Event(ts_ns=MONDAY + 40 * HOUR + m * 60 * NANOSECONDS, event="guardrail", attributes={"name": n, "action": a})
        for m, n, a in [(0, "G-1", "block"), (30, "G-1", "block"), (89, "G-1", "block"), (150, "G-1", "block")]
    ]
    others = [
        Event(ts_ns=MONDAY + 50 * HOUR, event="guardrail", attributes={"name": "G-1", "action": "allow"}),
        Event(ts_ns=MONDAY + 51 * HOUR, event="guardrail", attributes={"name": "else", "action": "block"}),
    ]
    report = flywheel([*events, *blocks, *others], now_ns=MONDAY + 3 * DAY, weeks=1, requests={week_index(MONDAY): 7})
    (week,) = report.weeks
    assert week.rows == {
        "new": ("INC-1",),
        "repeats_guarded": ("INC-2",),
        "repeats_unguarded": ("INC-3",),
        "suspected": ("INC-4",),
        "contained": ("P-1", "P-1"),
        "guards_active": ("G-1",),
        "deploys": ("r0", "r2"),
    }
    assert (week.week, week.requests, week.contained, week.deploys) == ("2026-W02", 7, 2, 2)
    totals = report.totals
    assert (totals.repeat_rate.k, totals.repeat_rate.n) == (2, 4)
    assert (totals.prevention_rate.k, totals.prevention_rate.n) == (0, 2)
    assert totals.time_to_detect.median_seconds == 60
    assert totals.time_to_resolve.n == 1
    assert totals.time_to_guard.median_seconds == 3 * 3600


def test_nothing_known_is_not_zero():
    """Without traffic counts there are none, and a rate over nothing has no value."""
    report = flywheel([], now_ns=MONDAY, weeks=2)
    assert [week.requests for week in report.weeks] == [None, None]
    assert report.totals.repeat_rate.value is None
    assert report.totals.time_to_resolve.median_seconds is None


pool = [
    *BASE,
    incident(30, name="INC-2", relation="repeat", episode=2),
    *guarded(60, "quarantined"),
    *[
        result(h, v, change=c)
        for h, v, c in [(10, "fail", "a"), (11, "pass", "a"), (12, "fail", "b"), (13, "error", "b")]
    ],
    deploy(14, change="a"),
    deploy(15, change="b"),
    landed_event("a", ts_ns=MONDAY + 16 * HOUR),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(pool), max_size=20), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_report(events, random):
    """Events that arrive late, twice or shuffled change nothing."""
    shuffled = [*events, *events]
    random.shuffle(shuffled)
    now_ns = MONDAY + 9 * DAY
    assert flywheel(shuffled, now_ns=now_ns) == flywheel(events, now_ns=now_ns)


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        ("1970-01-01T00:00:00Z", "1970-W01"),
        ("2026-01-04T23:59:59.999999999Z", "2026-W01"),
        ("2026-01-05T00:00:00Z", "2026-W02"),
        ("2027-01-03T12:00:00Z", "2026-W53"),
        ("2027-01-04T00:00:00Z", "2027-W01"),
    ],
)
def test_weeks_are_iso_weeks_in_utc(moment, name):
    """A week begins on Monday at midnight UTC, and the year is that of its Thursday."""
    assert week_name(week_index(parse_time(moment))) == name


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3 * 7 * 86_400, 3 * 7 * 86_400), st.sampled_from(["request", "llm"])), max_size=12),
    st.integers(0, 20 * 86_400),
)
def test_the_sql_counts_what_the_definition_counts(clickhouse, moments, span):
    """For any traffic and window the statement and the plain count agree, week by week."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    events = [Event(ts_ns=MONDAY + seconds * NANOSECONDS, event=kind) for seconds, kind in moments]
    clickhouse.append(events)
    start_ns, end_ns = MONDAY - span * NANOSECONDS, MONDAY + span * NANOSECONDS
    statement = weekly_requests_statement(start_ns=start_ns, end_ns=end_ns)
    inside = [event for event in events if start_ns < event.ts_ns <= end_ns]
    assert weekly_requests_from_rows(clickhouse.rows(statement)) == weekly_requests(inside)


@pytest.mark.parametrize(("bound", "n"), [(0.8, 14), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_the_exact_interval(bound, n):
    """So many clean runs, and not one fewer, put the one-sided 95 % bound at this probability."""
    assert exact_interval(n, n, confidence=0.9)[0] >= bound
    assert exact_interval(n - 1, n - 1, confidence=0.9)[0] < bound


@given(st.integers(0, 60), st.integers(0, 60))
def test_an_interval_holds_its_share(k, more):
    """The share lies within its interval, and the interval mirrors when successes and failures change places."""
    n = k + more
    shown = rate(k, n)
    assert 0 <= shown.low <= shown.high <= 1
    if n:
        assert shown.low <= shown.value <= shown.high
        assert shown.low == pytest.approx(1 - rate(more, n).high, abs=1e-9)


def test_durations_count_what_came():
    """The median is over what has happened; what has not is not a zero."""
    assert durations([None]).n == 0
    assert durations([1.0, None, 3.0, 8.0]).median_seconds == 3.0
    assert durations([1.0, 3.0, 8.0]).mean_seconds == 4.0
