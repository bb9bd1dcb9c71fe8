"""The loop's turn: score, read the signals, judge the alerts, open incidents, drop what is too old.

Each room's worker reads events from the store and writes events into it; this file only calls them in order and hands
the readings of one instant to alerting, so that all votes of a composite come from one evaluation. A worker that fails
does not stop the others: its failure is counted, shown, and written as an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from opsloop.alerting.worker import AlertWorker
from opsloop.clock import Clock
from opsloop.dashboard.worker import SignalWorker
from opsloop.errors import StoreError
from opsloop.event import Event
from opsloop.improvement.worker import IncidentWorker
from opsloop.online_eval.worker import EvalWorker
from opsloop.settings import Settings
from opsloop.store import ClickHouseStream
from opsloop.store.retention import apply_retention, drop_old_days
from opsloop.store.rolled import roll_up_quiet_days
from opsloop.verdict import Reading

__all__ = ["Workers"]


ROLL_UP_TURNS = 40
"""Every so many turns it is looked for days that nobody rolled up."""


class Workers:
    """All background work, one turn at a time."""

    def __init__(self, database: ClickHouseStream, settings: Settings, clock: Clock) -> None:
        """Build each room's worker over one store."""
        self._database = database
        self._settings = settings
        self._clock = clock
        self._eval = EvalWorker(database, settings, clock)
        self._signals = SignalWorker(database, settings, clock)
        self._alerts = AlertWorker(database, settings, clock)
        self._incidents = IncidentWorker(database, settings, clock)
        self.failures: Counter[str] = Counter()
        self.last_failure = ""
        self.turns = 0
        self._retention_enforced = False

    def tick(self) -> list[Reading]:
        """Take one turn of the loop; return the readings it was based on."""
        readings: list[Reading] = []
        self._guarded("online_eval", lambda: readings.extend(self._eval.tick()))
        self._guarded("dashboard", lambda: readings.extend(self._signals.tick()))
        self._guarded("alerting", lambda: self._alerts.tick(readings))
        self._guarded("improvement", self._incidents.tick)
        self._guarded("retention", self._retain)
        if self.turns % ROLL_UP_TURNS == 0:
            self._guarded("roll-ups", lambda: roll_up_quiet_days(self._database))
        self.turns += 1
        return readings

    def _retain(self) -> None:
        drop_old_days(self._database, retention_days=self._settings.longest_days, now_ns=self._clock.now_ns())

    def enforce_retention(self) -> None:
        """Let the engine drop each row in its time; once a process, so that servers with other rules do not quarrel.

        The engine goes by its own clock, whatever clock these workers were handed: a rehearsal never calls this.
        """
        if not self._retention_enforced:
            self._guarded("retention", self._enforce)

    def _enforce(self) -> None:
        apply_retention(self._database, self._settings, now_ns=self._clock.now_ns())
        self._retention_enforced = True

    def _guarded(self, room: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - one room's fault must not silence the others; it is counted and shown
            self.failures[room] += 1
            self.last_failure = f"{room}: {error!r}"
            self._report(room, error)

    def _report(self, room: str, error: Exception) -> None:
        """Write the failure into the stream; a store that cannot take it is told by the counter alone."""
        now_ns = self._clock.now_ns()
        event = Event(
            ts_ns=now_ns,
            event="log",
            service="opsloop",
            severity="ERROR",
            error=True,
            error_type=type(error).__name__,
            message=f"the {room} worker failed: {error}",
        )
        try:
            self._database.append([event])
        except StoreError:  # the store is what failed; the counter, /health and /metrics show it
            self.failures["report"] += 1
