"""Service level objectives: which events are good, what is left, how long it lasts."""

from __future__ import annotations

import pytest

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import Count, burn_readings, count_slo, judge_slo, slo_windows
from opsloop.event import Event
from opsloop.settings import SloSettings
from opsloop.verdict import Verdict

END_NS = 1_767_603_600 * NANOSECONDS
UP = SloSettings(id="up", target=0.999)
MONTH = 30 * 86_400.0


def request(**fields):
    """Build a request of a minute ago."""
    return Event(ts_ns=END_NS - 60 * NANOSECONDS, event="request", **fields)


def score(value, *, scorer="groundedness", **fields):
    """Build a score of a minute ago."""
    attributes = {"status": "unscored" if value is None else "scored", "score": value, "scorer": scorer}
    return Event(ts_ns=END_NS - 60 * NANOSECONDS, event="score", attributes=attributes, **fields)


EVENTS = (
    request(request_id="a", duration_us=100, time_to_first_token_us=10),
    request(request_id="b", duration_us=900, time_to_first_token_us=90),
    request(request_id="c", duration_us=500, error=True),
    request(request_id="d"),
    request(request_id="e", duration_us=1, status_code=429, error_type="rate_limited"),
    score(0.2, request_id="a"),
    score(0.5, request_id="b"),
    Event(ts_ns=END_NS, event="score", attributes={"status": "unscored"}),
)


@pytest.mark.parametrize(
    ("sli", "threshold_us", "expected"),
    [
        ("availability", None, Count(1, 4)),
        ("latency", 500, Count(1, 3)),
        ("latency", None, Count(0, 0)),
        ("time_to_first_token", 50, Count(1, 2)),
        ("quality", None, Count(1, 2)),
        ("goodput", None, Count(2, 4)),
        ("goodput", 500, Count(3, 3)),
    ],
)
def test_each_sli_counts_its_own_events(sli, threshold_us, expected):
    """Our own 429s are in no total, and what has no duration or score is neither good nor bad."""
    slo = SloSettings(id="x", sli=sli, threshold_us=threshold_us)
    assert count_slo(slo, EVENTS, end_ns=END_NS)[300.0] == expected


SCORED = (
    request(request_id="a"),
    request(request_id="b"),
    score(0.7, request_id="a", scorer="grounded"),
    score(0.1, request_id="a", scorer="refusal"),
    score(0.9, request_id="b", scorer="grounded"),
    score(None, request_id="b", scorer="refusal"),
    score(7, request_id="b", scorer="refusal"),
)


@pytest.mark.parametrize(
    ("sli", "threshold", "scorer", "expected"),
    [
        ("quality", 0.5, "", Count(1, 3)),
        ("quality", 0.7, "grounded", Count(0, 2)),
        ("quality", 0.8, "grounded", Count(1, 2)),
        ("quality", 0.8, "refusal", Count(1, 1)),
        ("quality", 0.8, "length", Count(0, 0)),
        ("goodput", 0.5, "", Count(1, 2)),
        ("goodput", 0.7, "grounded", Count(0, 2)),
        ("goodput", 0.8, "grounded", Count(1, 2)),
        ("goodput", 1.0, "grounded", Count(2, 2)),
    ],
)
def test_an_objective_has_its_own_score_and_threshold(sli, threshold, scorer, expected):
    """A score under the threshold is bad, one on it is good, of the named scorer; the unscored never count."""
    slo = SloSettings(id="x", sli=sli, threshold=threshold, scorer=scorer)
    assert count_slo(slo, SCORED, end_ns=END_NS)[300.0] == expected


def test_labels_choose_the_requests():
    """Only events with the label's value count."""
    events = [request(tenant="acme", error=True), request(tenant="globex")]
    slo = SloSettings(id="x", labels={"tenant": "acme"})
    assert count_slo(slo, events, end_ns=END_NS)[300.0] == Count(1, 1)


def test_a_budget_is_weighted_by_events():
    """One failing request a night and a busy good day: 1 of 1000, not the mean of the slices' ratios."""
    day = [Event(ts_ns=END_NS - (i + 1) * NANOSECONDS, event="request") for i in range(999)]
    night = [Event(ts_ns=END_NS - 43_200 * NANOSECONDS, event="request", error=True)]
    found = judge_slo(UP, count_slo(UP, day + night, end_ns=END_NS), end_ns=END_NS)
    assert (found.bad, found.total, found.remaining_ratio) == (1, 1000, 0.0)


@pytest.mark.parametrize(
    ("pace", "seconds"), [(1, MONTH), (2, MONTH / 2), (10, 3 * 86_400), (1000, 43.2 * 60), (35, 720 / 35 * 3600)]
)
def test_a_full_budget_lasts_the_period_over_the_burn(pace, seconds):
    """Burn 1 lasts 30 days, 2 lasts 15, 10 lasts 3, 1000 lasts 43 minutes; 35 lasts 20.6 hours."""
    counts = dict.fromkeys(slo_windows(UP, end_ns=END_NS), Count(0, 1_000_000)) | {3600.0: Count(pace, 1000)}
    assert judge_slo(UP, counts, end_ns=END_NS).exhausts_in_seconds == pytest.approx(seconds)


def test_an_overspent_budget_is_shown_below_zero():
    """Remaining may be negative, and is gone now."""
    found = judge_slo(UP, dict.fromkeys(slo_windows(UP, end_ns=END_NS), Count(3, 1000)), end_ns=END_NS)
    assert (found.remaining_ratio, found.exhausts_in_seconds) == (-2.0, 0.0)
    assert found.sentence == "The budget is spent 3.0 times: 3 of 1000 bad in 30 d, 0.1% allowed."


def test_a_five_minute_outage_spends_its_share():
    """All requests fail for 5 minutes at 99.9%: 11.6% of a steady month's budget."""
    found = judge_slo(UP, dict.fromkeys(slo_windows(UP, end_ns=END_NS), Count(5, 43_200)), end_ns=END_NS)
    assert found.remaining_ratio == pytest.approx(1 - 0.1157, abs=1e-4)


def test_nothing_is_known_of_nothing():
    """Without events nothing is left and nothing is spent: every number is unknown and every tier NO_DATA."""
    found = judge_slo(UP, count_slo(UP, [], end_ns=END_NS), end_ns=END_NS)
    assert (found.remaining_ratio, found.burn_1h, found.exhausts_in_seconds) == (None, None, None)
    assert {tier.verdict for tier in found.tiers} == {Verdict.NO_DATA}
    assert found.sentence == "No events in 30 d: nothing is known of the budget."


def test_readings_speak_for_pages_and_for_tickets():
    """A slow burn is a ticket reading and no page; a fast one is a severe page reading of the signal it belongs to."""
    windows = slo_windows(UP, end_ns=END_NS)
    slow = dict.fromkeys(windows, Count(40, 10_000))
    page, ticket = burn_readings(UP, judge_slo(UP, slow, end_ns=END_NS), end_ns=END_NS)
    assert (page.id, page.group, page.verdict, page.severe) == ("burn-up", "errors", Verdict.OK, False)
    assert (ticket.id, ticket.verdict, ticket.value, ticket.threshold) == ("slow-burn-up", Verdict.BREACH, 4.0, 3.0)
    fast = dict.fromkeys(windows, Count(40, 1000))
    page, _ = burn_readings(UP, judge_slo(UP, fast, end_ns=END_NS), end_ns=END_NS)
    assert (page.verdict, page.severe, page.value, page.n, page.unit) == (Verdict.BREACH, True, 40.0, 1000, "burn")
    assert page.window_start_ns == END_NS - 3600 * NANOSECONDS
