"""Two windows side by side: yesterday, last week, before a deploy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS, ManualClock
from opsloop.dashboard import Window, signals
from opsloop.dashboard.api import endpoints
from opsloop.dashboard.compare import around, changes, earlier
from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.settings import Settings
from tests.dashboard.traffic import END_NS, MINUTE_NS, streams

DAY_NS = 86_400 * NANOSECONDS


def requests(end_ns, *, took_us, n=30):
    """Return requests of one duration in the ten minutes before an instant."""
    return [Event(ts_ns=end_ns - k * 20 * NANOSECONDS, event="request", duration_us=took_us) for k in range(n)]


def ask(clickhouse, **arguments):
    """Ask /api/signals of the last ten minutes for a comparison."""
    found = endpoints(clickhouse, Settings(), ManualClock(END_NS))
    return found[0].handler({"from": "10m", **arguments}, b"")["comparison"]


@given(deploy=st.integers(0, 99), start=st.integers(0, 98))
def test_windows_around_a_deploy_are_equal_and_apart(deploy, start):
    """Before and after are as long as one another, meet at the deploy, and never lie in the future."""
    before, after = around(deploy, start_ns=start, end_ns=100)
    assert before[1] == after[0] == deploy
    assert before[1] - before[0] == after[1] - after[0] == min(100 - start, 100 - deploy)
    assert after[1] <= 100


@given(events=streams)
def test_a_window_has_not_changed_from_itself(events):
    """What is compared with itself changed by nothing, and what is unknown stays unknown."""
    found = signals(Window.of(events, start_ns=END_NS - 5 * MINUTE_NS, end_ns=END_NS))
    for each in changes(("latency_us_p95", "error_ratio", "requests_per_second"), found, found):
        assert each.before == each.after
        assert each.ratio in (0.0, None)
        assert (each.ratio is None) == (each.before is None or each.before == 0)


def test_the_same_minutes_of_yesterday_stand_beside_todays(clickhouse):
    """The comparison reads both windows and names what changed most."""
    clickhouse.append(requests(END_NS - DAY_NS, took_us=400_000) + requests(END_NS, took_us=900_000, n=15))
    found = ask(clickhouse, compare="1d")
    assert (found.before_end_ns, found.after_end_ns) == (END_NS - DAY_NS, END_NS)
    assert found.sentence == "Compared with a day ago, p50 latency changed most: 400 ms to 900 ms (+125%)."
    by_name = {each.measure: each for each in found.changes}
    assert (by_name["requests_per_second"].n_before, by_name["requests_per_second"].n_after) == (30, 15)
    assert by_name["quality_mean"].ratio is None
    assert ask(clickhouse) is None


def test_a_deploy_parts_before_from_after(clickhouse):
    """The last deploy decides, and both sides are as long as the time since."""
    deploy_ns = END_NS - 4 * MINUTE_NS
    clickhouse.append([Event(ts_ns=deploy_ns, event="deploy", release="v2"), *requests(deploy_ns, took_us=100_000)])
    clickhouse.append(requests(END_NS, took_us=300_000, n=12))
    found = ask(clickhouse, compare="deploy")
    assert (found.before_start_ns, found.after_end_ns) == (deploy_ns - 4 * MINUTE_NS, END_NS)
    assert found.sentence == (
        "Compared with the deploy of v2 at 2026-01-05T08:56:00Z, p50 latency changed most: 100 ms to 300 ms (+200%)."
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"compare": "deploy"}, "no deploy was seen"),
        ({"compare": "1y"}, "no comparison '1y'; use one of 1d, 1w, deploy"),
        ({"compare": "1d", "from": "2d"}, "longer than 1d"),
    ],
)
def test_what_cannot_be_compared_is_refused(clickhouse, arguments, says):
    """The sentence says what would do."""
    with pytest.raises(InputError, match=says):
        ask(clickhouse, **arguments)


def test_a_window_may_be_as_long_as_the_way_back():
    """Neighbours share no event, so a day may be compared with the day before."""
    assert earlier("1d", start_ns=DAY_NS, end_ns=2 * DAY_NS) == (0, DAY_NS)
