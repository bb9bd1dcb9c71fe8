"""The world as a stream: determinism, seams, the store's side."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, parse_time
from opsloop.errors import ConfigError, StoreBusyError
from opsloop.sim import Deploy, Fault, SupportBot
from opsloop.sim.traffic import TENANTS
from opsloop.stream import MemoryStream

SECOND = 10**9
MINUTE = 60 * SECOND
START = parse_time("2026-01-05T08:59:30Z")
END = START + 20 * MINUTE


def world(**changes):
    """Return twenty busy minutes with an outage, a spike and a deploy in them."""
    faults = (
        Fault("retriever_outage", START + 3 * MINUTE, START + 8 * MINUTE, 0.4),
        Fault("tenant_spike", START + 5 * MINUTE, START + 7 * MINUTE, 40.0, "initech"),
        Fault("bad_release", START + 10 * MINUTE, START + 15 * MINUTE, 0.3, "4.2.0"),
    )
    arguments = {"start_ns": START, "faults": faults, "deploys": (Deploy(START + MINUTE, "4.1.0"),)}
    return SupportBot(**{**arguments, **changes})


WHOLE = list(world().events(START, END))


class Ticks(threading.Event):
    """A stop that moves a clock on at each wait, and is set after so many."""

    def __init__(self, clock, steps):
        super().__init__()
        self.clock, self.steps = clock, list(steps)

    def wait(self, timeout=None):
        """Move the clock by the next step instead of sleeping."""
        if not self.steps:
            return True
        self.clock.set_time(self.clock.now_ns() + self.steps.pop(0))
        return False


class Busy(MemoryStream):
    """A stream that refuses every other call."""

    def __init__(self):
        self.calls = 1
        super().__init__()

    def append(self, events):
        """Refuse, then accept."""
        self.calls += 1
        if self.calls % 2 and self.calls > 2:
            raise StoreBusyError("the queue is full")
        return super().append(events)


def test_the_same_arguments_give_the_same_events():
    """A world follows from its arguments; another seed is another world."""
    assert list(world().events(START, END)) == WHOLE
    assert len(WHOLE) > 2_000
    other = {event.event_id for event in world(seed=1).events(START, END) if event.event == "request"}
    assert not other & {event.event_id for event in WHOLE}


near_a_slot = st.builds(
    lambda slot, after: slot * MINUTE - START % MINUTE + after, st.integers(1, 19), st.integers(0, SECOND)
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, END - START) | near_a_slot, max_size=8))
def test_a_window_is_its_parts_in_a_row(cuts):
    """However a window is cut, the parts one after the other are the whole, event by event, in order."""
    edges = [START, *sorted(START + cut for cut in cuts), END]
    bot = world()
    parts = [event for a, b in itertools.pairwise(edges) for event in bot.events(a, b)]
    assert parts == WHOLE


def test_a_window_may_begin_in_the_middle_of_requests():
    """Cut 300 ms after each minute begins, where requests of the slot before still run, nothing is lost."""
    first = START - START % MINUTE + MINUTE + 300_000_000
    edges = [START, *range(first, END, MINUTE), END]
    bot = world()
    assert [event for a, b in itertools.pairwise(edges) for event in bot.events(a, b)] == WHOLE


@settings(max_examples=15, deadline=None)
@given(st.integers(0, END - START), st.integers(0, END - START))
def test_a_window_is_the_same_whether_or_not_others_were_read_before(a, b):
    """Reading a window of a fresh world, and reading it again after all others, give the same events."""
    low, high = START + min(a, b), START + max(a, b)
    fresh, used = world(), world()
    list(used.events(START, END))
    assert list(fresh.events(low, high)) == list(used.events(low, high))


def test_each_request_comes_whole_and_in_the_order_in_which_requests_end():
    """A request's line precedes its stages, its events stand together, and ends never go back."""
    runs = []
    for event in WHOLE:
        if event.request_id and (not runs or runs[-1] != event.request_id):
            runs.append(event.request_id)
    assert len(runs) == len(set(runs)) == sum(event.event == "request" for event in WHOLE)
    ends = [event.ts_ns + 1000 * (event.duration_us or 0) for event in WHOLE if event.event in {"request", "gauge"}]
    assert ends == sorted(ends)
    assert ends[0] > START
    assert ends[-1] <= END


