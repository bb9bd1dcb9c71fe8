"""The world: the simulated bot under traffic, from a beginning on, as a stream of events.

A world follows from its arguments alone. It moves on minute by minute: a slot's arrivals come from the seed, and what
becomes of them from the world's memory (running requests, limits, conversations), of which snapshots are kept, so that
any window can be read again. Events come **in the order in which requests end**, each request whole: that is what an
exporter delivers. So windows join without a seam, ``events(a, c)`` is ``events(a, b)`` and then ``events(b, c)``, no
trace is torn at a cut, and nothing is told before it has happened. A store orders by ``ts_ns``, a request's start.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS, Clock
from opsloop.errors import ConfigError, StoreBusyError
from opsloop.event import Event
from opsloop.sim.admission import Desk, limits_for
from opsloop.sim.bot import estimate_tokens, serve
from opsloop.sim.faults import Fault, active_faults
from opsloop.sim.gauges import gauges
from opsloop.sim.scenario import Deploy, Releases
from opsloop.sim.spans import Served, spans
from opsloop.sim.traffic import SLOT_NS, TENANTS, arrivals, load_at, time_zone
from opsloop.stream import Sink

__all__ = ["SupportBot"]

SNAPSHOT_SLOTS: Final = 60
"""A snapshot of the world's memory is kept for every so many slots, and for the last few."""
RECENT_SLOTS: Final = 4
DAY_NS: Final = 86_400 * NANOSECONDS


class _Minute(msgspec.Struct, frozen=True):
    """All that begins in one slot."""

    end_ns: int
    served: tuple[Served, ...]
    marks: tuple[Event, ...]
    """Deploys and gauges: over when they happen."""


