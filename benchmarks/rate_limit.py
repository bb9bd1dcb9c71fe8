"""Admissions per second and bytes per key, in process, with peers beside us where they are installed.

    python benchmarks/rate_limit.py

One thread, subjects interleaved, the best of many short rounds, so that a busy machine disturbs little. Compare the
ratios, not the machines.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable

from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import LimitSettings

ROUND_SECONDS = 0.01
PLENTY = 10**9
Subject = Callable[[int], None]


def ours(*limits: LimitSettings) -> Subject:
    limiter = Limiter(policy_from_settings(limits))
    context = Context(tenant="acme", key="k1", model="large")

    def run(calls: int) -> None:
        admit = limiter.admit
        for _ in range(calls):
            admit(context)

    return run


def rate(name: str, amount: int = PLENTY, *scope: str) -> LimitSettings:
    return LimitSettings(id=name, lever="rate", amount=amount, per="second", scope=scope or ("tenant",))


def four() -> tuple[LimitSettings, ...]:
    return rate("a"), rate("b", PLENTY, "key"), rate("c", PLENTY, "tenant", "key"), rate("d", PLENTY, "model")


def mixed() -> tuple[LimitSettings, ...]:
    quota = LimitSettings(id="q", lever="quota", amount=PLENTY, per="day", unit="tokens")
    return rate("a"), quota


def settled() -> Subject:
    """Admit with an estimate over a rate, a quota and slots, and settle: a whole request."""
    limits = (*mixed(), LimitSettings(id="s", lever="concurrency", amount=64))
    limiter = Limiter(policy_from_settings(limits))
    context = Context(tenant="acme")

    def run(calls: int) -> None:
        for _ in range(calls):
            limiter.settle(limiter.admit(context, {"tokens": 900}).reservation, {"tokens": 700})

    return run


def bare() -> Subject:
    """The arithmetic alone: a scaled-integer GCRA on one dictionary, without lock, reasons or scopes."""
    state: dict[str, int] = {}
    weight, capacity = 1, PLENTY

    def run(calls: int) -> None:
        for _ in range(calls):
            now = time.monotonic_ns()
            want = max(state.get("acme", 0), now) + weight
            if want - now <= capacity:
                state["acme"] = want

    return run


def peer_limits() -> Subject:
    from limits import RateLimitItemPerSecond
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter

    strategy, item = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(PLENTY)

    def run(calls: int) -> None:
        for _ in range(calls):
            strategy.hit(item, "acme")

    return run


def peer_throttled() -> Subject:
    from throttled import RateLimiterType, Throttled, rate_limiter

    throttle = Throttled(using=RateLimiterType.GCRA.value, quota=rate_limiter.per_sec(1_000_000, burst=1_000_000))

    def run(calls: int) -> None:
        for _ in range(calls):
            throttle.limit("acme")

    return run


def peer_pyrate() -> Subject:
    from pyrate_limiter import InMemoryBucket, Rate
    from pyrate_limiter import Limiter as PyrateLimiter

    limiter = PyrateLimiter(InMemoryBucket([Rate(PLENTY, 1000)]))

    def run(calls: int) -> None:
        for _ in range(calls):
            limiter.try_acquire("acme")

    return run


def peer_aiolimiter() -> Subject:
    from aiolimiter import AsyncLimiter

    def run(calls: int) -> None:
        async def main() -> None:
            limiter = AsyncLimiter(PLENTY, 1)
            for _ in range(calls):
                await limiter.acquire()

        asyncio.run(main())

    return run


def subjects() -> dict[str, Subject]:
    made = {
        "bare integer GCRA (no lock, no reasons)": bare(),
        "opsloop, one rate": ours(rate("a")),
        "opsloop, one rate, rejected": ours(rate("a", 1)),
        "opsloop, four rates": ours(*four()),
        "opsloop, rate + quota, reserved": ours(*mixed()),
        "opsloop, rate + quota + slots, settled": settled(),
    }
    for name, make in {
        "limits, fixed window": peer_limits,
        "throttled-py, GCRA": peer_throttled,
        "pyrate-limiter, log": peer_pyrate,
        "aiolimiter": peer_aiolimiter,
    }.items():
        try:
            made[name] = make()
        except ImportError:
            print(f"# {name}: not installed")
    return made


def seconds_per_call(run: Subject) -> float:
    calls = 200
    began = time.perf_counter()
    run(calls)
    each = (time.perf_counter() - began) / calls
    calls = max(1, int(ROUND_SECONDS / each))
    began = time.perf_counter()
    run(calls)
    return (time.perf_counter() - began) / calls


def bytes_per_key(keys: int = 50_000) -> float:
    hourly = LimitSettings(id="a", lever="rate", amount=1, per="hour")
    limiter = Limiter(policy_from_settings([hourly]))
    contexts = [Context(tenant=f"tenant-{n}") for n in range(keys)]
    gc.collect()
    tracemalloc.start()
    for context in contexts:
        limiter.admit(context)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / keys


def slowest_of(keys: int = 100_000, calls: int = 100_000) -> float:
    """The 99.9th percentile of one admit among many keys, in milliseconds: no call pays for a sweep of all."""
    limiter = Limiter(policy_from_settings([rate("a", 1000)]))
    contexts = [Context(tenant=f"tenant-{n}") for n in range(keys)]
    times = []
    for number in range(calls):
        context = contexts[number * 7919 % keys]
        began = time.perf_counter_ns()
        limiter.admit(context)
        times.append(time.perf_counter_ns() - began)
    return sorted(times)[int(len(times) * 0.999)] / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    made = subjects()
    best = dict.fromkeys(made, float("inf"))
    for _ in range(rounds):
        for name, run in made.items():
            best[name] = min(best[name], seconds_per_call(run))
    base = best["bare integer GCRA (no lock, no reasons)"]
    print(f"{'subject':42}{'calls/s':>12}{'x bare':>9}")
    for name, seconds in best.items():
        print(f"{name:42}{1 / seconds:>12,.0f}{seconds / base:>9.1f}")
    print(f"\nbytes per key, one rate: {bytes_per_key():.0f}")
    print(f"99.9th percentile at 100,000 keys: {slowest_of():.3f} ms")


if __name__ == "__main__":
    main()
