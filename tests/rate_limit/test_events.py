"""Every decision is an event, and a broken sink is never the caller's trouble."""

from __future__ import annotations

import pytest

from opsloop.clock import SeededIds
from opsloop.rate_limit import Context, Limiter, decision_event, policy_from_settings, receipt_event
from opsloop.settings import LimitSettings

ACME = Context(organisation="org", tenant="acme", key="key-7", model="large", route="/chat", request_id="req-1")
TOKENS = LimitSettings(id="tokens", lever="rate", amount=1000, unit="tokens")


@pytest.fixture
def limiter(clock, memory):
    """A thousand tokens per minute, with a sink."""
    return Limiter(policy_from_settings([TOKENS]), clock=clock, ids=SeededIds(1), sink=memory, service="bot")


def test_admit_settle_and_refusal_are_recorded(limiter, memory, clock):
    """Three events with everything that a later reader needs: whose, how much, how full, why not, until when."""
    first = limiter.admit(ACME, {"input_tokens": 700, "output_tokens": 100})
    limiter.admit(ACME, {"tokens": 300})
    clock.advance(seconds=3)
    limiter.settle(first.reservation, {"tokens": 1000})
    limiter.settle(first.reservation, {"tokens": 1000})
    admitted, refused, settled = memory.query()
    for event in (admitted, refused, settled):
        assert (event.event, event.service, event.request_id, event.tenant, event.route, event.model) == (
            "limit",
            "bot",
            "req-1",
            "acme",
            "/chat",
            "large",
        )
    assert (admitted.status_code, admitted.error, admitted.attributes) == (
        None,
        False,
        {
            "phase": "admit",
            "allowed": True,
            "status": "allowed",
            "violated": [],
            "limits": {"tokens": {"remaining": 200, "used_ratio": 0.8, "reset_seconds": 48.0}},
            "estimate": {"input_tokens": 700, "output_tokens": 100},
            "retry_after_seconds": 0.0,
            "reservation": first.reservation,
            "organisation": "org",
            "key": "key-7",
        },
    )
    reason = "tokens for tenant acme: 200 of 1000 tokens per minute left, 300 asked, admissible in 6 s"
    assert (refused.status_code, refused.error, refused.error_type, refused.severity, refused.message) == (
        429,
        False,
        "rate_limited",
        "WARN",
        reason,
    )
    assert refused.attributes == {
        "phase": "admit",
        "allowed": False,
        "status": "rejected",
        "violated": ["tokens"],
        "limits": {"tokens": {"remaining": 200, "used_ratio": 0.8, "reset_seconds": 48.0}},
        "estimate": {"tokens": 300},
        "retry_after_seconds": 6.0,
        "reservation": "",
        "reason": reason,
        "organisation": "org",
        "key": "key-7",
    }
    assert (settled.ts_ns - admitted.ts_ns, settled.attributes["phase"], settled.attributes["actual"]) == (
        3 * 10**9,
        "settle",
        {"tokens": 1000},
    )
    assert settled.attributes["limits"] == {"tokens": {"remaining": 50, "used_ratio": 0.95, "reset_seconds": 57.0}}


def test_a_repeated_admit_is_one_event(limiter, memory):
    """The same decision has the same event id, and is stored once."""
    for _ in range(3):
        limiter.admit(ACME, {"tokens": 5}, reservation="mine")
    assert len(memory) == 1


def test_a_peek_is_no_event(limiter, memory):
    """Looking is not deciding."""
    limiter.peek(ACME)
    assert len(memory) == 0


class Broken:
    """A sink that fails."""

    def append(self, events):
        """Fail in a way that nobody foresaw."""
        raise RuntimeError(f"lost {len(list(events))}")


def test_a_broken_sink_is_counted_and_never_raised(clock):
    """The decision stands; what was lost is known."""
    limiter = Limiter(policy_from_settings([TOKENS]), clock=clock, sink=Broken())
    decision = limiter.admit(ACME)
    limiter.settle(decision.reservation, {"tokens": 3})
    assert (decision.allowed, limiter.events_lost) == (True, 2)


def test_only_a_settlement_is_a_settle_event(limiter):
    """A receipt that changed nothing has no event."""
    with pytest.raises(ValueError, match="'not_held' is no settlement"):
        receipt_event(limiter.settle("never", {}), 5)


def test_a_decision_without_limits_is_an_event_too(clock):
    """Even an empty policy leaves its trace."""
    event = decision_event(Limiter(policy_from_settings([]), clock=clock).admit(ACME))
    assert (event.message, event.attributes["limits"], event.attributes["allowed"]) == ("no limit applies", {}, True)
