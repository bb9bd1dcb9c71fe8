"""Clients are told the truth in their own dialect, and upstreams are understood in theirs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import SeededIds
from opsloop.rate_limit import (
    Context,
    Limiter,
    UpstreamLimit,
    limit_headers,
    parse_retry_after,
    parse_upstream,
    policy_from_settings,
    problem,
    upstream_events,
)
from opsloop.settings import LimitSettings

ACME = Context(tenant="acme")
LIMITS = (
    LimitSettings(id="rpm", lever="rate", amount=60, burst=10),
    LimitSettings(id="tenant-tpm", lever="rate", amount=450_000, unit="tokens"),
    LimitSettings(id="tokens-per-day", lever="quota", amount=1_000_000, per="day", unit="tokens"),
    LimitSettings(id="input", lever="rate", amount=200_000, unit="input_tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=4, scope=()),
)
ESTIMATE = {"input_tokens": 5_000, "output_tokens": 3_000}


def limiter(clock, *limits):
    """A limiter over some limits, over all of the above unless named."""
    return Limiter(policy_from_settings(limits or LIMITS), clock=clock, ids=SeededIds(1))


def test_the_ietf_headers(clock):
    """One list item per limit, with quota, window and unit, and what remains until when."""
    assert limit_headers(limiter(clock).admit(ACME, ESTIMATE)) == [
        (
            "ratelimit-policy",
            (
                '"rpm";q=60;w=60;qu="requests", "tenant-tpm";q=450000;w=60;qu="opsloop-tokens", '
                '"tokens-per-day";q=1000000;w=86400;qu="opsloop-tokens", '
                '"input";q=200000;w=60;qu="opsloop-input-tokens", '
                '"slots";q=4;qu="concurrent-requests"'
            ),
        ),
        (
            "ratelimit",
            (
                '"rpm";r=9;t=1, "tenant-tpm";r=442000;t=2, "tokens-per-day";r=992000;t=54000, "input";r=195000;t=2, '
                '"slots";r=3;t=30'
            ),
        ),
    ]


def test_the_dialects_of_the_providers(clock):
    """The tightest limit of each unit, with a duration for OpenAI's clients and a time for Anthropic's."""
    decision = limiter(clock).admit(ACME, ESTIMATE)
    assert limit_headers(decision, dialects=["openai"]) == [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-limit-tokens", "450000"),
        ("x-ratelimit-remaining-tokens", "442000"),
        ("x-ratelimit-reset-tokens", "1.067s"),
    ]
    assert limit_headers(decision, dialects=["anthropic"]) == [
        ("anthropic-ratelimit-requests-limit", "60"),
        ("anthropic-ratelimit-requests-remaining", "9"),
        ("anthropic-ratelimit-requests-reset", "2026-01-05T09:00:01Z"),
        ("anthropic-ratelimit-tokens-limit", "450000"),
        ("anthropic-ratelimit-tokens-remaining", "442000"),
        ("anthropic-ratelimit-tokens-reset", "2026-01-05T09:00:02Z"),
        ("anthropic-ratelimit-input-tokens-limit", "200000"),
        ("anthropic-ratelimit-input-tokens-remaining", "195000"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-01-05T09:00:02Z"),
    ]


def test_a_refusal_says_when_and_which(clock):
    """Retry-After is not earlier than the violated limit's t; the body names the policy that was violated."""
    gate = limiter(clock, LIMITS[0], LIMITS[2])
    for _ in range(10):
        gate.admit(ACME, {"tokens": 1})
    refused = gate.admit(ACME, {"tokens": 1})
    headers = dict(limit_headers(refused))
    assert (headers["ratelimit"], headers["retry-after"]) == (
        '"rpm";r=0;t=1, "tokens-per-day";r=999990;t=54000',
        "1",
    )
    assert problem(refused) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "A limit is exceeded",
        "status": 429,
        "detail": "rpm for tenant acme: 0 of 60 requests per minute left, 1 asked, admissible in 1 s",
        "violated-policies": ["rpm"],
    }


