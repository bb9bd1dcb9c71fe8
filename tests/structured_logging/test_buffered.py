"""The buffered sink: off the caller's thread, bounded, counted, flushed, and alive after a fork."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import pytest

from opsloop.errors import StoreError
from opsloop.event import Event, decode_event
from opsloop.stream import MemoryStream
from opsloop.structured_logging import BufferedSink, JsonLinesSink, Logger


def line(number, severity="INFO"):
    """Build a numbered log line."""
    return Event(ts_ns=number, event="log", severity=severity, message=str(number), service="bot")


class Gate(MemoryStream):
    """A sink that says when a write has begun, and ends it when it is told."""

    def __init__(self):
        self.begun = threading.Event()
        self.open = threading.Event()
        super().__init__()
        self.open.clear()

    def append(self, events):
        """Wait at the gate, then store."""
        events = list(events)
        if events:
            self.begun.set()
            assert self.open.wait(20)
        return super().append(events)


def test_everything_handed_over_is_written_in_order(memory):
    """flush() returns once all of it is stored; close() ends the thread."""
    sink = BufferedSink(memory, batch=7)
    assert sink.append(line(number) for number in range(100)) == 100
    assert sink.flush(20)
    assert [event.ts_ns for event in memory] == list(range(100))
    sink.append([line(100)])
    sink.close()
    assert (len(memory), sink.written, sink.failed, sink.dropped) == (101, 101, 0, {})
    assert sink.append([line(101)]) == 0
    assert (sink.failed, sink.last_error) == (1, "the sink is closed")


def test_many_threads_lose_nothing(memory):
    """Events of several threads all arrive, each thread's in its order."""
    with BufferedSink(memory) as sink:
        threads = [
            threading.Thread(target=lambda k=k: [sink.append([line(k * 1000 + n)]) for n in range(300)])
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [event.ts_ns for event in memory] == sorted(k * 1000 + n for k in range(4) for n in range(300))


def test_a_full_buffer_drops_the_least_valuable_and_says_so_once(clock):
    """The caller never waits: what does not fit is counted by severity and reported in one event."""
    gate = Gate()
    sink = BufferedSink(gate, capacity=3, clock=clock)
    sink.append([line(0)])
    assert gate.begun.wait(20)
    kept = [sink.append([line(number, severity)]) for number, severity in enumerate(["DEBUG", "INFO", "INFO"], 1)]
    kept += [sink.append([line(4, "ERROR")]), sink.append([line(5, "INFO")]), sink.append([line(6, "DEBUG")])]
    assert kept == [1, 1, 1, 1, 1, 0]
    clock.advance(seconds=2)
    gate.open.set()
    sink.close(20)
    reports = [event for event in gate if event.event == "log.dropped"]
    assert [event.ts_ns for event in gate if event.event == "log"] == [0, 3, 4, 5]
    assert reports == [
        Event(
            ts_ns=1_767_603_602_000_000_000,
            event="log.dropped",
            service="bot",
            severity="WARN",
            message="3 events dropped, the log buffer of 3 was full",
            attributes={
                "count": 3,
                "dropped": {"DEBUG": 2, "INFO": 1},
                "since_ns": 1_767_603_600_000_000_000,
            },
        )
    ]
    assert sink.dropped == {"DEBUG": 2, "INFO": 1}


def test_a_full_buffer_keeps_the_event_that_is_an_error_or_a_request():
    """Of what event() hands over, a severity and the kind of a request are known before the buffer drops."""
    gate = Gate()
    sink = BufferedSink(gate, capacity=3, batch=1)
    log = Logger(sink)
    log.event("gauge", number=0)
    assert gate.begun.wait(20)
    log.event("tool", number=1, severity="error")
    log.event("request", number=2)
    for number in range(3, 9):
        log.event("gauge", number=number)
    gate.open.set()
    sink.close(20)
    numbers = [event.attributes["number"] for event in gate if event.event != "log.dropped"]
    assert numbers == [0, 1, 2, 8]
    assert sink.dropped == {"INFO": 5}


def test_a_sink_that_does_not_answer_does_not_hold_the_host(clock):
    """flush() and close() give up when their time is over."""
    gate = Gate()
    sink = BufferedSink(gate, clock=clock)
    sink.append([line(0)])
    assert gate.begun.wait(20)
    assert not sink.flush(0.01)
    gate.open.set()
    assert sink.flush(20)
    sink.close()


class Broken:
    """A sink that fails until it is mended."""

    def __init__(self, cause):
        self.cause = cause
        self.mended = False
        self.events = []

    def append(self, events):
        """Refuse, or keep."""
        if not self.mended:
            raise self.cause
        self.events += events


@pytest.mark.parametrize("cause", [StoreError("disk full", fix="make room"), LookupError("no such table")])
def test_failed_writes_are_counted_and_the_next_ones_go_on(cause):
    """A refusal is never raised into the host, and does not end the writer, whatever the sink raised."""
    broken = Broken(cause)
    sink = BufferedSink(broken)
    log = Logger(sink)
    log.info("lost")
    assert sink.flush(20)
    assert (sink.written, sink.failed, sink.last_error) == (0, 1, f"{type(cause).__name__}: {cause}")
    broken.mended = True
    log.info("kept")
    sink.close(20)
    assert [event.message for event in broken.events] == ["kept"]
    assert log.failed == 0


def run(code, tmp_path):
    """Run a script and return the numbers of the events that it left in a file."""
    path = tmp_path / "out.jsonl"
    head = (
        "import os, sys\nfrom opsloop.event import Event\n"
        "from opsloop.structured_logging import BufferedSink, JsonLinesSink\n"
        f"sink = BufferedSink(JsonLinesSink({str(path)!r}))\n"
        "line = lambda number: Event(ts_ns=number, event='log')\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", head + code, str(path)]
    subprocess.run(command, check=True, timeout=50)
    return sorted(decode_event(row).ts_ns for row in path.read_bytes().splitlines())


def test_what_waits_at_the_end_of_the_process_is_written(tmp_path):
    """Nobody has to close the sink: the exit does."""
    assert run("sink.append([line(n) for n in range(2000)])\n", tmp_path) == list(range(2000))


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")


@needs_fork
def test_a_forked_child_starts_empty_with_a_thread_of_its_own(tmp_path):
    """Each event is written once, by the process that logged it, whatever waited when the fork came."""
    code = (
        "sink.append([line(n) for n in range(500)])\n"
        "pid = os.fork()\n"
        "sink.append([line(1000 + n if pid else 2000 + n) for n in range(500)])\n"
        "if pid: os.waitpid(pid, 0)\n"
    )
    assert run(code, tmp_path) == [*range(500), *range(1000, 1500), *range(2000, 2500)]


@needs_fork
def test_a_multiprocessing_worker_flushes_when_it_ends(tmp_path):
    """Such a worker leaves without atexit, and its events arrive nevertheless."""
    code = (
        "import multiprocessing\n"
        "sink = BufferedSink(JsonLinesSink(sys.argv[1]), batch=1)\n"
        "sink.append([line(0)])\n"
        "work = lambda: sink.append([line(n) for n in range(1, 3000)])\n"
        "worker = multiprocessing.get_context('fork').Process(target=work)\n"
        "worker.start(); worker.join(); assert worker.exitcode == 0\n"
    )
    assert run(code, tmp_path) == list(range(3000))


def run_at_once(code, tmp_path, *, flush):
    """Run a script that logs at once, and return the messages that it left in a file."""
    path = tmp_path / "out.jsonl"
    head = (
        "import os, sys, threading, time\nfrom opsloop.structured_logging import JsonLinesSink, Logger\n"
        f"sink = JsonLinesSink({str(path)!r}, flush={flush})\nlog = Logger(sink)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", head + code], check=True, timeout=20)
    return sorted(decode_event(row).message for row in path.read_bytes().splitlines())


