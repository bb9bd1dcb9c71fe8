"""Where a process puts its own events: JSON lines on a stream or in a file, or several places at once."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from opsloop.errors import OpsloopError, StoreError
from opsloop.event import FIELDS, Event, encode_event
from opsloop.stream import Sink
from opsloop.structured_logging.forks import survive_forks

__all__ = ["RESERVED", "JsonLinesSink", "Tee", "flat_line"]

RESERVED: Final = frozenset(FIELDS) | {"ts", "timestamp", "time", "@timestamp", "level", "levelname", "msg"}
"""Names that a reader of JSON lines takes for columns: an attribute of that name stays under ``attributes``."""
_ENCODE: Final = msgspec.json.Encoder().encode


def flat_line(event: Event) -> bytes:
    """Return an event as one flat JSON object without a line end: its attributes stand beside its columns.

    :func:`opsloop.event.decode_event` reads it back as the same event.

    >>> flat_line(Event(ts_ns=1, event="log", attributes={"words": 5, "level": "high"}))
    b'{"ts_ns":1,"event":"log","attributes":{"level":"high"},"words":5}'
    """
    attributes = event.attributes
    if not attributes:
        return encode_event(event)
    if RESERVED.isdisjoint(attributes):
        return encode_event(event.replace(attributes={}))[:-1] + b"," + _ENCODE(attributes)[1:]
    nested = {name: value for name, value in attributes.items() if name in RESERVED}
    flat = {name: value for name, value in attributes.items() if name not in RESERVED}
    line = encode_event(event.replace(attributes=nested))
    return line[:-1] + b"," + _ENCODE(flat)[1:] if flat else line


class JsonLinesSink:
    r"""Writes one flat JSON object per line, a batch in one call; UTF-8, whatever the locale. Safe between threads.

    ``file`` is an open stream, text or binary, or the path of a file to append to. Each write is flushed, so that a
    crash loses nothing; with ``flush=False`` the stream's own buffer gathers lines until it is full, ``close`` or the
    exit, and a killed process loses what is in it.

    >>> import io
    >>> out = io.StringIO()
    >>> JsonLinesSink(out).append([Event(ts_ns=1, event="log", message="hello", attributes={"words": 5})])
    1
    >>> out.getvalue()
    '{"ts_ns":1,"event":"log","message":"hello","words":5}\n'
    """

    def __init__(self, file: IO[str] | IO[bytes] | str | Path, *, flush: bool = True) -> None:
        """Open the path, or take the stream as it is; raises ``OSError`` when the path cannot be opened."""
        self._file: Any = Path(file).open("ab") if isinstance(file, str | Path) else file  # noqa: SIM115 - it lives on
        self._flush = flush
        self._bytes: Any = self._file if _binary(self._file) else getattr(self._file, "buffer", None)
        """The binary stream that lines go to, ``None`` for one that takes texts only."""
        own: Any = None if flush or self._bytes is None or isinstance(self._bytes, RawIOBase) else self._bytes.write
        self.write: Callable[[bytes], Any] = own or self._write
        """Writes the bytes of whole lines. A buffered stream's own method where that is enough: it is atomic."""
        self.reset()
        survive_forks(self)
        if not flush:
            atexit.register(self.before_fork)

    def append(self, events: Iterable[Event]) -> int:
        """Write events; return how many. Raises ``OSError`` or ``ValueError`` when the stream does."""
        lines = [flat_line(event) for event in events]
        if lines:
            self.write(b"\n".join((*lines, b"")))
        return len(lines)

    def before_fork(self) -> None:
        """Write what the stream's own buffer holds, where that is wanted only then: before a fork, and at the exit."""
        if not self._flush and not self._file.closed:
            with suppress(OSError, ValueError):
                self._file.flush()

    def reset(self) -> None:
        """Take a lock of its own: in the beginning, and in a forked child."""
        self.write_lock = threading.Lock()

    def _write(self, data: bytes) -> None:
        file, stream = self._file, self._bytes
        with self.write_lock:
            if stream is None:
                file.write(data.decode())
            else:
                if stream is not file:  # a text stream over bytes: what print() left in it comes first
                    file.flush()
                _write_whole(stream, data)
                stream.flush()
            if self._flush and stream is not file:
                file.flush()

    def close(self) -> None:
        """Close the file."""
        atexit.unregister(self.before_fork)
        with self.write_lock:
            self._file.close()


class Tee:
    """Appends events to several sinks; one that fails does not keep them from the others.

    >>> from opsloop.stream import MemoryStream
    >>> left, right = MemoryStream(), MemoryStream()
    >>> Tee(left, right).append([Event(ts_ns=1, event="log")]), len(left), len(right)
    (1, 1, 1)
    """

    def __init__(self, *sinks: Sink) -> None:
        """Append to these, in this order."""
        self._sinks = sinks

    def append(self, events: Iterable[Event]) -> int:
        """Append everywhere; return the least count. Raises :class:`StoreError` with the reasons when some failed."""
        batch = list(events)
        counts: list[int] = []
        reasons: list[str] = []
        for sink in self._sinks:
            try:
                counts.append(sink.append(batch))
            except (OpsloopError, OSError, RuntimeError, TypeError, ValueError) as cause:
                reasons.append(f"{type(cause).__name__}: {cause}")
        if reasons:
            raise StoreError("; ".join(reasons))
        return min(counts, default=0)


def _write_whole(stream: Any, data: bytes) -> None:
    """Write all of it: a raw stream, such as standard output under ``python -u``, may take a part at a time."""
    taken = stream.write(data)
    while isinstance(stream, RawIOBase) and taken != len(data):
        if not taken:
            raise BlockingIOError("the stream takes nothing now")
        data = data[taken:]
        taken = stream.write(data)


def _binary(file: Any) -> bool:
    return "b" in getattr(file, "mode", "") or not hasattr(file, "encoding")
