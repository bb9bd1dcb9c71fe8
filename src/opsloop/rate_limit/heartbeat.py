"""The heartbeat: one thread that keeps the leases of running requests alive, and no others.

A thread and not a task, because a busy event loop would let the leases of healthy requests run out. It lives while
there is something to renew and ends when there is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

__all__ = ["Heartbeat"]


class Heartbeat:
    """Renews what it was given until it is told to stop. A reservation whose renewal is refused is dropped."""

    def __init__(self, renew: Callable[[Sequence[str]], Sequence[bool]]) -> None:
        """``renew(reservations)`` prolongs all and tells of each whether there was something to prolong."""
        self._renew = renew
        self._wake = threading.Condition()
        self._every: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def start(self, reservation: str, *, every_seconds: float) -> None:
        """Renew a reservation at least every so many seconds."""
        with self._wake:
            sooner = every_seconds < min(self._every.values(), default=0.0)
            self._every[reservation] = every_seconds
            if sooner:
                self._wake.notify()  # beats at once: cheaper than working out who is due when
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="opsloop-heartbeat", daemon=True)
                self._thread.start()

    def stop(self, reservation: str) -> None:
        """Renew it no more."""
        if reservation in self._every:  # most reservations never had a heartbeat, and waking nobody needs no lock
            with self._wake:
                self._every.pop(reservation, None)

    def beat(self) -> int:
        """Renew everything once, now; return how many were renewed."""
        with self._wake:
            reservations = list(self._every)
        alive = self._renew(reservations) if reservations else ()
        for reservation, held in zip(reservations, alive, strict=True):
            if not held:
                self.stop(reservation)
        return sum(alive)

    def __len__(self) -> int:
        """Return how many reservations are kept alive."""
        return len(self._every)

    def _run(self) -> None:
        try:
            while self._waits():
                self.beat()
        finally:
            with self._wake:
                if self._thread is threading.current_thread():  # a fault ended it: the next start begins anew
                    self._thread = None

    def _waits(self) -> bool:
        """Wait for the next beat; tell whether there is anything to renew."""
        with self._wake:
            if not self._every:
                self._thread = None
                return False
            self._wake.wait(min(self._every.values()))
            return True
