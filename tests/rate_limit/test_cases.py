"""Overrides give some callers another amount; ceilings reserve a share of one bucket; both are checked at load."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.errors import ConfigError
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.rate_limit.policy_file import load_policy, read_policy
from opsloop.settings import CeilingSettings, LimitSettings, OverrideSettings

POLICY = """
[[limit]]
id = "tpm"
lever = "rate"
unit = "tokens"
amount = 600
scope = ["tenant", "model"]

[[limit.override]]
when = { tenant = "acme", model = "large" }
amount = 50

[[limit.override]]
when = { tenant = "acme" }
amount = 6000
burst = 1000

[[limit]]
id = "slots"
lever = "concurrency"
amount = 10
scope = []

[[limit.ceiling]]
when = { priority = "batch" }
share = 0.3
"""


def limiter(policy):
    """A limiter that stands at time zero."""
    return Limiter(policy, clock=ManualClock(), ids=SeededIds(1))


def taken(subject, context, unit="tokens", most=2000):
    """How many units a caller gets until the first refusal, each in one request."""
    count = 0
    while count < most and subject.admit(context, {unit: 1}).allowed:
        count += 1
    return count


@pytest.mark.parametrize(
    ("context", "amount"),
    [
        (Context(tenant="acme", model="large"), 50),
        (Context(tenant="acme", model="small"), 1000),
        (Context(tenant="other", model="large"), 600),
        (Context(), 600),
    ],
)
def test_the_first_override_that_fits_counts_and_all_others_get_the_default(context, amount):
    """A listed tenant has its own amount and burst, per model; an unknown one the amount of the limit."""
    policy = read_policy(POLICY.partition('[[limit]]\nid = "slots"')[0])
    assert taken(limiter(policy), context) == amount


def test_a_ceiling_reserves_the_rest_and_lets_everyone_borrow():
    """Batch work fills 3 of 10 slots, others all that are free; and batch gets none while others hold 3 or more."""
    batch, live = Context(tenant="b", priority="batch"), Context(tenant="l")
    policy = read_policy("[[limit]]" + POLICY.rpartition("[[limit]]")[2])
    subject = limiter(policy)
    assert taken(subject, batch, "requests") == 3
    assert taken(subject, live, "requests") == 7
    other_way = limiter(policy)
    assert taken(other_way, live, "requests") == 10
    assert not other_way.admit(batch).allowed
    refused = limiter(policy).peek(batch, {"requests": 1})
    assert refused.limits["slots"].remaining == 2


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["rate", "quota", "concurrency", "rolling"]),
    st.integers(2, 20),
    st.sampled_from([0.1, 0.25, 0.5, 0.9]),
    st.lists(st.booleans(), max_size=60),
)
def test_below_its_ceiling_a_class_is_served_and_the_reserve_is_always_there(lever, amount, share, order):
    """In any order: batch is let in exactly while all use is below its ceiling, the others while it is below all."""
    ceiling = CeilingSettings(when={"priority": "batch"}, share=share)
    kind = "quota" if lever == "rolling" else lever
    period = {"quota": "day", "rate": "hour"}.get(kind, "minute")
    table = {"rolling": 1} if lever == "rolling" else {}
    limit = LimitSettings(id="x", lever=kind, amount=amount, per=period, scope=(), ceiling=(ceiling,), **table)
    share_units = int(amount * int(share * 100)) // 100
    if share_units < 1:
        with pytest.raises(ConfigError, match="leaves nothing of"):
            policy_from_settings([limit])
        return
    subject, used = limiter(policy_from_settings([limit])), 0
    for batch in order:
        allowed = subject.admit(Context(priority="batch" if batch else "")).allowed
        assert allowed == (used < (share_units if batch else amount))
        used += allowed


def test_an_override_of_a_quota_and_of_slots_counts_too():
    """The same state, another amount."""
    override = (OverrideSettings(when={"tenant": "acme"}, amount=2),)
    for table in ({"lever": "quota", "per": "day"}, {"lever": "concurrency"}):
        subject = limiter(policy_from_settings([LimitSettings(id="x", amount=4, override=override, **table)]))
        assert taken(subject, Context(tenant="acme"), "requests") == 2
        assert taken(subject, Context(tenant="other"), "requests") == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[limit]\n", "policy is not TOML: Expected ']]' at the end of an array declaration"),
        (
            '[[limit]]\nid = "a"\nlever = "quota"\namount = 1\nburst = 2\nper = "day"',
            "policy:5: limit 'a': a quota has",
        ),
        ('[[limit]]\nid = "a"\nlever = "rate"\namount = "many"', "policy:4: Expected `int`, got `str`"),
        ('[[limit]]\nid = "a"\nlever = "rate"\namount = 1\ncolour = 1', "policy:1: Object contains unknown field"),
        (
            POLICY.replace("share = 0.3", "share = 0.01"),
            "policy:24: limit 'slots': ceiling 1 of 0.01 leaves nothing of 10",
        ),
        (POLICY.replace("share = 0.3", "share = 3"), "policy:26: Expected `float` <= 1.0"),
        (POLICY.replace('"batch" }', '"batch", colour = "x" }'), "policy:24: limit 'slots': ceiling 1 names 'colour'"),
        (
            POLICY.replace('tenant = "acme", model = "large"', 'tenant = "acme"'),
            "policy:13: limit 'tpm': override 2 is never reached: number 1 before it fits all of its requests",
        ),
        (
            POLICY.replace('{ tenant = "acme", model', '{ tenant = "acme", route'),
            "policy:9: limit 'tpm': override 1 chooses by route, which is not in the scope: one bucket would have two",
        ),
        (POLICY.replace('{ tenant = "acme" }', "{}"), "policy:13: limit 'tpm': override 2 fits every request"),
        (
            POLICY.replace("amount = 600\n", 'amount = 600\nwhen = { tenant = "bolt" }\n'),
            "policy:10: limit 'tpm': override 1 is for tenant 'acme', and the limit counts only 'bolt'",
        ),
        (POLICY.replace('id = "slots"', 'id = "tpm"'), "policy:18: limit 'tpm' is there already, in line 2"),
    ],
)
def test_an_impossible_policy_is_refused_with_the_line(text, said):
    """File, line, limit, reason and remedy, for syntax, types and sense alike."""
    with pytest.raises(ConfigError) as caught:
        read_policy(text)
    assert str(caught.value).startswith(said)
    assert caught.value.fix


def test_a_policy_file_is_read_or_refused_by_its_name(tmp_path):
    """What cannot be read says so; what can is the policy."""
    file = tmp_path / "limits.toml"
    with pytest.raises(ConfigError, match=r"cannot read .*limits.toml: No such file"):
        load_policy(file)
    file.write_text(POLICY)
    assert [limit.id for limit in load_policy(file).limits] == ["tpm", "slots"]
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_policy(file)