@needs_fork
def test_what_a_file_holds_back_is_written_once_over_a_fork(tmp_path):
    """A line that waits in the file's own buffer is the parent's, whoever flushes first."""
    code = (
        "log.info('before')\npid = os.fork()\nlog.info('parent' if pid else 'child')\n"
        "if not pid: sys.exit()\nos.waitpid(pid, 0)\n"
    )
    assert run_at_once(code, tmp_path, flush=False) == ["before", "child", "parent"]


@needs_fork
def test_a_fork_waits_for_a_line_under_way(tmp_path):
    """Another thread is in the middle of a line when the fork comes: the child inherits no held lock."""
    code = (
        "sink.write_lock.acquire()\nthreading.Timer(0.2, sink.write_lock.release).start()\n"
        "pid = os.fork()\nlog.info('parent' if pid else 'child')\n"
        "if not pid: os._exit(0)\nos.waitpid(pid, 0)\n"
    )
    assert run_at_once(code, tmp_path, flush=True) == ["child", "parent"]


class Raw(io.RawIOBase):
    """An unbuffered stream, as standard output is under ``python -u``: a write may take a part only."""

    def __init__(self):
        self.taken = b""

    def writable(self):
        """Tell so."""
        return True

    def write(self, data):
        """Take seven bytes."""
        self.taken += bytes(data[:7])
        return min(7, len(data))


@pytest.mark.parametrize("flush", [True, False])
def test_an_unbuffered_stream_gets_whole_lines(flush):
    """What a write leaves over is written by the next ones."""
    raw = Raw()
    log = Logger(JsonLinesSink(raw, flush=flush))
    log.info("first", number=1)
    log.info("second", number=2)
    assert [decode_event(row).message for row in raw.taken.splitlines()] == ["first", "second"]
    assert log.failed == 0
