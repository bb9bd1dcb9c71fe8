"""The tail: every matching event once and in order, from the store and then live; what a slow reader missed is said."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.cli.client import LocalApi
from opsloop.clock import SystemClock
from opsloop.errors import InputError, StoreError
from opsloop.event import Event, decode_event, encode_event
from opsloop.filter import Statement
from opsloop.server.tail import TailStreams
from opsloop.settings import Settings
from opsloop.structured_logging.tail import Tail


def numbered(count, *, first=0, tool="a", start_ns=1_767_600_000_000_000_000):
    """Build events that can be told apart."""
    names = range(first, first + count)
    return [Event(ts_ns=start_ns + n, event="tool", tool=tool, message=str(n)) for n in names]


def messages(chunks):
    """Return (id, kind, value) of the messages in the bytes of a stream, heartbeats aside."""
    found = []
    for block in b"".join(chunks).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


async def read(streams, *, until, line="", last="", limit="1000"):
    """Read a stream until a message satisfies ``until``; return its messages."""
    body = streams.response({"q": line, "limit": limit}, last).body_iterator
    chunks = []
    async for chunk in body:
        chunks.append(chunk)
        if any(until(*message) for message in messages([chunk])):
            break
    await body.aclose()
    return messages(chunks)


def texts(found):
    """Return what the events among messages say."""
    return [value["message"] for _, kind, value in found if kind == "event"]


@pytest.mark.timeout(60)
def test_nothing_is_lost_or_doubled_between_stored_and_live(clickhouse, clock):
    """While three threads write, readers that join, leave and come back see each matching event once, in order."""
    streams = TailStreams(clickhouse, clock)
    clickhouse.append(numbered(20))
    wanted = 20 + 3 * 25

    def write(name):
        for n in range(25):
            told = Event(ts_ns=10**18 + n, event="tool", tool=name, message=f"{name}{n}")
            clickhouse.append([told, told.replace(event="log", message="not asked for")])

    async def one(pieces):
        """Read so many events, leave, and come back with the last one's number; the last time, all that is left."""
        found = []
        for piece in pieces:
            enough = min(len(found) + piece, wanted)
            left = iter(range(enough - len(found) - 1, -1, -1))
            last = str(found[-1][0]) if found else ""
            read_on = await read(streams, until=lambda _, kind, __, left=left: kind == "event" and not next(left),
                                 line="event:tool", last=last)  # fmt: skip
            found = (found + [message for message in read_on if message[1] == "event"])[:enough]
        return found

    async def several():
        threads = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
        readers = [asyncio.create_task(one(pieces)) for pieces in ([wanted], [30, 20, wanted], [1, 1, 60, wanted])]
        await asyncio.sleep(0)
        for thread in threads:
            thread.start()
        results = await asyncio.gather(*readers)
        for thread in threads:
            thread.join()
        return results

    for found in asyncio.run(several()):
        numbers = [number for number, _, _ in found]
        assert numbers == sorted(set(numbers))
        expected = [str(n) for n in range(20)] + [f"{name}{n}" for name in "xyz" for n in range(25)]
        assert sorted(texts(found)) == sorted(expected)
    assert streams.tail.readers == 0


@given(
    steps=st.lists(st.integers(0, 4) | st.sampled_from(["read", "failed insert"]), max_size=30),
    capacity=st.integers(1, 6),
    limit=st.integers(1, 3),
)
def test_the_ring_counts_what_it_lost(steps, capacity, limit):
    """However writer and reader take turns: what was read and what was missed add up, in order and without overlap.

    The numbers of an insert that failed are nobody's: they are passed over, and shift no other event's.
    """
    tail = Tail(last=5, capacity=capacity)
    at, written, last, told, holes, read, missed = tail.join(lambda: None), 0, 5, 5, 0, [], 0
    for step in [*steps, *["read"] * 100]:
        if step == "read":
            stretch = tail.after(at, limit=limit)
            missed += stretch.missed
            read += [number for number, _ in stretch.events]
            assert all(int(event.message) == number for number, event in stretch.events)
            at = stretch.last
        elif step == "failed insert":
            last += 2
            holes += 2
        else:
            tail.add(numbered(step, first=last + 1), last=last + step)
            last += step
            written += step
            told = last
    assert at == told
    assert read == sorted(set(read))
    assert missed - holes <= written - len(read) <= missed


def test_a_failed_insert_shifts_no_number(clickhouse, clock, monkeypatch):
    """After an insert without an answer, the id of a message is still the sequence number in the store."""
    streams = TailStreams(clickhouse, clock)

    def refuse(_):
        raise StoreError("the disk is full")

    async def follow():
        body = streams.response({"limit": "0"}, "").body_iterator
        first = await anext(body)
        clickhouse.append(numbered(2))
        with monkeypatch.context() as patch:
            patch.setattr(clickhouse, "_insert", refuse)
            with pytest.raises(StoreError):
                clickhouse.append(numbered(3, first=2))
        clickhouse.append(numbered(2, first=5))
        rest = await anext(body)
        await body.aclose()
        return messages([first, rest])

    _, *told = asyncio.run(follow())
    stored = clickhouse.rows(Statement("SELECT sequence, message FROM events ORDER BY sequence"))
    assert [(number, value["message"]) for number, _, value in told] == stored