def test_a_full_service_answers_503(clock):
    """When only a limit for all callers is full nobody asked for too much."""
    gate = limiter(clock, LIMITS[4])
    for _ in range(4):
        gate.admit(ACME)
    assert problem(gate.admit(ACME)) == {
        "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "title": "The service is at its capacity",
        "status": 503,
        "detail": "slots: all 4 slots are held, the next lease ends in 30 s",
        "violated-policies": ["slots"],
    }


def test_what_is_never_admissible_is_not_told_to_retry(clock):
    """A 413 has no Retry-After: the same request will not fit later either."""
    refused = limiter(clock, LIMITS[1]).admit(ACME, {"tokens": 450_001})
    assert "retry-after" not in dict(limit_headers(refused, dialects=["ietf", "openai", "anthropic"]))
    assert problem(refused)["status"] == 413


def test_upstreams_are_read_in_all_three_dialects(clock):
    """Whatever the case of the names; a value that cannot be read is unknown, not zero."""
    openai = {
        "X-RateLimit-Limit-Requests": "60",
        "X-RateLimit-Remaining-Requests": "59",
        "x-ratelimit-reset-requests": "1h2m3.5s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "many",
        "x-ratelimit-reset-tokens": "12ms",
        "content-type": "text/plain",
    }
    assert parse_upstream(openai, now_ns=0) == (
        UpstreamLimit(name="requests", limit=60, remaining=59, reset_seconds=3723.5),
        UpstreamLimit(name="tokens", limit=150_000, reset_seconds=0.012),
    )
    anthropic = {
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "39000",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-05T09:00:30Z",
    }
    assert parse_upstream(anthropic, now_ns=clock.now_ns()) == (
        UpstreamLimit(name="input-tokens", limit=40_000, remaining=39_000, reset_seconds=30.0),
    )
    ietf = {"RateLimit-Policy": '"a,b";q=10;w=60', "RateLimit": '"a,b";r=3;t=12,"c";r=0'}
    assert parse_upstream(ietf, now_ns=0) == (
        UpstreamLimit(name="a,b", limit=10, remaining=3, reset_seconds=12),
        UpstreamLimit(name="c", remaining=0),
    )


def test_an_upstreams_limits_become_gauges():
    """Used and limit are known, so saturation is; a limit that did not say what remains makes no gauge."""
    known = UpstreamLimit(name="input-tokens", limit=100, remaining=40)
    (event,) = upstream_events(
        [known, UpstreamLimit(name="requests", limit=5)], provider="anthropic", now_ns=7, model="m"
    )
    assert (event.ts_ns, event.event, event.provider, event.model, event.attributes) == (
        7,
        "gauge",
        "anthropic",
        "m",
        {"name": "upstream.input-tokens", "value": 60, "limit": 100, "unit": "input_tokens"},
    )


@given(st.integers(0, 10**12), st.integers(0, 10**7))
def test_our_own_headers_are_read_back(now_us, used):
    """What limit_headers writes parse_upstream understands, in each dialect, for any level."""
    from opsloop.clock import ManualClock

    clock = ManualClock(now_us * 1000)
    limit = LimitSettings(id="tokens", lever="rate", amount=10**7, unit="tokens", per="hour")
    gate = Limiter(policy_from_settings([limit]), clock=clock, ids=SeededIds(1))
    decision = gate.admit(ACME, {"tokens": used})
    state = decision.limits["tokens"]
    for dialect in ("ietf", "openai", "anthropic"):
        (told,) = parse_upstream(dict(limit_headers(decision, dialects=[dialect])), now_ns=clock.now_ns())
        assert (told.name, told.limit, told.remaining) == ("tokens", 10**7, 10**7 - used)
        assert state.reset_seconds - 1e-6 <= told.reset_seconds <= state.reset_seconds + 1.001


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["ratelimit", "ratelimit-policy", "x-ratelimit-reset-tokens"]), st.text()))
def test_no_header_text_breaks_the_reader(headers):
    """An upstream may send anything."""
    parse_upstream(headers, now_ns=0)


@given(st.text())
def test_no_retry_after_breaks_the_reader(text):
    """It is seconds, not negative, or unknown."""
    seconds = parse_retry_after(text, now_ns=0)
    assert seconds is None or seconds >= 0
