"""Grouping: Alertmanager's table, its timing, its fingerprints."""

from __future__ import annotations

import pytest

from opsloop.alerting.route import Entry, Grouping, Routing, fingerprint, reason_to_notify, route, told
from tests.alerting.readings import SECOND, START

A, B = frozenset("a"), frozenset("b")
NONE = frozenset()
HOUR = 3600 * SECOND


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"alertname": "Latency", "service": "rag", "severity": "page", "slo": "p95"}, "e770f67eee1a2625"),
        ({"alertname": "Errors", "service": "rag", "severity": "page", "slo": "err"}, "c07b9ba3e79348f7"),
        ({}, "cbf29ce484222325"),
    ],
)
def test_fingerprints_are_alertmanagers(labels, expected):
    """The identity of a label set is the one that Alertmanager computes, in any order of the labels."""
    assert fingerprint(labels) == expected
    assert fingerprint(dict(reversed(labels.items()))) == expected


@pytest.mark.parametrize(
    ("last", "firing", "resolved", "expected"),
    [
        (None, A, NONE, "first notification"),
        (None, NONE, A, ""),
        (Entry(at_ns=START, firing=A), A | B, NONE, "new alerts added"),
        (Entry(at_ns=START, resolved=A), B, NONE, "first notification"),
        (Entry(at_ns=START, firing=A), NONE, A, "all alerts resolved"),
        (Entry(at_ns=START, resolved=A), NONE, A, ""),
        (Entry(at_ns=START, firing=A | B), B, A, "some alerts resolved"),
        (Entry(at_ns=START, firing=A), A, NONE, ""),
        (Entry(at_ns=START - 4 * HOUR, firing=A), A, NONE, "repeat interval elapsed"),
    ],
)
def test_the_table(last, firing, resolved, expected):
    """Each situation of the table notifies, or not, for the reason that it names."""
    found = reason_to_notify(last, firing=firing, resolved=resolved, now_ns=START, repeat_seconds=4 * 3600)
    assert found == expected


def test_without_send_resolved_only_the_end_of_all_is_told():
    """A partial resolve is not told then, a complete one is."""
    last = Entry(at_ns=START, firing=A | B)
    quiet = {"now_ns": START, "repeat_seconds": 60.0, "send_resolved": False}
    assert reason_to_notify(last, firing=B, resolved=A, **quiet) == ""
    assert reason_to_notify(last, firing=NONE, resolved=A | B, **quiet) == "all alerts resolved"


def test_group_wait_and_group_interval_hold_a_notice_back_and_say_so():
    """A first notice waits for its group, a further one for the interval, the end of all for nothing."""
    grouping = Grouping(group_wait_seconds=30, group_interval_seconds=300)
    early = route(None, firing={"a": START}, resolved=NONE, now_ns=START + 29 * SECOND, grouping=grouping)
    assert early == Routing(False, "first notification, waits for its group until 2026-01-05T09:00:30.000Z")
    due = route(None, firing={"a": START}, resolved=NONE, now_ns=START + 30 * SECOND, grouping=grouping)
    assert due == Routing(True, "first notification")
    last = told(None, "a", at_ns=START, episode="e", number=1)
    more = {"firing": {"a": START, "b": START}, "resolved": NONE, "grouping": grouping}
    assert not route(last, now_ns=START + 299 * SECOND, **more).notify
    assert route(last, now_ns=START + 300 * SECOND, **more) == Routing(True, "new alerts added")
    ended = route(last, firing={}, resolved=A, now_ns=START + SECOND, grouping=grouping)
    assert ended == Routing(True, "all alerts resolved")


def test_what_happened_inside_one_interval_and_is_undone_is_not_told():
    """Resolve and refire within the group's interval leave nothing to tell."""
    last = told(None, "ab", at_ns=START, episode="e", number=1)
    back = route(last, firing={"a": START, "b": START}, resolved=NONE, now_ns=START + HOUR, grouping=Grouping())
    assert back == Routing(False, "told already, nothing new")
