"""A spool on disk: what was put in survives a crash of the application, of the server, and of both.

Objects
    A spool is a folder. Each process that writes has a folder of its own in it, held by a lock that ends with the
    process, and in that numbered segments of frames: length, CRC-32, payload. A segment is closed at a size or an age
    and deleted when everything in it has been taken; the oldest goes, counted, when the folder has grown to its bound.
Rule
    A frame is in the file before :meth:`Spool.put` returns, so SIGKILL loses nothing. Whoever starts takes over the
    folders whose lock is free. A tail that a crash has torn is cut at its last whole frame, and counted.
Limits
    A crash of the machine loses what the operating system had not written, unless ``fsync`` is set. What was taken from
    a segment that is not yet deleted is read again after a crash: the reader must know twice from once, which events
    with an ``event_id`` do.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from opsloop.clock import NANOSECONDS, Clock, Ids, SystemClock, SystemIds

__all__ = ["Batch", "Segment", "Spool", "frames", "read_frames"]

_HEADER: Final = struct.Struct("<II")
_MOST_BYTES: Final = 1 << 30
"""A longer frame is no frame: the length is torn."""


def frames(payloads: Sequence[bytes]) -> bytes:
    r"""Return payloads as frames: length and CRC-32 (both little-endian, 32 bits), then the payload.

    >>> frames([b"a"])
    b'\x01\x00\x00\x00C\xbe\xb7\xe8a'
    """
    return b"".join(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload for payload in payloads)


def read_frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each payload with the offset behind it, up to the first frame that is not whole.

    >>> [payload for payload, _ in read_frames(frames([b"one", b"two"])[:-1])]
    [b'one']
    """
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, offset)
        start = offset + _HEADER.size
        payload = data[start : start + length]
        if length > _MOST_BYTES or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        offset = start + length
        yield payload, offset


