"""The default history: what happens when, and what should be said about it."""

from __future__ import annotations

from collections import Counter

import pytest

from opsloop.clock import parse_time
from opsloop.sim import Deploy, Fault, SupportBot, history
from opsloop.sim.scenario import Releases

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
END = parse_time("2026-01-08T12:00:00Z")


def test_three_days_hold_each_problem():
    """The timetable, in hours before the end: kind, beginning, minutes."""
    scenario = history(3, END)
    assert scenario.start_ns == END - 72 * HOUR
    listed = [(f.kind, round((END - f.start_ns) / HOUR, 2), (f.end_ns - f.start_ns) // MINUTE) for f in scenario.faults]
    assert listed == [
        ("upstream_429", 62.0, 20),
        ("retriever_outage", 50.0, 25),
        ("slow_model", 50.0, 25),
        ("tenant_spike", 38.0, 12),
        ("bad_release", 28.0, 35),
        ("hallucination_drift", 18.0, 300),
        ("retriever_outage", 8.0, 20),
        ("slow_model", 8.0, 20),
        ("malformed_output", 3.0, 30),
        ("retriever_outage", -0.08, 8),
        ("slow_model", -0.08, 8),
    ]
    assert [(d.release, (END - d.ts_ns) // HOUR) for d in scenario.deploys] == [("4.1.0", 70), ("4.3.0", 27)]


@pytest.mark.parametrize("days", [0.1, 1, 3, 7, 28])
def test_a_history_stays_inside_its_days(days):
    """Nothing begins before the history does; releases count up without a repeat; longer ones repeat the problems."""
    scenario = history(days, END)
    assert all(fault.start_ns >= scenario.start_ns + HOUR for fault in scenario.faults)
    releases = [d.release for d in scenario.deploys] + [f.target for f in scenario.faults if f.kind == "bad_release"]
    assert len(set(releases)) == len(releases)
    kinds = Counter(fault.kind for fault in scenario.faults)
    assert kinds["retriever_outage"] == 1 + sum(
        days * 24 - 1 >= 72 * cycle + hour for cycle in range(10) for hour in (8, 50)
    )


def test_releases_follow_each_other_in_time():
    """A bad release runs between its deploy and its rollback to what ran before; the fix follows."""
    bad = Fault("bad_release", 20, 30, 0.1, "4.2.0")
    releases = Releases([Deploy(40, "4.3.0"), Deploy(10, "4.1.0")], [bad])
    assert [(t, releases.at(t)) for t in (10, 11, 20, 21, 30, 31, 41)] == [
        (10, "4.0.0"),
        (11, "4.1.0"),
        (20, "4.1.0"),
        (21, "4.2.0"),
        (30, "4.2.0"),
        (31, "4.1.0"),
        (41, "4.3.0"),
    ]
    told = list(releases.events(start_ns=0, end_ns=40))
    assert [(e.ts_ns, e.message) for e in told] == [
        (10, "deployed 4.1.0"),
        (20, "deployed 4.2.0"),
        (30, "rolled back to 4.1.0"),
        (40, "deployed 4.3.0"),
    ]
    assert told[0].attributes["commit"] == told[2].attributes["commit"]
    assert [len(e.attributes["commit"]) for e in told] == [40] * 4
    assert told[2].attributes["change_id"].startswith("rollback-")


def breaches(events, start_ns, end_ns):
    """Return which of the default signals a five-minute window breaches, in plain Python."""
    inside = [event for event in events if start_ns < event.ts_ns <= end_ns]
    requests = [event for event in inside if event.event == "request"]
    durations = sorted(event.duration_us for event in requests if event.status_code == 200)
    searches = [event for event in inside if event.event == "retrieve"]
    used = sorted(
        level["used_ratio"]
        for event in inside
        if event.event == "limit"
        for level in event.attributes.get("limits", {}).values()
    )
    gauges = [e.attributes["value"] / e.attributes["limit"] for e in inside if e.event == "gauge"]
    found = set()
    if durations[int(0.95 * len(durations))] > 1_500_000:
        found.add("latency")
    if sum(event.error for event in requests) / len(requests) > 0.02:
        found.add("errors")
    if sum(event.error for event in searches) / len(searches) > 0.05:
        found.add("retrieval")
    if max(used[int(0.95 * len(used))], gauges[-1], gauges[-2], gauges[-3]) > 0.8:
        found.add("saturation")
    return found


def story(first_hour, last_hour):
    """Return the breaches of each five minutes of a stretch of the three days, by the faults that act in it."""
    scenario = history(3, END)
    start, end = END - first_hour * HOUR, END - last_hour * HOUR
    bot = SupportBot(start_ns=start, faults=scenario.faults, deploys=scenario.deploys)
    events = list(bot.events(start, end))
    told = {}
    for begin in range(start, end - MINUTE, 5 * MINUTE):
        window = (begin, begin + 5 * MINUTE)
        acting = tuple(sorted({f.kind for f in scenario.faults if f.start_ns < window[1] and f.end_ns > window[0]}))
        told.setdefault(acting, []).append(breaches(events, *window))
    return told


def test_the_outage_breaches_several_signals_at_once_and_rest_does_not():
    """Around the outage of hour 50: in each of its windows two signals or more, in every other one at most."""
    told = story(53, 49)
    assert len(told["retriever_outage", "slow_model"]) == 5
    assert all({"latency", "errors"} <= found for found in told["retriever_outage", "slow_model"])
    assert all(len(found) <= 1 for found in told[()])
    assert sum(map(len, told[()])) <= len(told[()]) / 10


def test_the_tenant_spike_breaches_saturation_alone():
    """Around the spike of hour 38: one signal only, so a composite of two stays silent."""
    told = story(39, 37)
    assert told["tenant_spike",][:2] == [{"saturation"}, {"saturation"}]
    assert all(found <= {"saturation"} for found in told["tenant_spike",])
    assert all(len(found) <= 1 for found in told[()])
