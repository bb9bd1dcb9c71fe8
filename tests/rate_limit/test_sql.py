"""Use of the limits by SQL is use of the limits by the definition."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import SeededIds
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.rate_limit import Context, Limiter, policy_from_settings, usage
from opsloop.rate_limit.sql import usage_in
from opsloop.settings import LimitSettings

START = 1_767_600_000_000_000_000
names = st.sampled_from(["rpm", "tokens.daily", "größe", 'a"b', ""])
ratios = st.none() | st.booleans() | st.sampled_from([0, 1, 0.5, 1.25, 3, "0.5", "x"])
states = st.dictionaries(names, st.dictionaries(st.just("used_ratio"), ratios) | st.just(7), max_size=3)
parts = {
    "violated": st.lists(names | st.just(4), max_size=3) | st.just("rpm"),
    "limits": states | st.just([1]),
}
shadows = st.fixed_dictionaries({}, optional=parts) | st.just("none")
attributes = st.fixed_dictionaries(
    {},
    optional={
        **parts,
        "phase": st.sampled_from(["admit", "settle", 3]),
        "allowed": st.sampled_from([True, False, "true", 1, None]),
        "shadow": shadows,
        "retry_after_seconds": st.sampled_from([None, 2.5, 3, "x"]),
        "reason": st.sampled_from(["", "because"]),
    },
)
events = st.builds(
    Event,
    ts_ns=st.integers(START, START + 40),
    event=st.sampled_from(["limit", "limit", "limit", "request"]),
    tenant=st.sampled_from(["", "acme", "bolt", "ähre", "z1", "z2", "z3"]),
    route=st.sampled_from(["", "/chat"]),
    message=st.sampled_from(["", "told"]),
    attributes=attributes,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, max_size=40), st.integers(1, 12), st.integers(-2, 20), st.integers(1, 25))
def test_sql_agrees_with_the_definition(clickhouse, found, intervals, offset, length):
    """For any events that anyone could have written, in any window, both count the same."""
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(found)
    window = {"start_ns": START + offset, "end_ns": START + offset + length, "intervals": intervals}
    assert usage_in(clickhouse, **window) == usage(found, **window)


def test_a_real_limiters_week_agrees(clickhouse, clock):
    """What a limiter writes over a week, with shadow limits and settlements, is counted alike; 20 refusals are kept."""
    limits = [
        LimitSettings(id="rph", lever="rate", amount=20, per="hour", burst=3),
        LimitSettings(id="daily", lever="quota", amount=900, per="day", unit="tokens", scope=()),
        LimitSettings(id="strict", lever="rate", amount=5, per="hour", burst=1, shadow=True),
    ]
    limiter = Limiter(policy_from_settings(limits), clock=clock, ids=SeededIds(1), sink=clickhouse)
    start_ns = clock.now_ns()
    for number in range(150):
        clock.advance(seconds=4000)
        for tenant in ("acme", "bolt")[: 1 + number % 2]:
            for _ in range(1 + number % 5):
                decision = limiter.admit(Context(tenant=tenant, request_id=f"req-{number}"), {"tokens": 20})
                if decision.reservation and number % 3:
                    limiter.settle(decision.reservation, {"tokens": 15 + number % 10})
    window = {"start_ns": start_ns, "end_ns": clock.now_ns()}
    by_sql = usage_in(clickhouse, **window)
    assert by_sql == usage(clickhouse.query(), **window)
    assert len(by_sql.recent) == 20
    assert {row.limit: row.rejected > 0 for row in by_sql.limits} == {"daily": True, "rph": True, "strict": True}
