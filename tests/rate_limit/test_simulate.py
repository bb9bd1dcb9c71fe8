"""A policy replayed on its own record decides as it did; another one says whom it would have met."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.event import Event
from opsloop.rate_limit import Context, Limiter, policy_from_settings, simulate
from opsloop.rate_limit.simulate import LimitOutcome, Rejection, Report, TenantOutcome, arrivals
from opsloop.settings import LimitSettings
from opsloop.stream import MemoryStream

START = 1_767_603_600 * 10**9
LIMITS = (
    LimitSettings(id="rate", lever="rate", amount=30, burst=3),
    LimitSettings(id="tokens", lever="rate", amount=500, unit="tokens", scope=("tenant", "key")),
    LimitSettings(id="daily", lever="quota", amount=3000, per="day", unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=2, scope=()),
)
calls = st.lists(
    st.tuples(
        st.sampled_from(["acme", "bolt"]),
        st.integers(1, 400),
        st.integers(0, 600),
        st.integers(0, 20_000),
        st.integers(0, 40_000),
    ),
    max_size=25,
)


def record(traffic, policy):
    """Run traffic through a limiter that writes its events; each call is settled when it ends."""
    stream = MemoryStream()
    clock = ManualClock(START)
    limiter = Limiter(policy, clock=clock, ids=SeededIds(2), sink=stream)
    open_calls = []
    for number, (tenant, estimate, actual, gap_ms, took_ms) in enumerate(traffic):
        arrives = clock.now_ns() + gap_ms * 10**6
        for ends, _, reservation, used in sorted(open_calls):
            if ends <= arrives:
                clock.advance(ns=max(0, ends - clock.now_ns()))
                limiter.settle(reservation, {"tokens": used})
        open_calls = [call for call in open_calls if call[0] > arrives]
        clock.advance(ns=arrives - clock.now_ns())
        context = Context(tenant=tenant, key=f"key-{number % 2}", request_id=f"req-{number}")
        decision = limiter.admit(context, {"tokens": estimate})
        if decision.allowed:
            open_calls.append((arrives + min(took_ms, 29_000) * 10**6, number, decision.reservation, actual))
    for ends, _, reservation, used in sorted(open_calls):
        clock.advance(ns=max(0, ends - clock.now_ns()))
        limiter.settle(reservation, {"tokens": used})
    return stream.query()


@settings(max_examples=60, deadline=None)
@given(calls)
def test_a_policy_on_its_own_record_decides_as_it_did(traffic):
    """Nothing is newly rejected and nothing newly allowed."""
    policy = policy_from_settings(LIMITS)
    events = record(traffic, policy)
    report = simulate(policy, events)
    recorded = [event.attributes["allowed"] for event in events if event.attributes["phase"] == "admit"]
    assert (report.decisions, report.allowed) == (len(traffic), sum(recorded))
    assert (report.newly_rejected, report.newly_allowed) == (0, 0)


def request(seconds, tenant, *, number, duration_us=None, tokens=None, **fields):
    """A recorded request."""
    return Event(
        ts_ns=START + round(seconds * 10**9),
        event="request",
        request_id=f"req-{number}",
        tenant=tenant,
        duration_us=duration_us,
        input_tokens=tokens,
        **fields,
    )


def test_a_tighter_policy_says_who_by_which_limit():
    """The whole report of five requests, one of which was rejected when it was recorded."""
    events = [
        request(0, "acme", number=1, duration_us=10_000_000, tokens=50),
        request(1, "acme", number=2, duration_us=1_000_000),
        Event(ts_ns=START + 10**9, event="llm", request_id="req-2", input_tokens=60, output_tokens=10),
        Event(ts_ns=START + 10**9, event="embed", request_id="req-2", input_tokens=5),
        request(2, "bolt", number=3, status_code=429, error_type="rate_limited"),
        request(3, "acme", number=4, duration_us=500_000, tokens=20),
        request(11, "bolt", number=5, duration_us=500_000, tokens=101),
    ]
    policy = policy_from_settings(
        [
            LimitSettings(id="one", lever="concurrency", amount=1),
            LimitSettings(id="tokens", lever="quota", amount=100, per="hour", unit="tokens"),
        ]
    )
    assert simulate(policy, events) == Report(
        decisions=5,
        allowed=2,
        rejected=3,
        never_admissible=1,
        newly_rejected=3,
        newly_allowed=1,
        unknown_duration=1,
        limits=(
            LimitOutcome(limit="one", decisions=5, rejected=2, used_ratio_max=1.0),
            LimitOutcome(limit="tokens", decisions=5, rejected=2, used_ratio_max=0.5),
        ),
        tenants=(
            TenantOutcome(tenant="acme", decisions=3, rejected=2, violated={"one": 2, "tokens": 1}),
            TenantOutcome(tenant="bolt", decisions=2, rejected=1, violated={"tokens": 1}),
        ),
        rejections=(
            Rejection(
                ts_ns=START + 10**9,
                request_id="req-2",
                tenant="acme",
                violated=("one", "tokens"),
                reason=(
                    "one for tenant acme: all 1 slots are held, the next lease ends in 3599 s; "
                    "tokens for tenant acme: 50 of 100 tokens per hour left, 75 asked, resets in 3599 s"
                ),
            ),
            Rejection(
                ts_ns=START + 3 * 10**9,
                request_id="req-4",
                tenant="acme",
                violated=("one",),
                reason="one for tenant acme: all 1 slots are held, the next lease ends in 3597 s",
            ),
            Rejection(
                ts_ns=START + 11 * 10**9,
                request_id="req-5",
                tenant="bolt",
                violated=("tokens",),
                reason="tokens for tenant bolt: 101 tokens asked, never more than 100 at once",
            ),
        ),
    )


def test_a_request_behind_a_limiter_is_one_arrival():
    """Its limit events say who and how much, its request event how long; it is not counted twice."""
    events = [
        request(0, "acme", number=1, duration_us=5_000_000, tokens=999),
        Event(
            ts_ns=START,
            event="limit",
            request_id="req-1",
            tenant="acme",
            attributes={"phase": "admit", "allowed": True, "estimate": {"tokens": 7, "odd": 1}, "reservation": "r"},
        ),
    ]
    (arrival,) = arrivals(events)
    assert (arrival.estimate, arrival.ends_ns, arrival.was_allowed) == ({"tokens": 7}, START + 5 * 10**9, True)
