"""A reservation as Redis keeps it, when another version wrote it: one sentence, and nobody else suffers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import ManualClock
from opsloop.errors import StoreError
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.rate_limit.redis_kept import HEADER, Kept
from opsloop.settings import LimitSettings

ACME = Context(tenant="acme")
LIMITS = [
    LimitSettings(id="rate", lever="rate", amount=100, per="week", unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=100),
]
TOLD = (
    "a reservation is kept as another version of opsloop keeps them: Expected `array` of at least length 11, got 6 - at"
    " `$[6][0]`; end it with that version, or let it run out an hour after it was admitted"
)


def as_an_older_version(raw):
    """What is kept, with limits that have six parts."""
    flag, expires, length = HEADER.unpack_from(raw)
    *about, limits, places = msgspec.json.decode(raw[HEADER.size : HEADER.size + length])
    told = msgspec.json.encode([*about, [limit[:6] for limit in limits], places])
    return HEADER.pack(flag, expires, len(told)) + told + raw[HEADER.size + length :]


@pytest.fixture
def old(redis_store, redis_server):
    """(reservation, a limiter that did not make it), as if the one that did had been an older version."""
    one, other = (
        Limiter(policy_from_settings(LIMITS), store=redis_store(prefix="older", clock=ManualClock())) for _ in range(2)
    )
    reservation = one.admit(ACME, {"tokens": 5}, reservation="mine").reservation
    key = next(redis_server.admin.scan_iter("older:*reservation:mine"))
    redis_server.admin.set(key, as_an_older_version(redis_server.admin.get(key)), keepttl=True)
    yield reservation, other
    redis_server.admin.delete(*redis_server.admin.scan_iter("older:*"))


@pytest.mark.parametrize("verb", ["settle", "renew", "release"])
def test_what_cannot_be_read_cannot_be_ended_and_says_so(old, verb):
    """However often it is tried; nothing is kept to be told again, and the store does not count as gone."""
    reservation, limiter = old
    for _ in range(4):
        receipt = getattr(limiter, verb)(reservation, *([{"tokens": 1}] if verb == "settle" else []))
        assert (receipt.status, receipt.reason) == ("not_held", TOLD)
    assert not limiter._store._owed
    after = limiter.admit(ACME, {"tokens": 1})
    assert (after.degraded, after.limits["rate"].remaining) == ("", 94)


def test_a_repeated_admission_that_cannot_be_read_fails_alone(old):
    """The limits' policy decides about this one, as often as it is repeated; others are counted."""
    reservation, limiter = old
    for number in range(4):
        again = limiter.admit(ACME, {"tokens": 5}, reservation=reservation)
        assert (again.status_code, again.degraded) == (503, TOLD.partition(";")[0])
        assert limiter.admit(ACME, {"tokens": 1}).limits["rate"].remaining == 94 - number


@given(st.binary(max_size=64), st.integers(0, 1), st.binary(max_size=16))
def test_whatever_lies_there_is_read_or_refused_in_a_sentence(told, flag, answer):
    """No other error comes out of any bytes, short or long."""
    for raw in (told, HEADER.pack(flag, 1.0, len(told)) + told + answer):
        with pytest.raises(StoreError, match="another version"):
            Kept.read(raw)
