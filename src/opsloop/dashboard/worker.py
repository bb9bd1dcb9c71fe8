"""The worker: judges every objective and burn tier at a moment, and writes a ``breach`` event where a verdict changed.

What was last said of each objective is read back from the stream, so a worker that starts again says nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from opsloop.clock import Clock
from opsloop.dashboard.evaluation import read_absences, read_objectives, read_slos, slots_of
from opsloop.dashboard.hysteresis import State, said_from_rows, said_statement, state_of
from opsloop.dashboard.measure import measure
from opsloop.dashboard.slo import burn_readings
from opsloop.settings import Settings
from opsloop.stream import Database, state_of_kinds
from opsloop.verdict import Reading, reading_event

__all__ = ["SignalWorker"]


class SignalWorker:
    """Reads signals by SQL and says what changed."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        """Watch what ``settings`` name. Raises :class:`opsloop.errors.ConfigError` for an unknown measure."""
        for objective in settings.objective:
            measure(objective.measure)
        self._database = database
        self._settings = settings
        self._clock = clock
        self._read: tuple[tuple[int, int], tuple[str, ...]] | None = None
        self._said: dict[str, State] = {}

    def tick(self) -> list[Reading]:
        """Return every reading of this moment, after those with a new verdict were written as events.

        Raises :class:`opsloop.errors.StoreError` when the store does not answer; nothing is half written.
        """
        now_ns = self._clock.now_ns()
        settings, database = self._settings, self._database
        readings = read_objectives(database, settings.objective, end_ns=now_ns, slots=slots_of(settings))
        found = read_slos(database, settings.slo, end_ns=now_ns)
        for slo, judged in zip(settings.slo, found, strict=True):
            readings.extend(burn_readings(slo, judged, end_ns=now_ns))
        readings.extend(read_absences(database, settings, end_ns=now_ns))
        names = [reading.id for reading in readings]
        said = self._last_said(names, now_ns)
        changed = [reading for reading in readings if said.get(reading.id) != state_of(reading)]
        if changed:
            database.append(reading_event(reading, service=settings.log.service) for reading in changed)
        return readings

    def _last_said(self, names: Sequence[str], now_ns: int) -> dict[str, State]:
        """Return what was said last of these signals; it is read again once anything more was said."""
        read = (state_of_kinds(self._database, ("breach",), end_ns=now_ns), tuple(names))
        if read != self._read:
            self._said = said_from_rows(self._database.rows(said_statement(names, end_ns=now_ns)))
            self._read = read
        return self._said
