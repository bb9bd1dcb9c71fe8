"""Limits on Redis against one bare script call, and against peers where they are installed.

    python benchmarks/rate_limit_redis.py [--url redis://host:6379]

Without a URL a redis-server of its own is started on loopback. Subjects are interleaved, the best of many short rounds
counts, and only the ratios mean something: they are to one EVALSHA of the simplest bucket through the same client.

Client and server each get a core of their own where there are two. A server on the client's core needs no waking, which
is half of a bare call: where that comes and goes, the best rounds of two subjects are not of one kind. With both on one
core, eight limits are about 1.9 times a bare call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator

import redis
import redis.asyncio

from opsloop.rate_limit import Context, Limiter, RedisStore, policy_from_settings
from opsloop.settings import LimitSettings

PLENTY = 10**9
TASKS = 64
ACME = Context(organisation="org", tenant="acme", key="k1", model="large")
TOKENS = {"tokens": 900}
BARE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + 1000
if full - now > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return 1
"""
Subject = Callable[[int], float]
"""Makes so many calls and returns the seconds that they took."""
AsyncSubject = Callable[[int], Awaitable[float]]


def rate(name: str, unit: str = "requests", scope: tuple[str, ...] = ("tenant",)) -> LimitSettings:
    return LimitSettings(id=name, lever="rate", amount=PLENTY, per="second", unit=unit, scope=scope)


def quota(name: str, per: str) -> LimitSettings:
    return LimitSettings(id=name, lever="quota", amount=10**15, per=per, unit="tokens")


def slots(name: str, scope: tuple[str, ...]) -> LimitSettings:
    return LimitSettings(id=name, lever="concurrency", amount=10**6, scope=scope)


def eight() -> tuple[LimitSettings, ...]:
    """Four buckets, two quotas, two sets of slots."""
    buckets = rate("rpm"), rate("tpm", "tokens"), rate("key", "requests", ("key",)), rate("model", "tokens", ("model",))
    return *buckets, quota("day", "day"), quota("month", "month"), slots("tenant", ("tenant",)), slots("all", ())


def ours(url: str, *limits: LimitSettings, settle: bool = False) -> Subject:
    store = RedisStore.from_url(url, deadline_seconds=5.0, prefix=f"bench{len(limits)}{settle}")
    limiter = Limiter(policy_from_settings(limits), store=store)

    def run(calls: int) -> float:
        began = time.perf_counter()
        held = []
        for _ in range(calls):
            decision = limiter.admit(ACME, TOKENS)
            if settle:
                limiter.settle(decision.reservation, {"tokens": 700})
            else:
                held.append(decision.reservation)
        seconds = time.perf_counter() - began
        for reservation in held:
            if reservation:
                limiter.settle(reservation, TOKENS)
        return seconds

    return run


def timed(call: Callable[[], object]) -> Subject:
    def run(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - began

    return run


def bare(url: str) -> Subject:
    client = redis.Redis.from_url(url)
    script = client.script_load(BARE)
    return timed(lambda: client.evalsha(script, 1, "bare", PLENTY))


def peer_limits(url: str, hits: int) -> Subject:
    from limits import RateLimitItemPerSecond
    from limits.storage import RedisStorage
    from limits.strategies import FixedWindowRateLimiter

    strategy, item = FixedWindowRateLimiter(RedisStorage(url)), RateLimitItemPerSecond(PLENTY)
    return timed(lambda: [strategy.hit(item, "acme", str(number)) for number in range(hits)])


def peer_throttled(url: str) -> Subject:
    from throttled import RateLimiterType, Throttled, rate_limiter, store

    quota_ = rate_limiter.per_sec(1_000_000, burst=1_000_000)
    throttle = Throttled(using=RateLimiterType.GCRA.value, quota=quota_, store=store.RedisStore(server=url))
    return timed(lambda: throttle.limit("acme"))


def subjects(url: str) -> dict[str, Subject]:
    made = {
        "one bare EVALSHA": bare(url),
        "opsloop, one rate": ours(url, rate("one")),
        "opsloop, eight limits": ours(url, *eight()),
        "opsloop, eight limits, admit + settle": ours(url, *eight(), settle=True),
    }
    peers: dict[str, Callable[[], Subject]] = {
        "limits, fixed window, one": lambda: peer_limits(url, 1),
        "limits, fixed window, four": lambda: peer_limits(url, 4),
        "throttled-py, GCRA, one": lambda: peer_throttled(url),
    }
    for name, make in peers.items():
        try:
            made[name] = make()
        except ImportError as missing:
            print(f"# {name}: {missing}")
    return made


async def gathered(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """Share the calls among the tasks; return the seconds that they all took."""

    async def work() -> None:
        for _ in range(max(1, calls // TASKS)):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return time.perf_counter() - began


def async_subjects(url: str) -> dict[str, AsyncSubject]:
    client = redis.asyncio.Redis.from_url(url)
    script = redis.Redis.from_url(url).script_load(BARE)
    made: dict[str, AsyncSubject] = {
        "redis.asyncio, one bare EVALSHA": lambda calls: gathered(
            lambda: client.evalsha(script, 1, "bare", PLENTY), calls
        )
    }
    requests = rate("a"), rate("b", "requests", ("key",)), rate("c", "requests", ("model",)), rate("d", "requests", ())
    for name, limits in {"opsloop, one rate": requests[:1], "opsloop, four rates": requests}.items():
        store = RedisStore.from_url(url, deadline_seconds=5.0, prefix=f"async{len(limits)}")
        limiter = Limiter(policy_from_settings(limits), store=store)
        made[name] = lambda calls, admit=limiter.admit_async: gathered(lambda: admit(ACME), calls)
    leased = RedisStore.from_url(url, deadline_seconds=5.0, prefix="leased", permits={"a": 100})
    admit = Limiter(policy_from_settings(requests[:1]), store=leased).admit_async
    made["opsloop, one rate, permits of 100"] = lambda calls: gathered(lambda: admit(ACME), calls)
    return made


async def measure_async(url: str, rounds: int) -> dict[str, float]:
    made = async_subjects(url)
    best = dict.fromkeys(made, float("inf"))
    for _ in range(rounds):
        for name, run in made.items():
            best[name] = min(best[name], await run(TASKS * 4) / (TASKS * 4))
    return best


def measure(url: str, rounds: int) -> dict[str, float]:
    made = subjects(url)
    best = dict.fromkeys(made, float("inf"))
    for _ in range(rounds):
        for name, run in made.items():
            best[name] = min(best[name], run(50) / 50)
    return best


def show(best: dict[str, float]) -> None:
    base = next(iter(best.values()))
    print(f"\n{'subject':42}{'us/call':>10}{'ratio':>8}")
    for name, seconds in best.items():
        print(f"{name:42}{seconds * 1e6:>10.0f}{seconds / base:>8.2f}")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a redis-server on a free port for as long as the block runs."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("no redis-server on PATH: install one, or name one with --url")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        apart(process.pid)
        try:
            client = redis.Redis(port=port)
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def apart(server_pid: int) -> None:
    """Give this process one core and the server the others, where the system can."""
    if hasattr(os, "sched_setaffinity") and len(cores := sorted(os.sched_getaffinity(0))) > 1:
        os.sched_setaffinity(server_pid, cores[1:])
        os.sched_setaffinity(0, cores[:1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="")
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    with contextlib.nullcontext(arguments.url) if arguments.url else server() as url:
        print("sequential calls")
        show(measure(url, arguments.rounds))
        print(f"\n{TASKS} asynchronous tasks")
        show(asyncio.run(measure_async(url, arguments.rounds)))


if __name__ == "__main__":
    main()
