"""Group commit: shared inserts, answers after the commit, a full queue that says so."""

from __future__ import annotations

import threading

import pytest

from opsloop.errors import StoreBusyError, StoreError
from opsloop.event import Event
from opsloop.store import GroupCommit
from opsloop.stream import MemoryStream


def log(number):
    """Build a numbered event."""
    return Event(ts_ns=number, event="log", event_id=f"e{number}")


class SlowSink:
    """A sink that waits at its gate, and records the batches it was handed."""

    def __init__(self):
        self.gate = threading.Event()
        self.stream = MemoryStream()
        self.batches = []

    def append(self, events):
        """Wait for the gate, then store."""
        assert self.gate.wait(30)
        self.batches.append(len(events))
        return self.stream.append(events)


def test_an_answer_means_stored():
    """When the future is done, the events are in the sink."""
    stream = MemoryStream()
    commits = GroupCommit(stream, batch_milliseconds=1)
    assert commits.submit([log(1), log(2)]).result(30) == 2
    assert len(stream) == 2
    commits.close()


def test_what_waits_shares_one_insert():
    """Requests that arrive during a commit go together into the next."""
    sink = SlowSink()
    commits = GroupCommit(sink, batch_milliseconds=1, batch_rows=100)
    futures = [commits.submit([log(0)])]
    futures += [commits.submit([log(n)]) for n in range(1, 50)]
    sink.gate.set()
    assert [future.result(30) for future in futures] == [1] * 50
    commits.close()
    assert len(sink.batches) <= 3
    assert (commits.committed_events, commits.waiting_rows) == (50, 0)


def test_only_what_follows_a_commit_waits_for_others():
    """What comes after a pause is committed at once; what comes next shares the following commit."""
    sink = SlowSink()
    sink.gate.set()
    commits = GroupCommit(sink, batch_milliseconds=3_600_000, batch_rows=3)
    assert commits.submit([log(0)]).result(30) == 1
    futures = [commits.submit([log(n)]) for n in range(1, 4)]
    assert [future.result(30) for future in futures] == [1, 1, 1]
    commits.close()
    assert sink.batches == [1, 3]


def test_a_batch_is_bounded():
    """No insert is larger than batch_rows, unless one request alone is."""
    sink = SlowSink()
    sink.gate.set()
    commits = GroupCommit(sink, batch_milliseconds=50, batch_rows=10)
    futures = [commits.submit([log(n * 4 + k) for k in range(4)]) for n in range(10)]
    futures.append(commits.submit([log(1000 + k) for k in range(25)]))
    for future in futures:
        future.result(30)
    commits.close()
    assert max(size for size in sink.batches if size != 25) <= 10
    assert sum(sink.batches) == 65


def test_a_full_queue_is_said():
    """Above queue_rows a sender is told to come back, and what was taken before is still stored."""
    sink = SlowSink()
    commits = GroupCommit(sink, batch_milliseconds=1, queue_rows=3)
    taken = commits.submit([log(1), log(2), log(3)])
    with pytest.raises(StoreBusyError, match="3 rows wait to be stored"):
        commits.submit([log(4)])
    sink.gate.set()
    assert taken.result(30) == 3
    commits.close()


class BrokenSink:
    """A sink that fails as told."""

    def __init__(self, error):
        self.error = error

    def append(self, events):
        """Fail."""
        raise self.error


@pytest.mark.parametrize("error", [StoreError("disk full", fix="free some space"), RuntimeError("engine")])
def test_a_failed_commit_reaches_every_waiter(error):
    """Nobody is told that events are stored which are not, and the thread goes on."""
    commits = GroupCommit(BrokenSink(error), batch_milliseconds=1)
    for _ in range(2):
        with pytest.raises(StoreError):
            commits.submit([log(1)]).result(30)
    assert commits.failed_commits == 2
    commits.close()


def test_closing_commits_what_waits():
    """A stop loses nothing that was taken, and takes nothing more."""
    sink = SlowSink()
    commits = GroupCommit(sink, batch_milliseconds=10_000, batch_rows=1000)
    future = commits.submit([log(1)])
    sink.gate.set()
    commits.close()
    assert future.result(0) == 1
    with pytest.raises(StoreBusyError, match="the server is stopping"):
        commits.submit([log(2)])