class Segment:
    """One file of frames, of which the first ``taken`` have been taken."""

    def __init__(self, path: Path, *, count: int = 0, size: int = 0) -> None:
        """Describe a file that holds ``count`` frames in its first ``size`` bytes."""
        self.path = path
        self.count = count
        self.size = size
        self.taken = 0
        self.offset = 0
        """Where the first frame begins that was not taken."""

    @property
    def waiting(self) -> int:
        """How many frames were not taken yet."""
        return self.count - self.taken

    def read(self, most: int, most_bytes: int) -> list[tuple[bytes, int]]:
        """Return up to ``most`` payloads after those taken, at least one, with the offset behind each.

        ``most_bytes`` bounds them all together, unless the first alone is longer.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(min(self.size - self.offset, most_bytes + (1 << 16)))
            found = self._first(data, most, most_bytes)
            if not found:  # one frame longer than the bound
                data += file.read(self.size - self.offset - len(data))
                found = self._first(data, 1, len(data))
        return found

    def _first(self, data: bytes, most: int, most_bytes: int) -> list[tuple[bytes, int]]:
        found: list[tuple[bytes, int]] = []
        for payload, behind in read_frames(data):
            if found and (len(found) >= most or behind > most_bytes):
                break
            found.append((payload, self.offset + behind))
        return found


class Batch(NamedTuple):
    """Payloads that were looked at, to be handed back to :meth:`Spool.take` once they are safe elsewhere."""

    payloads: list[bytes]
    origin: Any = None
    """Where they are, for whoever gave the batch."""
    behind: int = 0


class Spool:
    """A bounded queue of payloads on disk. Safe between threads; each process, a forked child too, needs its own.

    ``torn`` counts tails that were cut, ``dropped`` payloads that the bound cost, ``replayed`` payloads of processes
    that ended before theirs were taken.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spool = Spool(folder)
    ...     spool.put([b"one", b"two"])
    ...     spool.close()  # or a crash
    ...     again = Spool(folder)
    ...     batch = again.peek(1)
    ...     again.take(batch)
    ...     again.replayed, batch.payloads, again.peek(9).payloads
    (2, [b'one'], [b'two'])
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        segment_bytes: int = 1024 * 1024,
        segment_seconds: float = 60.0,
        fsync: bool = False,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        """Open or make the folder, and take over what others have left; raises ``OSError`` when that cannot be."""
        if segment_bytes > max_bytes:
            raise ValueError(f"a segment of {segment_bytes} bytes does not fit into {max_bytes}")
        self.torn = 0
        self.dropped = 0
        self.replayed = 0
        self._root = Path(folder)
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._segment_ns = round(segment_seconds * NANOSECONDS)
        self._fsync = fsync
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._segments: deque[Segment] = deque()
        self._file = -1
        self._opened_ns = 0
        self._number = 0
        self._root.mkdir(parents=True, exist_ok=True)
        self._locks: dict[Path, int] = {}
        self._ids = ids or SystemIds()
        self._own = self._folder()
        self._adopt()

    def put(self, payloads: Sequence[bytes]) -> None:
        """Append payloads in order; they are in the file when this returns. Raises ``OSError`` if the disk refuses."""
        if not payloads:
            return
        data = frames(payloads)
        with self._lock:
            segment = self._writable()
            self._bound(len(data))
            try:
                written = os.write(self._file, data)
                while written < len(data):
                    written += os.write(self._file, data[written:])
                if self._fsync:
                    os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, segment.size)  # the next frame must not follow half of one
                raise
            segment.size += len(data)
            segment.count += len(payloads)

    def peek(self, most: int, *, most_bytes: int = 4 * 1024 * 1024) -> Batch:
        """Return the oldest payloads without taking them: at most ``most``, of one segment.

        A segment that somebody has deleted or broken meanwhile is counted in ``dropped``. Raises ``OSError`` when the
        disk refuses.
        """
        with self._lock:
            for segment in [segment for segment in self._segments if segment.waiting]:
                try:
                    found = segment.read(min(most, segment.waiting), most_bytes)
                except FileNotFoundError:
                    found = []
                if found:
                    return Batch([payload for payload, _ in found], segment, found[-1][1])
                self._lose(segment)
        return Batch([])

    def take(self, batch: Batch) -> None:
        """Forget the payloads of the last batch; a segment without any left is emptied or deleted."""
        segment = batch.origin
        with self._lock:
            if segment not in self._segments:
                return  # the bound has cost it meanwhile
            segment.taken += len(batch.payloads)
            segment.offset = batch.behind
            if segment.waiting:
                return
            if segment is self._segments[-1] and self._file >= 0:
                os.ftruncate(self._file, 0)
                segment.count = segment.size = segment.taken = segment.offset = 0
            else:
                self._segments.remove(segment)
                self._delete(segment)

    def close(self) -> None:
        """End writing and let go of the folder; what was not taken stays for whoever starts next."""
        with self._lock:
            self._seal()
            for folder in list(self._locks):
                if not any(folder.glob("*.seg")):
                    self._release(folder)
            for lock in self._locks.values():
                os.close(lock)
            self._locks.clear()

    def abandon(self) -> None:
        """Let go of the files without a change to them: in a forked child, whose parent goes on writing."""
        for lock in self._locks.values():
            os.close(lock)
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self._locks.clear()
        self._segments.clear()

    def __len__(self) -> int:
        """Return how many payloads wait."""
        return sum(segment.waiting for segment in list(self._segments))

    def reopened(self) -> Spool:
        """Return a new spool over the same folder with the same bounds: for a forked child."""
        return Spool(
            self._root,
            max_bytes=self._max_bytes,
            segment_bytes=self._segment_bytes,
            segment_seconds=self._segment_ns / NANOSECONDS,
            fsync=self._fsync,
            clock=self._clock,
        )

    def _folder(self) -> Path:
        """Make a folder of our own; it has its name, by which others find it, only once it is locked."""
        name = self._ids.trace_id()
        new, own = self._root / f".{name}", self._root / name
        new.mkdir()
        self._locks[own] = _locked(new)
        new.rename(own)
        return own

    def _claim(self, folder: Path) -> bool:
        """Lock the folder of a process that is gone; return whether it was free."""
        try:
            self._locks[folder] = _locked(folder)
        except OSError:  # it lives, or another has just taken its folder over
            return False
        return True

    def _adopt(self) -> None:
        """Take over the segments of processes that are gone, oldest first; cut what a crash has torn."""
        found: list[tuple[int, str, Path]] = []
        for folder in self._root.iterdir():
            if folder != self._own and not folder.name.startswith(".") and folder.is_dir() and self._claim(folder):
                left = list(folder.glob("*.seg"))
                found += [(path.stat().st_mtime_ns, path.name, path) for path in left]
                if not left:
                    self._release(folder)
        for *_, path in sorted(found):
            count, size = 0, 0
            data = path.read_bytes()
            for _, behind in read_frames(data):
                count, size = count + 1, behind
            if size < len(data):
                self.torn += 1
                os.truncate(path, size)
            segment = Segment(path, count=count, size=size)
            if count:
                self._segments.append(segment)
                self.replayed += count
            else:
                self._delete(segment)
        self._bound(0)

    def _writable(self) -> Segment:
        """Return the segment to write to, a new one when the last is full, old, or not ours."""
        now_ns = self._clock.monotonic_ns()
        last = self._segments[-1] if self._file >= 0 else None
        if last is not None and last.size < self._segment_bytes and now_ns - self._opened_ns < self._segment_ns:
            return last
        self._seal()
        path = self._own / f"{self._number:08d}.seg"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number += 1
        self._opened_ns = now_ns
        segment = Segment(path)
        self._segments.append(segment)
        return segment

    def _seal(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if not self._segments[-1].waiting:
                self._delete(self._segments.pop())

    def _bound(self, more: int) -> None:
        """Delete the oldest segments until ``more`` bytes fit; the one that is written to stays."""
        size = sum(segment.size for segment in self._segments) + more
        while size > self._max_bytes and len(self._segments) > 1:
            oldest = self._segments.popleft()
            size -= oldest.size
            self.dropped += oldest.waiting
            self._delete(oldest)

    def _lose(self, segment: Segment) -> None:
        """Forget a segment of which no more can be read."""
        self.dropped += segment.waiting
        if segment is self._segments[-1] and self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._segments.remove(segment)
        self._delete(segment)

    def _delete(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        folder = segment.path.parent
        if folder != self._own and not any(folder.glob("*.seg")):
            self._release(folder)

    def _release(self, folder: Path) -> None:
        """Delete a folder that is empty, and let go of its lock."""
        shutil.rmtree(folder, ignore_errors=True)
        lock = self._locks.pop(folder, None)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int:
    """Take the lock of a folder, which the kernel frees when the process ends; raises ``OSError`` when it is held."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