class SupportBot:
    """A support bot under seeded traffic. The same arguments give the same events, however they are asked for.

    ``rate_per_minute`` is the rate at the busiest hour of a working day in ``zone``; ``faults`` and ``deploys`` say
    what happens to it (see :func:`opsloop.sim.history`). It begins empty at ``start_ns``. One thread at a time may use
    it. Raises :class:`ConfigError` for a rate that is not positive, an unknown zone or an unknown tenant.

    >>> bot = SupportBot(start_ns=1_767_600_000_000_000_000)
    >>> first = next(bot.events(1_767_600_000_000_000_000, 1_767_600_600_000_000_000))
    >>> first.event, first.service
    ('request', 'support-bot')
    """

    def __init__(
        self,
        *,
        start_ns: int,
        seed: int = 0,
        rate_per_minute: float = 20.0,
        faults: Iterable[Fault] = (),
        deploys: Iterable[Deploy] = (),
        zone: str = "UTC",
    ) -> None:
        """Check the arguments and put the world at its beginning."""
        if not 0 < rate_per_minute < 1e6:
            raise ConfigError(f"rate_per_minute {rate_per_minute} is out of range", fix="use a number above 0")
        self.start_ns = start_ns
        self.faults = tuple(faults)
        self.limits = limits_for(rate_per_minute)
        self._seed = seed
        self._rate = rate_per_minute
        self._zone = time_zone(zone)
        for fault in self.faults:
            if fault.kind == "tenant_spike" and fault.target not in TENANTS:
                message = f"tenant_spike strikes {fault.target!r}, which is no tenant"
                raise ConfigError(message, fix=f"use one of {', '.join(TENANTS)}")
        self._releases = Releases(deploys, self.faults)
        self._desks = {start_ns // SLOT_NS: Desk(self.limits)}

    def events(self, start_ns: int, end_ns: int) -> Iterator[Event]:
        """Yield the events of all that ends in ``(start_ns, end_ns]``, in the order of its end.

        A request's canonical line comes first, then its stages and log lines. Before the world's beginning there is
        nothing.
        """
        # A request takes less than a slot, so what ends after start_ns began in its slot or in the one before.
        first = max(start_ns, self.start_ns) // SLOT_NS - 1
        under_way: list[tuple[int, int, int, Served | Event]] = []
        for minute in self._minutes(first):
            slot = minute.end_ns
            for number, served in enumerate(minute.served):
                heapq.heappush(under_way, (served.end_ns, slot, number, served))
            for number, mark in enumerate(minute.marks, len(minute.served)):
                heapq.heappush(under_way, (mark.ts_ns, slot, number, mark))
            while under_way and under_way[0][0] <= min(minute.end_ns, end_ns):
                ended_ns, _, _, item = heapq.heappop(under_way)
                if ended_ns > start_ns:
                    yield from spans(item) if isinstance(item, Served) else (item,)
            if minute.end_ns >= end_ns:
                return

    def backfill(
        self,
        sink: Sink,
        *,
        end_ns: int,
        days: float = 3.0,
        batch_rows: int = 5_000,
        progress: Callable[[int, float], None] | None = None,
    ) -> int:
        """Write what ended in the ``days`` up to ``end_ns``, in batches; return how many events were new.

        ``progress`` is called after each batch with the events written so far and the share of the time that is done.
        """
        start_ns = max(self.start_ns, end_ns - round(days * DAY_NS))
        return self._write(sink, start_ns, end_ns, batch_rows, progress)

    def live(
        self,
        sink: Sink,
        clock: Clock,
        stop: threading.Event,
        *,
        since_ns: int | None = None,
        tick_seconds: float = 1.0,
        batch_rows: int = 5_000,
    ) -> int:
        """Write events as their requests end by ``clock``, until ``stop`` is set; return how many were new.

        It begins at ``since_ns``, the end of a back-fill, or now. A busy store is tried again at the next tick with
        the same events; any other error of the store is raised. When the clock goes back, nothing is written until it
        has caught up.
        """
        written = 0
        position_ns = clock.now_ns() if since_ns is None else since_ns
        while not stop.wait(tick_seconds):
            now_ns = clock.now_ns()
            if now_ns <= position_ns:
                continue
            try:
                written += self._write(sink, position_ns, now_ns, batch_rows, None)
            except StoreBusyError:
                continue
            position_ns = now_ns
        return written

    def _write(
        self,
        sink: Sink,
        start_ns: int,
        end_ns: int,
        batch_rows: int,
        progress: Callable[[int, float], None] | None,
    ) -> int:
        written = 0
        events = self.events(start_ns, end_ns)
        while batch := list(itertools.islice(events, batch_rows)):
            written += sink.append(batch)
            if progress is not None:
                done = (batch[-1].ts_ns - start_ns) / (end_ns - start_ns)
                progress(written, min(1.0, max(0.0, done)))
        return written

    def _minutes(self, first: int) -> Iterator[_Minute]:
        """Yield the slots from ``first`` on without end, from the nearest snapshot."""
        slot = max((known for known in self._desks if known <= first), default=min(self._desks))
        desk = self._desks[slot].copy()
        while True:
            minute = self._minute(slot, desk)
            slot += 1
            self._remember(slot, desk)
            if slot > first:
                yield minute

    def _minute(self, slot: int, desk: Desk) -> _Minute:
        """Decide all that begins in a slot, and move the world's memory on to its end."""
        begin_ns, end_ns = max(slot * SLOT_NS, self.start_ns), (slot + 1) * SLOT_NS
        faults = active_faults(self.faults, start_ns=begin_ns, end_ns=end_ns)
        coming = arrivals(
            self._seed, slot, rate_per_minute=self._rate, talks=desk.talks, faults=faults, zone=self._zone
        )
        served = []
        for arrival in coming:
            if arrival.ts_ns <= self.start_ns:
                continue
            in_flight = desk.in_flight(arrival.ts_ns)
            estimate = estimate_tokens(arrival.question)
            admission = desk.admit(arrival.tenant, estimate, arrival.ts_ns)
            release = self._releases.at(arrival.ts_ns)
            done = serve(arrival, admission=admission, in_flight=in_flight, release=release, faults=faults)
            if admission.allowed:
                taken = (done.request.fields.get("input_tokens") or 0) + (done.request.fields.get("output_tokens") or 0)
                desk.settle(arrival.tenant, taken - estimate)
            desk.begin(done.end_ns, admitted=admission.allowed)
            served.append(done)
        load = load_at(begin_ns, self._zone)
        marks = (
            *self._releases.events(start_ns=begin_ns, end_ns=end_ns),
            *(mark for mark in gauges(self._seed, slot, load=load, faults=faults) if mark.ts_ns > self.start_ns),
        )
        return _Minute(end_ns, tuple(served), marks)

    def _remember(self, slot: int, desk: Desk) -> None:
        """Keep a snapshot of the memory at the beginning of ``slot``, and let go of old ones in between."""
        if slot not in self._desks:
            self._desks[slot] = desk.copy()
        old = slot - RECENT_SLOTS
        if old % SNAPSHOT_SLOTS and old != self.start_ns // SLOT_NS:
            self._desks.pop(old, None)
