"""The runtime: the store, the group commit and the workers, opened and closed together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

from opsloop.clock import Clock, SystemClock
from opsloop.integrations.counters import SignalCounters
from opsloop.integrations.prometheus import SignalGauges
from opsloop.server.live import Live
from opsloop.server.tail import TailStreams
from opsloop.server.workers import Workers
from opsloop.settings import Settings
from opsloop.store import ClickHouseStream, GroupCommit
from opsloop.store.damage import warn_of_damage

__all__ = ["Runtime"]


class Runtime:
    """Everything behind the port. Use it in ``with``; :meth:`start` begins the background evaluation.

    Raises :class:`opsloop.errors.StoreError` when the store cannot be opened.
    """

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, database: ClickHouseStream | None = None
    ) -> None:
        """Open the store that the settings name, or use the one handed in."""
        self.settings = settings
        self.clock = clock or SystemClock()
        self.database = database or ClickHouseStream(settings.server.store)
        warn_of_damage(self.database)
        self.commits = GroupCommit(
            self.database,
            batch_rows=settings.server.batch_rows,
            batch_milliseconds=settings.server.batch_milliseconds,
            queue_rows=settings.server.queue_rows,
        )
        self.counters: Counter[str] = Counter()
        self.signal_counters = SignalCounters(settings, self.clock)
        self.signal_gauges = SignalGauges(self.database, settings, self.clock)
        self.database.listeners.append(lambda stored: self.signal_counters.add(stored.events, rows=stored.rows))
        self.last_rejection = ""
        self.live = Live()
        self.tails = TailStreams(self.database, self.clock)
        self.workers: Workers | None = None
        """There once :meth:`start` was called: the workers find their state in what is stored by then."""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Evaluate every ``evaluate_seconds`` in the background; raises :class:`ConfigError` for a wrong rule."""
        workers = self.workers = Workers(self.database, self.settings, self.clock)
        self.run_in_background("opsloop-evaluate", lambda stop: self._evaluate(workers, stop))

    def run_in_background(self, name: str, work: Callable[[threading.Event], object]) -> None:
        """Run ``work(stop)`` in a thread that is joined on closing; it has to return soon after ``stop`` is set."""
        thread = threading.Thread(target=work, args=(self._stop,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _evaluate(self, workers: Workers, stop: threading.Event) -> None:
        while not stop.wait(self.settings.server.evaluate_seconds):
            workers.enforce_retention()
            began_ns = self.clock.now_ns()
            workers.tick()
            self.live.tick(began_ns)  # what is stored since then may not be in it

    def end_streams(self) -> None:
        """End what is streamed to open pages and readers, so that the server can stop."""
        self.live.close()
        self.tails.close()

    def close(self) -> None:
        """Stop the workers, commit what waits, close the store."""
        self._stop.set()
        self.end_streams()
        for thread in self._threads:
            thread.join()
        self.commits.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
