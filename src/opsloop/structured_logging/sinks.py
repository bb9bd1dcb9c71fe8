"""Where a process puts its own events: JSON lines on a stream or in a file."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from opsloop.event import Event, encode_event

__all__ = ["JsonLinesSink"]


class JsonLinesSink:
    r"""Writes one JSON object per line, a whole batch in one call; UTF-8, whatever the locale. Safe between threads.

    ``file`` is an open stream, text or binary, or the path of a file to append to.

    >>> import io
    >>> out = io.StringIO()
    >>> JsonLinesSink(out).append([Event(ts_ns=1, event="log", message="hello")])
    1
    >>> out.getvalue()
    '{"ts_ns":1,"event":"log","message":"hello"}\n'
    """

    def __init__(self, file: IO[str] | IO[bytes] | str | Path) -> None:
        """Open the path, or take the stream as it is; raises ``OSError`` when the path cannot be opened."""
        self._lock = threading.Lock()
        self._file: Any = Path(file).open("ab") if isinstance(file, str | Path) else file  # noqa: SIM115 - it lives on

    def append(self, events: Iterable[Event]) -> int:
        """Write and flush events; return how many. Raises ``OSError`` or ``ValueError`` when the stream does."""
        lines = [encode_event(event) for event in events]
        if not lines:
            return 0
        data = b"\n".join((*lines, b""))
        with self._lock:
            raw = getattr(self._file, "buffer", None)
            if raw is not None:  # a text stream over bytes: what print() left in it comes first
                self._file.flush()
                raw.write(data)
                raw.flush()
            else:
                self._file.write(data if _binary(self._file) else data.decode())
                self._file.flush()
        return len(lines)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def _binary(file: Any) -> bool:
    return "b" in getattr(file, "mode", "") or not hasattr(file, "encoding")