def test_a_slow_reader_is_told_of_the_gap(clickhouse, clock):
    """What left the ring before a reader came back to it is one message with its count, before what is left."""
    streams = TailStreams(clickhouse, clock)
    streams.tail = Tail(last=clickhouse.last_sequence, capacity=3)

    async def slowly():
        body = streams.response({"limit": "0"}, "").body_iterator
        first = await anext(body)
        clickhouse.append(numbered(10))
        second = await anext(body)
        await body.aclose()
        return messages([first, second])

    ready, gap, *left = asyncio.run(slowly())
    assert (ready, gap) == ((0, "ready", {"sequence": 0}), (7, "gap", {"missed": 7}))
    assert [(number, value["message"]) for number, _, value in left] == [(8, "7"), (9, "8"), (10, "9")]


def test_a_tail_begins_with_the_newest(clickhouse, clock):
    """Without an id it begins with the newest that match, oldest of them first, inside since:; closing ends it."""
    streams = TailStreams(clickhouse, clock)
    now = clock.now_ns()
    clickhouse.append(Event(ts_ns=now - n * 60 * 10**9, event="log", message=str(n)) for n in range(9))

    async def all_of(**arguments):
        streams.close()
        return messages([chunk async for chunk in streams.response(arguments, "").body_iterator])

    assert texts(asyncio.run(all_of(limit="3"))) == ["2", "1", "0"]
    assert texts(asyncio.run(all_of(q="since:90s"))) == ["1", "0"]
    for wrong in (
        {"q": "until:1h"},
        {"q": "| count"},
        {"limit": "x"},
        {"limit": "1001"},
        {"limit": "0000009999"},
        {"from": "1h"},
    ):
        with pytest.raises(InputError):
            streams.response(wrong, "")


def test_an_open_store_is_looked_at_again_and_again(clickhouse):
    """Where no server runs, the command line looks for new sequence numbers, more than a page of them too."""
    clickhouse.append(numbered(3))
    looking = LocalApi(clickhouse, (), Settings()).follow("tool:a", limit=2)
    assert [next(looking)[1].message for _ in range(2)] == ["1", "2"]
    clickhouse.append([*numbered(1_500, first=3), *numbered(5, tool="b")])
    assert [next(looking)[1].message for _ in range(1_500)] == [str(n) for n in range(3, 1_503)]
    looking.close()


@pytest.mark.timeout(90)
def test_the_command_follows_a_server_through_its_restart(new_server):
    """``opsloop logs --follow`` prints what was there and what comes, goes on after a restart, and ends on Ctrl-C."""
    server = new_server()
    server.start()
    port = server.url.rpartition(":")[2]

    def send(batch):
        body = b"\n".join(map(encode_event, batch))
        server.ask("/api/events", body=body, headers={"Content-Type": "application/x-ndjson"})

    stamped = numbered(6, start_ns=SystemClock().now_ns())
    send(stamped[:2])
    command = [sys.executable, "-m", "opsloop.cli", "logs", "tool:a", "--follow", "--json", "--url", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as follower:
        try:
            lines = [follower.stdout.readline() for _ in range(2)]
            send(stamped[2:4])
            lines += [follower.stdout.readline() for _ in range(2)]
            assert server.stop() == 0
            server.start(port=port)
            send(stamped[4:])
            lines += [follower.stdout.readline() for _ in range(2)]
        finally:
            follower.send_signal(signal.SIGINT)
        assert follower.stdout.read() == ""
    assert follower.returncode == 0
    assert [decode_event(line) for line in lines] == stamped


def test_an_export_comes_over_http(new_server, tmp_path):
    """The command writes the file that the server makes, whole or not at all."""
    server = new_server()
    server.start()
    batch = numbered(5_000, start_ns=SystemClock().now_ns() - 10**9)
    body = b"\n".join(map(encode_event, batch))
    server.ask("/api/events", body=body, headers={"Content-Type": "application/x-ndjson"})
    options = ["--url", server.url, "--export"]
    for name in ("out.jsonl", "out.csv", "out.parquet", "out.xlsx"):
        command = [sys.executable, "-m", "opsloop.cli", "logs", "tool:a", *options, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == (2 if name == "out.xlsx" else 0), done.stderr
    assert [decode_event(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()] == batch
    assert (tmp_path / "out.csv").read_bytes().count(b"\n") == 5_001
    assert (tmp_path / "out.parquet").read_bytes()[:4] == b"PAR1"
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.csv", "out.jsonl", "out.parquet"]
    with urllib.request.urlopen(f"{server.url}/api/logs/export?format=csv", timeout=30) as answer:
        assert answer.headers["Content-Disposition"] == 'attachment; filename="events.csv"'
