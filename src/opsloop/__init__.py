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
    from opsloop.settings import Settings, load_settings
    from opsloop.stream import MemoryStream
    from opsloop.verdict import Reading, Verdict

__all__ = [
    "Clock",
    "Event",
    "ManualClock",
    "MemoryStream",
    "OpsloopError",
    "Reading",
    "Settings",
    "SystemClock",
    "Verdict",
    "load_settings",
]

__version__ = "0.1.0"

_HOMES = {
    "Clock": "clock",
    "Event": "event",
    "ManualClock": "clock",
    "MemoryStream": "stream",
    "OpsloopError": "errors",
    "Reading": "verdict",
    "Settings": "settings",
    "SystemClock": "clock",
    "Verdict": "verdict",
    "load_settings": "settings",
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
