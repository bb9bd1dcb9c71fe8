"""The gauges of the model server that the bot shares with others: queue, running requests, key-value cache.

One reading every fifteen seconds. At rest the cache follows the day's load and hardly anything waits; when the
self-hosted model is slow both fill up, which is what makes a full cache sick rather than efficient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from opsloop.clock import seeded
from opsloop.event import Event
from opsloop.sim.faults import Fault, share_of
from opsloop.sim.spans import ENVIRONMENT
from opsloop.sim.traffic import MODELS, SLOT_NS

__all__ = ["gauges"]

HOSTED: Final = "llama-3.3-70b"
SERVER: Final = "vllm"
QUEUE_LIMIT: Final = 16
RUNNING_LIMIT: Final = 64
CACHE_LIMIT: Final = 1.0
READINGS: Final = 4
"""In each minute slot, the last at its end."""


def gauges(seed: int, slot: int, *, load: float, faults: Sequence[Fault] = ()) -> Iterator[Event]:
    """Yield the readings of a minute slot; ``load`` is the traffic as a share of the peak."""
    dice = seeded(f"{seed}:{slot}:gauges")
    for number in range(1, READINGS + 1):
        ts_ns = slot * SLOT_NS + number * SLOT_NS // READINGS
        noise = [dice.gauss(0.0, 1.0) for _ in range(3)]
        slowness = share_of(faults, "slow_model", ts_ns, HOSTED, base=1.0)
        yield from _reading(ts_ns, noise, load=load, pressure=min(1.0, (slowness - 1.0) / 2.0))


def _reading(ts_ns: int, noise: Sequence[float], *, load: float, pressure: float) -> Iterator[Event]:
    waiting = max(0, round(1.2 * load + 0.8 * noise[0] + 1.5 * QUEUE_LIMIT * pressure))
    running = max(1, min(RUNNING_LIMIT, round(6 + 12 * load + 1.5 * noise[1] + 46 * pressure)))
    cache = min(0.99, max(0.02, 0.22 + 0.32 * load + 0.02 * noise[2] + 0.5 * pressure))
    queue = {"queue": "vllm:num_requests_waiting"}
    for name, value, limit, unit, needs in (
        ("vllm:num_requests_waiting", waiting, QUEUE_LIMIT, "requests", {}),
        ("vllm:num_requests_running", running, RUNNING_LIMIT, "requests", {}),
        ("vllm:kv_cache_usage_perc", round(cache, 4), CACHE_LIMIT, "ratio", queue),
    ):
        yield Event(
            ts_ns=ts_ns,
            event="gauge",
            event_id=f"gauge:{SERVER}:{name}:{ts_ns}",
            service=SERVER,
            environment=ENVIRONMENT,
            model=HOSTED,
            provider=MODELS[HOSTED].provider,
            attributes={"name": name, "value": value, "limit": limit, "unit": unit, **needs},
        )
