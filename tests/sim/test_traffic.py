"""The shape of the traffic: hours, days, tenants, conversations."""

from __future__ import annotations

from collections import Counter
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import parse_time
from opsloop.sim import SupportBot
from opsloop.sim.questions import FOLLOW_UPS, OFF_TOPIC, QUESTIONS, UNSAFE
from opsloop.sim.traffic import MODELS, ROUTES, SLOT_NS, TENANTS, arrivals, load_at

HOUR = 3600 * 10**9
MONDAY = parse_time("2026-01-05T00:00:00Z")
ARTICLE_OF = {q: article for source in (QUESTIONS, FOLLOW_UPS) for article, asked in source.items() for q in asked}


def count(start_ns, hours, *, rate=20.0, **arguments):
    """Return how many requests arrive in some hours."""
    first = start_ns // SLOT_NS
    slots = range(first, first + round(hours * 60))
    return sum(len(arrivals(0, slot, rate_per_minute=rate, talks={}, **arguments)) for slot in slots)


def test_the_load_follows_the_hours_of_the_day():
    """The load falls to its minimum at 3 and rises to its peak at 15, in the zone that was given."""
    hours = [load_at(MONDAY + hour * HOUR) for hour in range(24)]
    assert hours.index(min(hours)) == 3
    assert hours.index(max(hours)) == 15
    assert hours[3:16] == sorted(hours[3:16])
    assert (min(hours), max(hours)) == (0.35, 1.0)
    berlin = ZoneInfo("Europe/Berlin")
    assert [load_at(MONDAY + (hour - 1) * HOUR, berlin) for hour in range(24)] == hours


@given(st.integers(0, 24 * 365))
def test_the_load_is_a_share(hours):
    """At any hour of the year the load lies between a quarter and the whole of the peak."""
    assert 0.25 < load_at(MONDAY + hours * HOUR) <= 1


def test_a_week_has_quieter_weekends():
    """Saturday and Sunday have three quarters of a working day's load at every hour."""
    for hour in range(24):
        working = load_at(MONDAY + hour * HOUR)
        assert load_at(MONDAY + (5 * 24 + hour) * HOUR) == load_at(MONDAY + (6 * 24 + hour) * HOUR) == 0.75 * working


def test_arrivals_come_at_the_rate_that_was_asked():
    """Counts over hours lie within four standard deviations of the integral of the rate, and differ by seed."""
    for start, hours in ((2, 2), (9, 1), (14, 2)):
        begin = MONDAY + start * HOUR
        expected = sum(20 * load_at(begin + slot * SLOT_NS + SLOT_NS // 2) for slot in range(hours * 60))
        assert abs(count(begin, hours) - expected) < 4 * expected**0.5
    noon = (MONDAY + 12 * HOUR) // SLOT_NS
    counts = [len(arrivals(seed, noon, rate_per_minute=20, talks={})) for seed in range(300)]
    mean = sum(counts) / 300
    variance = sum((n - mean) ** 2 for n in counts) / 299
    assert 0.75 < variance / mean < 1.3


def test_arrivals_of_a_slot_lie_in_it_in_order():
    """A slot's arrivals are inside it, in time order, with ids of their own."""
    slot = (MONDAY + 12 * HOUR) // SLOT_NS
    found = arrivals(0, slot, rate_per_minute=500, talks={})
    times = [arrival.ts_ns for arrival in found]
    assert times == sorted(times)
    assert slot * SLOT_NS <= times[0] <= times[-1] < (slot + 1) * SLOT_NS
    assert len({a.request_id for a in found}) == len({a.trace_id for a in found}) == len(found)


def test_tenants_routes_and_models_have_their_shares():
    """Over some thousand requests each share is met within three hundredths; the largest tenant leads by far."""
    slot = (MONDAY + 12 * HOUR) // SLOT_NS
    found = arrivals(0, slot, rate_per_minute=6_000, talks={})
    for name, shares in (
        ("tenant", TENANTS),
        ("route", ROUTES),
        ("model", {model.name: model.share for model in MODELS.values()}),
    ):
        assert abs(sum(shares.values()) - 1) < 1e-9
        counts = Counter(getattr(arrival, name) for arrival in found)
        assert all(abs(counts[key] / len(found) - share) < 0.03 for key, share in shares.items())


def test_conversations_stay_with_their_person_and_subject():
    """A session has one user and one article; about a third of the requests go on with one; the rest is on topic."""
    talks = {}
    first = (MONDAY + 12 * HOUR) // SLOT_NS
    found = [a for slot in range(first, first + 60) for a in arrivals(0, slot, rate_per_minute=20, talks=talks)]
    sessions = {}
    for arrival in found:
        sessions.setdefault(arrival.session_id, []).append(arrival)
    for asked in sessions.values():
        assert len({(a.user_id, a.tenant) for a in asked}) == 1
        assert len({ARTICLE_OF.get(a.question, a.question) for a in asked}) == 1
    again = 1 - len(sessions) / len(found)
    assert 0.25 < again < 0.4
    strange = sum(a.question in OFF_TOPIC + UNSAFE for a in found) / len(found)
    assert 0.005 < strange < 0.04
    assert {len(kept) <= 6 for kept in talks.values()} == {True}


def test_a_zone_moves_the_day():
    """A world in another zone has its quiet hours at that zone's night."""
    quiet = MONDAY + 18 * HOUR
    tokyo = SupportBot(start_ns=quiet, zone="Asia/Tokyo")
    london = SupportBot(start_ns=quiet)

    def requests(bot):
        return sum(event.event == "request" for event in bot.events(quiet, quiet + HOUR))

    assert 2 * requests(tokyo) < requests(london)
