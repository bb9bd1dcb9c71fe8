"""A policy is refused at load when it contradicts itself, and resolves requests without mixing anybody up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import ConfigError, InputError
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import DEFAULT_LIMITS, LimitSettings


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"lever": "quota", "per": "day", "burst": 5}, 'a quota has no burst; leave burst out, or use lever = "rate"'),
        ({"lever": "concurrency", "burst": 5}, 'a concurrency has no burst; leave burst out, or use lever = "rate"'),
        (
            {"lever": "quota"},
            'a quota per minute is no calendar period; use lever = "rate", or per = "hour", or rolling',
        ),
        (
            {"lever": "rate", "per": "month"},
            'a month has no fixed length to spread a rate over; use lever = "quota"',
        ),
        (
            {"lever": "rate", "time_zone": "Europe/Berlin"},
            'a rate knows no time zone; leave time_zone out, or use lever = "quota"',
        ),
        (
            {"lever": "quota", "per": "day", "time_zone": "Mars/Olympus"},
            "there is no time zone 'Mars/Olympus'; use a name such as Europe/Berlin",
        ),
        ({"lever": "concurrency", "unit": "tokens"}, "slots are held by requests, not by tokens; leave unit out"),
        ({"lever": "concurrency", "per": "day"}, "concurrency has no period; leave per out"),
        (
            {"lever": "rate", "lease_seconds": 5},
            'a rate has no lease; leave lease_seconds out, or use lever = "concurrency"',
        ),
        (
            {"lever": "concurrency", "lease_seconds": 7200.0},
            "lease_seconds is not between 0.001 and 3600; use about 30",
        ),
        (
            {"lever": "rate", "when": {"colour": "red"}},
            "when names 'colour', which no request has; use organisation, tenant, key, model, route, priority",
        ),
        ({"lever": "rate", "scope": ("tenant", "tenant")}, "scope repeats a part; name each part once"),
    ],
)
def test_contradictions_are_refused_with_what_to_do(table, said):
    """Each impossible limit is named with its part and its remedy."""
    with pytest.raises(ConfigError) as caught:
        policy_from_settings([LimitSettings(id="x", amount=5, **table)])
    assert str(caught.value) == f"limit 'x': {said}"


def test_two_limits_with_one_id_are_refused():
    """An id names one limit."""
    limit = LimitSettings(id="x", lever="rate", amount=1)
    with pytest.raises(ConfigError, match="two limits have the id 'x'"):
        policy_from_settings([limit, limit])


def test_the_default_limits_compile():
    """What ships works."""
    assert [limit.id for limit in policy_from_settings(DEFAULT_LIMITS).limits] == [limit.id for limit in DEFAULT_LIMITS]


@given(st.lists(st.text(max_size=3), min_size=4, max_size=4))
def test_no_two_callers_share_a_bucket_by_the_way_they_are_named(names):
    """Keys are equal only if every part of the scope is equal, whatever signs the names hold."""
    limit = LimitSettings(id="x", lever="rate", amount=1, scope=("tenant", "key"))
    policy = policy_from_settings([limit])
    one, other = Context(tenant=names[0], key=names[1]), Context(tenant=names[2], key=names[3])
    keys = [policy.demands(context, {}, 0)[0].key for context in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_when_chooses_the_requests_that_count(clock):
    """A limit for one model does not count the others, and a request that no limit counts is admitted."""
    limit = LimitSettings(id="big", lever="rate", amount=1, when={"model": "large"}, scope=())
    limiter = Limiter(policy_from_settings([limit]), clock=clock)
    small = limiter.admit(Context(model="small"))
    assert (small.allowed, small.reason, small.limits) == (True, "no limit applies", {})
    assert limiter.admit(Context(model="large")).allowed
    assert not limiter.admit(Context(model="large")).allowed
    assert limiter.admit(Context(model="small")).allowed


def test_a_unit_that_nobody_estimated_costs_one(clock):
    """Unknown is not zero: an exhausted token quota rejects a request without an estimate; an explicit 0 passes."""
    limit = LimitSettings(id="tokens", lever="quota", amount=10, per="day", unit="tokens")
    limiter = Limiter(policy_from_settings([limit]), clock=clock)
    assert limiter.admit(Context(), {"input_tokens": 6, "output_tokens": 4}).limits["tokens"].remaining == 0
    assert not limiter.admit(Context()).allowed
    assert limiter.admit(Context(), {"tokens": 0}).allowed


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (
            {"token": 5},
            (
                "estimate has the unknown unit 'token'; use one of "
                "requests, input_tokens, output_tokens, tokens, cost_microusd"
            ),
        ),
        ({"tokens": -1}, "estimate: tokens is -1; give a whole number, 0 or more"),
        ({"tokens": 1.5}, "estimate: tokens is 1.5; give a whole number, 0 or more"),
        ({"tokens": True}, "estimate: tokens is True; give a whole number, 0 or more"),
    ],
)
def test_an_estimate_in_no_unit_is_the_callers_mistake(clock, estimate, said):
    """A misspelt unit or an impossible number is refused and not counted as nothing."""
    with pytest.raises(InputError) as caught:
        Limiter(policy_from_settings(DEFAULT_LIMITS), clock=clock).admit(Context(), estimate)
    assert str(caught.value) == said
