"""Who owns a store's folder: an advisory lock that names its holder.

The embedded engine allows one process per folder and reports a second one without saying who the first is. The lock
says it, and carries the holder's address, so that a command line finds the running server instead of failing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

import msgspec

from opsloop.errors import StoreBusyError, StoreError

__all__ = ["FolderLock", "Owner", "owner_of"]

LOCK_NAME = "owner.lock"
LOOKS = 5
LOOK_SECONDS = 0.02


class Owner(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process that holds a folder."""

    pid: int = 0
    url: str = ""
    """Where its HTTP API answers, when it is a server."""


class FolderLock:
    """Holds a folder until :meth:`release` or the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; raises :class:`StoreBusyError` naming the process that has it."""
        self._path = folder / LOCK_NAME
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as cause:
            message = f"cannot write in the store's folder {folder}: {cause.strerror}"
            raise StoreError(message, fix="choose a folder that can be written with --store") from cause
        try:
            _lock(self._file)
        except OSError as cause:
            os.close(self._file)
            owner = _read(self._path)
            who = f"process {owner.pid}" if owner.pid else "another process"
            at = f" at {owner.url}" if owner.url else ""
            raise StoreBusyError(
                f"the store {folder} is open in {who}{at}",
                fix="stop that process, ask it with --url, or choose another folder with --store",
            ) from cause
        self.publish("")

    def publish(self, url: str) -> None:
        """Write this process and its address into the lock, for whoever finds it taken.

        What stood there is written over, never cut first, so that a store on a full disk can still be opened and read.
        """
        text = msgspec.json.encode(Owner(os.getpid(), url))
        try:
            os.pwrite(self._file, text, 0)
            os.ftruncate(self._file, len(text))
        except OSError as cause:
            fix = "free some space there, or choose another folder with --store"
            raise StoreError(f"cannot write {self._path}: {cause.strerror}", fix=fix) from cause

    def release(self) -> None:
        """Let the folder go. The text stays; without the lock it names nobody."""
        os.close(self._file)


def _lock(file: int) -> None:
    """Take the lock; a little later if need be, since whoever only looks at it holds it for a moment."""
    for _ in range(LOOKS):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        threading.Event().wait(LOOK_SECONDS)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def owner_of(folder: str | Path) -> Owner | None:
    """Return who holds a folder now, or ``None`` when nobody does."""
    path = Path(folder).expanduser() / LOCK_NAME
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    except OSError:
        return None
    return None


def _read(path: Path) -> Owner:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError):
        return Owner()
