"""opsloop: find what broke, page once, keep it fixed.

The names here are the SDK's few public ones. They load on first use, so ``import opsloop`` costs almost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsloop.lazy import lazy

if TYPE_CHECKING:
    from opsloop.clock import Clock, ManualClock, SystemClock
    from opsloop.errors import OpsloopError
    from opsloop.event import Event
    from opsloop.rate_limit import Context, Limiter, policy_from_settings
    from opsloop.settings import Settings, load_settings
    from opsloop.stream import MemoryStream
    from opsloop.structured_logging import Logger, correlate, log, query
    from opsloop.verdict import Reading, Verdict

__all__ = [
    "Clock",
    "Context",
    "Event",
    "Limiter",
    "Logger",
    "ManualClock",
    "MemoryStream",
    "OpsloopError",
    "Reading",
    "Settings",
    "SystemClock",
    "Verdict",
    "correlate",
    "load_settings",
    "log",
    "policy_from_settings",
    "query",
]

__version__ = "0.1.0"

_HOMES = {
    "Clock": "clock",
    "Context": "rate_limit",
    "Event": "event",
    "Limiter": "rate_limit",
    "Logger": "structured_logging",
    "ManualClock": "clock",
    "MemoryStream": "stream",
    "OpsloopError": "errors",
    "Reading": "verdict",
    "Settings": "settings",
    "SystemClock": "clock",
    "Verdict": "verdict",
    "correlate": "structured_logging",
    "load_settings": "settings",
    "log": "structured_logging",
    "policy_from_settings": "rate_limit",
    "query": "structured_logging",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
