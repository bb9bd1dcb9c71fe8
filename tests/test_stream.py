"""The buffer between an application and whoever writes its events out."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.event import SEVERITIES, Event
from opsloop.stream import Buffer

RANK = {"TRACE": 0, "DEBUG": 0, "INFO": 1, "WARN": 2, "ERROR": 3, "FATAL": 3}


def log(number, severity="INFO", kind="log"):
    """Build a numbered event."""
    return Event(ts_ns=number, event=kind, severity=severity)


@given(severities=st.lists(st.sampled_from(SEVERITIES), max_size=40), capacity=st.integers(1, 10))
def test_a_full_buffer_keeps_what_matters_most(severities, capacity):
    """What is kept are the most severe, among equals the newest, in the order they came; the rest is counted."""
    buffer = Buffer(capacity=capacity)
    offered = [log(number, severity) for number, severity in enumerate(severities)]
    for event in offered:
        buffer.offer(event)
    best = sorted(offered, key=lambda event: (RANK[event.severity], event.ts_ns), reverse=True)[:capacity]
    assert buffer.take(100) == sorted(best, key=lambda event: event.ts_ns)
    assert sum(buffer.dropped.values()) == len(offered) - len(best)


def test_the_request_line_outlives_other_information():
    """The canonical request event is as precious as an error."""
    buffer = Buffer(capacity=1)
    buffer.offer(log(1, kind="request"))
    assert not buffer.offer(log(2, "WARN"))
    assert buffer.take(5) == [log(1, kind="request")]
    assert buffer.dropped == {"WARN": 1}


def test_take_waits_for_the_first_event():
    """A reader in take() is woken by the next offer, and by wake()."""
    buffer = Buffer()
    found = []
    reader = threading.Thread(target=lambda: found.extend(buffer.take(5, timeout_seconds=30)))
    reader.start()
    buffer.offer(log(1))
    reader.join(10)
    assert found == [log(1)]
    assert len(buffer) == 0


def test_many_threads_lose_nothing_below_capacity():
    """Eight threads that offer a thousand each are all found again."""
    buffer = Buffer(capacity=8000)
    threads = [
        threading.Thread(target=lambda base=base: [buffer.offer(log(base + n)) for n in range(1000)])
        for base in range(0, 8000, 1000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event.ts_ns for event in buffer.take(10_000)) == list(range(8000))


def test_a_buffer_holds_at_least_one():
    """A capacity of zero is refused with a sentence."""
    with pytest.raises(ValueError, match="at least 1 event"):
        Buffer(capacity=0)
