"""The other in-process limiters of Python, each as its documentation tells a service to call it: one key, one hit.

A maker takes how many hits a key may have (per second when plenty, per hour when few) and returns a function that hits
each key of a list once. A maker raises ImportError where its package is not installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Run = Callable[[list], None]
PLENTY = 10**6


def limits_fixed(amount: int) -> Run:
    from limits.strategies import FixedWindowRateLimiter

    return _limits(FixedWindowRateLimiter, amount)


def limits_moving(amount: int) -> Run:
    from limits.strategies import MovingWindowRateLimiter

    return _limits(MovingWindowRateLimiter, amount)


def limits_sliding(amount: int) -> Run:
    from limits.strategies import SlidingWindowCounterRateLimiter

    return _limits(SlidingWindowCounterRateLimiter, amount)


def _limits(strategy: Callable, amount: int) -> Run:
    from limits import RateLimitItemPerHour, RateLimitItemPerSecond
    from limits.storage import MemoryStorage

    hit = strategy(MemoryStorage()).hit
    item = (RateLimitItemPerSecond if amount == PLENTY else RateLimitItemPerHour)(amount)

    def run(keys: list) -> None:
        for key in keys:
            hit(item, key)

    return run


def throttled_gcra(amount: int) -> Run:
    return _throttled("gcra", amount)


def throttled_bucket(amount: int) -> Run:
    return _throttled("token_bucket", amount)


def _throttled(using: str, amount: int) -> Run:
    from throttled import MemoryStore, Throttled, rate_limiter

    quota = (rate_limiter.per_sec if amount == PLENTY else rate_limiter.per_hour)(amount, burst=amount)
    hit = Throttled(using=using, quota=quota, store=MemoryStore(options={"MAX_SIZE": 10**6})).limit

    def run(keys: list) -> None:
        for key in keys:
            hit(key)

    return run


def pyrate_log(amount: int) -> Run:
    from pyrate_limiter import InMemoryBucket

    return _pyrate(InMemoryBucket, amount)


def pyrate_gcra(amount: int) -> Run:
    from pyrate_limiter import GCRA, StateBucket

    return _pyrate(lambda rates: StateBucket(rates, algorithm=GCRA()), amount)


def _pyrate(make: Callable, amount: int) -> Run:
    from pyrate_limiter import BucketFactory, Limiter, MonotonicClock, Rate, RateItem

    clock, rates = MonotonicClock(), [Rate(amount, 1000 if amount == PLENTY else 3_600_000)]

    class PerKey(BucketFactory):
        """A bucket per key, as its README has it, without the thread that trims idle ones."""

        def __init__(self) -> None:
            self.kept: dict = {}

        def wrap_item(self, name: str, weight: int = 1) -> RateItem:
            return RateItem(name, clock.now(), weight=weight)

        def get(self, item: RateItem) -> object:
            bucket = self.kept.get(item.name)
            if bucket is None:
                bucket = self.kept[item.name] = make(rates)
            return bucket

    limiter = Limiter(PerKey())

    def run(keys: list) -> None:
        hit = limiter.try_acquire
        for key in keys:
            hit(key, blocking=False)

    return run


def aiolimiter(amount: int) -> Run:
    """One limiter per key in a dictionary; a refusal is its has_capacity(), since acquire() waits instead."""
    from aiolimiter import AsyncLimiter

    loop = asyncio.new_event_loop()
    kept: dict[str, AsyncLimiter] = {}

    async def hit_all(keys: list) -> None:
        for key in keys:
            limiter = kept.get(key)
            if limiter is None:
                limiter = kept[key] = AsyncLimiter(amount, 1 if amount == PLENTY else 3600)
            if amount == PLENTY or limiter.has_capacity():
                await limiter.acquire()

    return lambda keys: loop.run_until_complete(hit_all(keys))


PEERS: dict[str, Callable[[int], Run]] = {
    "aiolimiter (async)": aiolimiter,
    "limits, fixed window": limits_fixed,
    "limits, moving window": limits_moving,
    "limits, sliding counter": limits_sliding,
    "throttled-py, GCRA": throttled_gcra,
    "throttled-py, token bucket": throttled_bucket,
    "pyrate-limiter, GCRA": pyrate_gcra,
    "pyrate-limiter, log": pyrate_log,
}
