"""The file receiver: one JSON line per notice, the default that needs no network."""

from __future__ import annotations

from pathlib import Path

import msgspec

from opsloop.alerting.notice import Notice
from opsloop.clock import utc

__all__ = ["line", "write"]


def line(notice: Notice) -> bytes:
    """Return the notice as one JSON object and a line end, with its time for people first."""
    return msgspec.json.encode({"at": utc(notice.at_ns), **msgspec.to_builtins(notice)}) + b"\n"


def write(path: str, notice: Notice) -> None:
    """Append the notice to a file, in one write, making its folder. Raises ``OSError``."""
    target = Path(path).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab") as file:
        file.write(line(notice))
