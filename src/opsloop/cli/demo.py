"""``opsloop demo``: the five labs back to back, offline."""

from __future__ import annotations

import runpy
from pathlib import Path

from opsloop.errors import ConfigError

__all__ = ["demo"]


def demo() -> int:
    """Run the five labs back to back: logs, signals, quality, limits, and the loop that they close.

    Offline, in seconds, without a key, a server or a file; the same bytes on every run.
    """
    runpy.run_path(str(_lab()), run_name="__main__")
    return 0


def _lab() -> Path:
    """Return labs/demo.py of this installation: inside a wheel, or beside ``src`` in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "labs", package.parents[1] / "labs"):
        if (folder / "demo.py").is_file():
            return folder / "demo.py"
    raise ConfigError("this installation has no labs", fix="install opsloop from its wheel or a checkout")
