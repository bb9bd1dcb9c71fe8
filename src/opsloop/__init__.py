"""opsloop: find what broke, page once, keep it fixed.

The names here are the SDK's few public ones. They load on first use, so ``import opsloop`` costs almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'opsloop' has no attribute {name!r}")
    value = getattr(import_module(f"opsloop.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
