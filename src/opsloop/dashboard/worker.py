"""The worker: judges every objective and burn tier at a moment, and writes a ``breach`` event where a verdict changed.

What was last said of each objective is read back from the stream, so a worker that starts again says nothing twice.
"""

from __future__ import annotations

from typing import Final

from opsloop.clock import Clock
from opsloop.dashboard.evaluation import read_objectives, read_slos, slots_of
from opsloop.dashboard.measure import measure
from opsloop.dashboard.slo import burn_readings
from opsloop.filter import Statement
from opsloop.settings import Settings
from opsloop.stream import Database
from opsloop.verdict import Reading, reading_event

__all__ = ["SignalWorker"]

_LAST_SAID: Final = (
    "SELECT leaves['id'] AS id, argMax((leaves['verdict'], leaves['severe'] = 'true'), (ts_ns, sequence)) FROM events"
    " WHERE event = 'breach' AND leaves['id'] IN {ids:Array(String)} GROUP BY id"
)


class SignalWorker:
    """Reads signals by SQL and says what changed."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        """Watch what ``settings`` name. Raises :class:`opsloop.errors.ConfigError` for an unknown measure."""
        for objective in settings.objective:
            measure(objective.measure)
        self._database = database
        self._settings = settings
        self._clock = clock

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
        said = self._last_said([reading.id for reading in readings])
        changed = [reading for reading in readings if said.get(reading.id) != (reading.verdict, reading.severe)]
        if changed:
            database.append(reading_event(reading, service=settings.log.service) for reading in changed)
        return readings

    def _last_said(self, names: list[str]) -> dict[str, tuple[str, bool]]:
        rows = self._database.rows(Statement(_LAST_SAID, {"ids": names}))
        return {name: (verdict, bool(severe)) for name, (verdict, severe) in rows}