def test_a_request_takes_less_than_a_slot():
    """Nothing runs for a minute, even when a model is a thousand times too slow: it times out."""
    bot = SupportBot(start_ns=START, faults=(Fault("slow_model", START, END, 1000.0),))
    requests = [event for event in bot.events(START, END) if event.event == "request"]
    assert max(event.duration_us for event in requests) < 45_000_000
    assert {event.error_type for event in requests if event.status_code == 504} == {"TimeoutError"}


def test_before_the_beginning_there_is_nothing():
    """A window before the world's start is empty, one around it holds what comes after."""
    assert list(world().events(START - 5 * MINUTE, START)) == []
    assert list(world().events(START - 5 * MINUTE, END)) == WHOLE


def test_a_backfill_stores_everything_once_and_says_how_far_it_is(stream):
    """In memory and in ClickHouse: progress rises batch by batch to the number stored, a second run adds nothing."""
    told = []
    stored = world().backfill(
        stream, days=1, end_ns=END, batch_rows=500, progress=lambda rows, done: told.append((rows, done))
    )
    assert stored == len(WHOLE)
    assert {event.event_id: event for event in stream.query()} == {event.event_id: event for event in WHOLE}
    assert len(stream.query()) == stored
    assert [rows for rows, _ in told] == [*range(500, stored, 500), stored]
    assert all(0 <= a <= 1 for _, a in told)
    assert told[-1][1] > 0.9
    assert world().backfill(stream, days=1, end_ns=END) == 0


def test_a_backfill_reaches_back_the_days_that_were_asked():
    """``days`` bounds the window from below, the world's beginning does too."""
    stream = MemoryStream()
    world().backfill(stream, days=5 / 1440, end_ns=END)
    expected = list(world().events(END - 5 * MINUTE, END))
    assert sorted(e.event_id for e in stream.query()) == sorted(e.event_id for e in expected)


def test_live_goes_on_from_a_backfill_without_a_seam():
    """Back-filled and then lived through in uneven ticks, the store holds exactly the world's events."""
    middle = START + 9 * MINUTE + 17
    bot, stream = world(), MemoryStream()
    bot.backfill(stream, days=1, end_ns=middle)
    clock = ManualClock(middle)
    ticks = Ticks(clock, [7 * SECOND, 0, -3 * SECOND, 3 * SECOND, 4 * MINUTE, END - middle - 7 * SECOND - 4 * MINUTE])
    stored = bot.live(stream, clock, ticks, since_ns=middle, batch_rows=100)
    assert clock.now_ns() == END
    assert [e.event_id for e in stream.query()] == [e.event_id for e in MemoryStream(WHOLE).query()]
    assert stored == sum(1 for _ in world().events(middle, END))


def test_live_writes_nothing_before_it_has_ended():
    """What is in the store when the clock reads t ended at or before t."""
    clock, stream = ManualClock(START), MemoryStream()
    world().live(stream, clock, Ticks(clock, [SECOND] * 90))
    ends = [event.ts_ns + 1000 * (event.duration_us or 0) for event in stream.query()]
    assert max(ends) <= clock.now_ns()
    assert len(stream) == sum(1 for _ in world().events(START, START + 90 * SECOND))


def test_live_tries_again_when_the_store_is_busy():
    """A refused batch is not lost: the next tick writes it."""
    clock, stream = ManualClock(START), Busy()
    world().live(stream, clock, Ticks(clock, [MINUTE] * 6))
    assert len(stream) == sum(1 for _ in world().events(START, START + 6 * MINUTE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_per_minute": 0}, "rate_per_minute 0 is out of range; use a number above 0"),
        ({"zone": "Mars/Base"}, "unknown time zone 'Mars/Base'; use an IANA name such as Europe/Berlin"),
        (
            {"faults": (Fault("tenant_spike", 0, 1, 3.0, "nobody"),)},
            f"tenant_spike strikes 'nobody', which is no tenant; use one of {', '.join(TENANTS)}",
        ),
    ],
)
def test_a_world_that_cannot_be_is_refused(changes, message):
    """Each wrong argument is named, with what to do."""
    with pytest.raises(ConfigError) as caught:
        world(**changes)
    assert str(caught.value) == message
