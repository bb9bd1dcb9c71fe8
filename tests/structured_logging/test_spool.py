"""The spool: what was put in comes out, once, whatever was killed, cut or full in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.structured_logging import Spool
from opsloop.structured_logging.spool import frames, read_frames

payloads = st.lists(st.binary(max_size=20), max_size=6)


@given(written=payloads, cut=st.integers(0, 40), flipped=st.integers(0, 200))
def test_frames_are_read_up_to_the_first_that_is_not_whole(written, cut, flipped):
    """A tail that is cut costs the frames that it touches; a flipped bit is never read as a payload."""
    data = frames(written)
    assert [payload for payload, _ in read_frames(data)] == written
    kept = [payload for payload, _ in read_frames(data[: len(data) - cut])]
    assert kept == written[: len(kept)]
    if flipped < len(data):
        broken = bytearray(data)
        broken[flipped] ^= 1
        read = [payload for payload, _ in read_frames(bytes(broken))]
        assert read == written[: len(read)]
        assert len(read) < len(written)


def drained(spool, most=3):
    """Take everything out, batch by batch."""
    found = []
    while batch := spool.peek(most):
        if not batch.payloads:
            return found
        found += batch.payloads
        spool.take(batch)
    return found


def numbered(first, count):
    """Return payloads that begin with their number."""
    return [b"%06d" % number for number in range(first, first + count)]


def test_what_is_put_in_comes_out_in_order_across_segments(tmp_path, clock):
    """Segments are closed by size and age, and deleted when they are read; nothing is left at the end."""
    spool = Spool(tmp_path, segment_bytes=50, segment_seconds=10, clock=clock)
    spool.put(numbered(0, 10))
    clock.advance(seconds=11)
    spool.put(numbered(10, 1))
    spool.put(numbered(11, 1))
    assert len(list(tmp_path.glob("*/*.seg"))) == 2
    assert len(spool) == 12
    assert drained(spool) == numbered(0, 12)
    spool.put(numbered(12, 2))
    assert drained(spool) == numbered(12, 2)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_left_is_taken_over_once(tmp_path):
    """A folder whose owner lives is left alone; one whose owner has gone is read by whoever comes first."""
    first = Spool(tmp_path)
    first.put(numbered(0, 3))
    assert Spool(tmp_path).replayed == 0
    first.close()
    second, third = Spool(tmp_path), Spool(tmp_path)
    assert (second.replayed, third.replayed) == (3, 0)
    assert drained(second) == numbered(0, 3)
    second.close()
    third.close()
    assert Spool(tmp_path).replayed == 0


def test_a_torn_tail_is_cut_and_counted(tmp_path):
    """Half a frame at the end of a segment is not fatal: the whole ones before it are read."""
    spool = Spool(tmp_path)
    spool.put(numbered(0, 4))
    spool.close()
    (path,) = tmp_path.glob("*/*.seg")
    with path.open("ab") as file:
        file.write(frames(numbered(4, 1))[:-2])
    again = Spool(tmp_path)
    assert (again.replayed, again.torn) == (4, 1)
    assert drained(again) == numbered(0, 4)


def test_the_bound_costs_the_oldest_and_counts_them(tmp_path):
    """The folder never grows over its bound by more than a segment; what it cost is known, even under a reader."""
    spool = Spool(tmp_path, max_bytes=140, segment_bytes=70)
    looked_at = spool.peek(1)
    for number in range(40):
        spool.put(numbered(number, 1))
        if number == 0:
            looked_at = spool.peek(1)
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*.seg")) <= 140 + 14
    spool.take(looked_at)
    left = drained(spool)
    assert left == numbered(40 - len(left), len(left))
    assert spool.dropped == 40 - len(left)
    with pytest.raises(ValueError, match="a segment of 70 bytes does not fit into 10"):
        Spool(tmp_path, max_bytes=10, segment_bytes=70)


def test_a_killed_writer_loses_nothing_that_it_had_put(tmp_path):
    """SIGKILL at any moment: everything whose put had returned is read by the next process, in order."""
    code = (
        "import sys\nfrom opsloop.structured_logging import Spool\n"
        f"spool = Spool({str(tmp_path / 'spool')!r}, segment_bytes=2000)\n"
        "number = 0\n"
        "while True:\n"
        "    spool.put([b'%06d' % (number + n) for n in range(5)])\n"
        "    number += 5\n"
        "    sys.stdout.write(f'{number}\\n'); sys.stdout.flush()\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(300):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged = 1500 + 5 * len(writer.stdout.read().splitlines())
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    found = drained(Spool(tmp_path / "spool"), most=100)
    assert len(found) >= acknowledged
    assert found == numbered(0, len(found))


def test_a_full_disk_is_raised_and_got_over(tmp_path):
    """A put that the disk refuses half-way is taken back whole; what was put before and after it is read."""
    code = (
        "import resource, sys\nfrom opsloop.structured_logging import Spool\n"
        f"spool = Spool({str(tmp_path / 'spool')!r})\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))\n"
        "number, refused = 0, 0\n"
        "while refused < 2:\n"
        "    try:\n"
        "        spool.put([b'%06d' % number] * 7)\n"
        "        number += 1\n"
        "    except OSError:\n"
        "        refused += 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "spool.put([b'%06d' % number] * 7)\n"
        "print(number)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole = int(done.stdout)
    assert whole == 1000 // (7 * 14)
    spool = Spool(tmp_path / "spool")
    assert (drained(spool, most=100), spool.torn) == (
        [b"%06d" % number for number in range(whole + 1) for _ in range(7)],
        0,
    )


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 99)])
@pytest.mark.parametrize("last", [True, False])
def test_a_segment_that_is_lost_meanwhile_is_counted_and_passed_by(tmp_path, harm, last):
    """Somebody empties the folder of a running process, or its disk fails: the rest is read, and writing goes on."""
    spool = Spool(tmp_path, segment_bytes=10)
    spool.put(numbered(0, 3))
    spool.put(numbered(3, 3))
    harm(sorted(tmp_path.glob("*/*.seg"))[-1 if last else 0])
    assert drained(spool) == (numbered(0, 3) if last else numbered(3, 3))
    assert (spool.dropped, len(spool)) == (3, 0)
    spool.put(numbered(6, 3))
    assert drained(spool) == numbered(6, 3)
    spool.close()
