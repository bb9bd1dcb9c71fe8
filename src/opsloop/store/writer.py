"""Group commit: many senders share one insert, and each waits for the commit that holds its rows.

A commit of a column store costs about the same for ten rows as for ten thousand. So what arrives within
``batch_milliseconds`` after a commit began waits for the next, unless that has ``batch_rows`` rows before, and what
comes after a pause waits for nobody. Everyone in a commit is told at once. More than ``queue_rows`` waiting rows are
refused: a full queue is said, never hidden.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from opsloop.clock import Clock, SystemClock
from opsloop.errors import OpsloopError, StoreBusyError, StoreError
from opsloop.event import Event
from opsloop.stream import Sink

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["GroupCommit"]

_LOG = logging.getLogger("opsloop.store")


class _Handed(NamedTuple):
    """What one sender handed in, and the future it waits for."""

    events: Sequence[Event]
    rows: pa.Table | None
    size: int
    future: Future[int]


class GroupCommit:
    """One thread that commits what many hand in.

    ``submit`` returns a future of the number of new events, done once they are committed, or failed with the
    :class:`StoreError` that kept the whole batch out. ``close`` commits what waits and ends the thread.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        batch_rows: int = 10_000,
        batch_milliseconds: int = 30,
        queue_rows: int = 200_000,
        clock: Clock | None = None,
    ) -> None:
        """Start the committing thread over ``sink``."""
        self._sink = sink
        self._clock = clock or SystemClock()
        self.batch_rows = batch_rows
        self.batch_seconds = batch_milliseconds / 1000
        self.queue_rows = queue_rows
        self.committed_events = 0
        self.commits = 0
        self.failed_commits = 0
        self.last_failure = ""
        """Why the last commit failed; empty once one has succeeded again."""
        self._waiting: deque[_Handed] = deque()
        self._rows = 0
        self._began_ns: int | None = None
        """When the last commit began."""
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="opsloop-commit", daemon=True)
        self._thread.start()

    @property
    def waiting_rows(self) -> int:
        """How many rows wait for their commit."""
        return self._rows

    def submit(self, events: Sequence[Event], rows: pa.Table | None = None) -> Future[int]:
        """Queue events, and events that are rows already, for the next commit.

        Rows need a sink that takes them, as the store does. Raises :class:`StoreBusyError` when the queue is full or
        closed.
        """
        handed = _Handed(events, rows, len(events) + (rows.num_rows if rows is not None else 0), Future())
        with self._changed:
            if self._closing:
                raise StoreBusyError("the server is stopping", fix="send again in a moment")
            if self._rows and self._rows + handed.size > self.queue_rows:
                raise StoreBusyError(
                    f"{self._rows} rows wait to be stored", fix="send again in a second, or in smaller batches"
                )
            self._waiting.append(handed)
            self._rows += handed.size
            self._changed.notify()
        return handed.future

    def close(self) -> None:
        """Commit everything that waits, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = self._gather()
            if not batch:
                return
            self._commit(batch)

    def _gather(self) -> list[_Handed]:
        """Wait for work, then for the batch to fill or its time to come; empty when closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            while self._began_ns is not None and self._rows < self.batch_rows and not self._closing:
                left = self._began_ns + round(self.batch_seconds * 1e9) - self._clock.monotonic_ns()
                if left <= 0 or not self._changed.wait(left / 1e9):
                    break
            self._began_ns = self._clock.monotonic_ns()
            batch: list[_Handed] = []
            size = 0
            while self._waiting and (not batch or size + self._waiting[0].size <= self.batch_rows):
                batch.append(self._waiting.popleft())
                size += batch[-1].size
            return batch

    def _commit(self, batch: list[_Handed]) -> None:
        events = [event for handed in batch for event in handed.events]
        rows = [handed.rows for handed in batch if handed.rows is not None]
        size = sum(handed.size for handed in batch)
        failure: OpsloopError | None = None
        try:
            self.committed_events += self._sink.append(events, **({"rows": rows} if rows else {}))
            self.commits += 1
        except OpsloopError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the thread must outlive any fault, and every waiter must hear of it
            failure = StoreError(f"the commit of {size} events failed: {error!r}", fix="send them again")
        with self._changed:
            self._rows -= size
        self._report(failure)
        for handed in batch:
            if not handed.future.set_running_or_notify_cancel():
                continue
            if failure is None:
                handed.future.set_result(handed.size)
            else:
                handed.future.set_exception(failure)

    def _report(self, failure: OpsloopError | None) -> None:
        """Count a commit that failed; tell the operator when storing begins to fail and when it goes on."""
        self.failed_commits += failure is not None
        was, self.last_failure = self.last_failure, str(failure or "")
        if failure and not was:
            _LOG.warning("nothing can be stored, senders are told to come back: %s", failure)
        if was and not failure:
            _LOG.warning("storing goes on")
