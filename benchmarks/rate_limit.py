"""Admissions per second, bytes per key and slow calls, in process, with the peers that are installed beside us.

    python benchmarks/rate_limit.py [--quick]

One thread; all subjects take turns in short rounds and the best round of each counts, so that a busy machine disturbs
little. Compare the ratios, not the machines. The table is Markdown.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import itertools
import os
import platform
import time
import tracemalloc
from collections.abc import Callable

from rate_limit_peers import PEERS, PLENTY, Run

from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import LimitSettings

ROUND_SECONDS = 0.008
MANY = 100_000
PACKAGES = ("limits", "throttled-py", "pyrate-limiter", "aiolimiter")
BARE, ONE, FOUR, SETTLED = (
    "bare GCRA: a dictionary, no lock, no reasons",
    "**opsloop, one limit**",
    "**opsloop, four limits at once**",
    "**opsloop, rate + quota + slots, settled** (2 calls)",
)


def bare(amount: int) -> Run:
    """The arithmetic alone: an integer GCRA in nanoseconds on one dictionary."""
    state: dict[str, int] = {}
    weight, capacity = (1000, 10**9) if amount == PLENTY else (3600 * 10**9 // amount, 3600 * 10**9)

    def run(keys: list) -> None:
        for key in keys:
            now = time.monotonic_ns()
            want = max(state.get(key, 0), now) + weight
            if want - now <= capacity:
                state[key] = want

    return run


def rate(name: str, amount: int, *scope: str) -> LimitSettings:
    return LimitSettings(
        id=name, lever="rate", amount=amount, per="second" if amount == PLENTY else "hour", scope=scope or ("tenant",)
    )


def admitting(*limits: LimitSettings) -> Run:
    admit = Limiter(policy_from_settings(limits)).admit

    def run(keys: list) -> None:
        for context in keys:
            admit(context)

    return run


def one(amount: int) -> Run:
    return admitting(rate("a", amount))


def four(amount: int) -> Run:
    return admitting(
        rate("a", amount), rate("b", PLENTY, "key"), rate("c", PLENTY, "tenant", "key"), rate("d", PLENTY, "model")
    )


def settled(amount: int) -> Run:
    """A whole request: reserve an estimate on a rate, a quota and slots, then say what it really took."""
    quota = LimitSettings(id="q", lever="quota", amount=10**15, per="day", unit="tokens")
    slots = LimitSettings(id="s", lever="concurrency", amount=64)
    limiter = Limiter(policy_from_settings([rate("a", amount), quota, slots]))
    estimate, actual = {"tokens": 900}, {"tokens": 700}

    def run(keys: list) -> None:
        admit, settle = limiter.admit, limiter.settle
        for context in keys:
            settle(admit(context, estimate).reservation, actual)

    return run


OURS: dict[str, Callable[[int], Run]] = {ONE: one, FOUR: four, SETTLED: settled}


def named(name: str, count: int) -> list:
    """So many keys as the subject takes them."""
    texts = [f"tenant-{n}" for n in range(count)]
    return [Context(tenant=text, key=text, model="large") for text in texts] if name in OURS else texts


def installed() -> dict[str, Callable[[int], Run]]:
    found = {BARE: bare, **OURS}
    for name, make in PEERS.items():
        try:
            make(PLENTY)
        except ImportError as missing:
            print(f"{name} is left out: {missing}")
        else:
            found[name] = make
    return found


class Case:
    """One subject in one situation: the keys that it is asked for, over and over, and its best time per call."""

    def __init__(self, run: Run, keys: list, *, warm: bool) -> None:
        self.run, self.keys, self.best = run, itertools.cycle(keys), float("inf")
        if warm:
            run(keys)
        self.calls = 100
        self.calls = max(1, int(ROUND_SECONDS / self.round()))

    def round(self) -> float:
        keys = list(itertools.islice(self.keys, self.calls))
        began = time.perf_counter()
        self.run(keys)
        each = (time.perf_counter() - began) / len(keys)
        self.best = min(self.best, each)
        return each


def shuffled(keys: list) -> list:
    """Every key once, neighbours far apart."""
    return [keys[n * 7919 % len(keys)] for n in range(len(keys))]


def percentiles(run: Run, keys: list, calls: int) -> list[float]:
    """The 50th, 99th and 99.9th percentile of single calls, in microseconds of processor time: nobody else's turns."""
    singles = [[key] for key in itertools.islice(itertools.cycle(keys), calls)]
    times: list[int] = []
    _keep()
    for single in singles:
        began = time.thread_time_ns()
        run(single)
        times.append(time.thread_time_ns() - began)
    times.sort()
    return [times[int((len(times) - 1) * share)] / 1000 for share in (0.5, 0.99, 0.999)]


def _keep() -> None:
    """Take what is there out of the garbage collector's sight: a subject pays for its own objects, not for all keys."""
    gc.collect()
    gc.freeze()


def bytes_per_key(name: str, make: Callable[[int], Run], keys: int) -> float:
    """What a subject keeps for a key that had one hit; the keys' own text and context not counted."""
    run, kept = make(10), named(name, keys)
    gc.collect()
    tracemalloc.start()
    run(kept)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / keys


def header(load: tuple[float, float, float]) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _has(name))
    return (
        f"CPython {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load {load[0]:.1f} before "
        f"and {os.getloadavg()[0]:.1f} after; {versions}"
    )


def _has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds and of the keys")
    quick = parser.parse_args().quick
    load, rounds, many = os.getloadavg(), 8 if quick else 40, MANY // 10 if quick else MANY
    subjects = installed()
    cases: dict[tuple[str, str], Case] = {}
    spread: dict[str, tuple[Run, list]] = {}
    for name, make in subjects.items():
        cases[name, "admit"] = Case(make(PLENTY), named(name, 1), warm=True)
        if name != SETTLED:  # a refused request has nothing to settle
            cases[name, "reject"] = Case(make(1), named(name, 1), warm=True)
        spread[name] = (make(PLENTY), shuffled(named(name, many)))
        cases[name, "many"] = Case(*spread[name], warm=True)
    _keep()
    for _ in range(rounds):
        for case in cases.values():
            case.round()
    slow = {name: percentiles(*at, many // 2) for name, at in spread.items() if "(async)" not in name}
    size = {name: bytes_per_key(name, make, many // 4) for name, make in subjects.items()}

    print(header(load))
    print(f"\n| subject | admit/s | admit | reject | {many // 1000}k keys | bytes/key | p50 CPU µs | p99 | p99.9 |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in subjects:
        times = [cases[name, kind].best / cases[BARE, kind].best if (name, kind) in cases else None for kind in KINDS]
        cells = ["–" if each is None else f"{each:.1f}x" for each in times]
        tail = " | ".join(f"{each:.0f}" for each in slow[name]) if name in slow else "– | – | –"  # no single calls
        print(f"| {name} | {1 / cases[name, 'admit'].best:,.0f} | {' | '.join(cells)} | {size[name]:.0f} | {tail} |")
    ours, peers = cases[ONE, "admit"].best, [name for name in subjects if name in PEERS]
    for name in sorted(peers, key=lambda name: cases[name, "admit"].best):
        print(f"one limit is {cases[name, 'admit'].best / ours:.1f}x as fast as {name}")


KINDS = ("admit", "reject", "many")

if __name__ == "__main__":
    main()
