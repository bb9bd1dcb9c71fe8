"""Public fakes: what this package's own tests use is yours too.

>>> from opsloop.event import Event
>>> with capture_events() as stream:
...     _ = stream.append([Event(ts_ns=0, event="log", message="hello")])
>>> [event.message for event in stream.query()]
['hello']
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opsloop.clock import ManualClock, SeededIds
from opsloop.stream import MemoryStream

__all__ = ["ManualClock", "MemoryStream", "SeededIds", "capture_events"]


@contextmanager
def capture_events() -> Iterator[MemoryStream]:
    """Yield an empty stream to hand in as a sink and to look into afterwards."""
    yield MemoryStream()
