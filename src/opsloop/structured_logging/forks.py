"""Sinks over ``os.fork``: each event is written once, by the process that logged it, and no child inherits a held lock.

A fork waits (at most a second for each sink) until no write is under way and what a buffer holds is written. The child
starts with locks of its own.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import Final, Protocol

__all__ = ["Forking", "survive_forks"]

WAIT_SECONDS: Final = 1.0
_NUMBERS: Final = itertools.count()


class Forking(Protocol):
    """A sink that a fork has to wait for."""

    write_lock: threading.Lock
    """Held while it writes."""

    def before_fork(self) -> None:
        """Write what would be written twice otherwise: in the parent, with the lock held."""
        ...

    def reset(self) -> None:
        """Start anew, with locks of its own: in the child."""
        ...


_LIVE: Final[weakref.WeakValueDictionary[int, Forking]] = weakref.WeakValueDictionary()
_HELD: Final[list[threading.Lock]] = []
"""The locks that a fork under way holds."""


def survive_forks(sink: Forking) -> None:
    """Take care of a sink for as long as it lives."""
    _LIVE[next(_NUMBERS)] = sink


def _before() -> None:
    for sink in reversed(list(_LIVE.values())):  # one that writes to another was made after it, and locks first
        lock = sink.write_lock
        if lock.acquire(timeout=WAIT_SECONDS):
            _HELD.append(lock)
            sink.before_fork()


def _after_in_parent() -> None:
    while _HELD:
        _HELD.pop().release()


def _after_in_child() -> None:
    _HELD.clear()
    for sink in list(_LIVE.values()):
        sink.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
