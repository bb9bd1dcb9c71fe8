"""What can be wrong with the place of a store, and what the engine says of it, in one sentence with what to do.

The engine names its failures by a word in capitals and the system by its message; what to do about each stands here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from opsloop.errors import StoreError

__all__ = ["check_folder", "check_space", "named_errors"]

NEEDED_BYTES: Final = 16 * 1024 * 1024
"""A table that is made on a full disk can leave a file behind that is empty, and a store that never opens again."""
FIXES: Final = (
    (
        ("NOT_ENOUGH_SPACE", "No space left on device", "Disk quota exceeded"),
        "free some space there or keep fewer days; nothing acknowledged is lost, and storing goes on by itself",
    ),
    (("Read-only file system",), "mount it writable, or choose another folder with --store"),
    (
        ("Permission denied", "Operation not permitted"),
        "give this user the right to write there, or choose another folder with --store",
    ),
    (
        ("CHECKSUM_DOESNT_MATCH", "while reading from part"),
        "a part of the store is damaged: opsloop store check names it, and --set-aside makes the rest readable",
    ),
    (("MEMORY_LIMIT_EXCEEDED",), "ask for less at once, or give the process more memory"),
)


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into ours, with what was being done and what can be done about it."""
    try:
        yield
    except (ClickHouseError, OSError) as cause:
        text = " ".join(str(cause).split())
        raise StoreError(f"{what}: {text[:400]}", fix=_fix(text)) from cause


def check_folder(folder: Path) -> None:
    """Refuse a folder that the engine could not open, and would only say so on its own error output.

    Raises :class:`StoreError` naming the file that cannot be written, or was left empty by a disk that was full.
    """
    engine = folder / "clickhouse"
    effective = os.access in os.supports_effective_ids
    for path in (engine, engine / "status", engine / "metadata", engine / "store"):
        if path.exists() and not os.access(path, os.W_OK, effective_ids=effective):
            message = f"cannot write {path}: Permission denied"
            raise StoreError(message, fix=_fix(message))
    for path in (engine / "metadata").glob("**/*.sql"):
        if path.stat().st_size == 0:
            raise StoreError(
                f"{path} is empty: the disk was full when it was written, and the store cannot be opened",
                fix=f"put it back from a backup, or move {folder} away and start anew",
            )


def check_space(folder: Path) -> None:
    """Refuse to make or change tables on a disk without room for it."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < NEEDED_BYTES:
        message = f"No space left on device for new tables in {folder}: {free // 1024:,} KiB are free"
        raise StoreError(message, fix=f"free {NEEDED_BYTES // 2**20} MiB there, or choose another folder with --store")


def _fix(text: str) -> str:
    for words, fix in FIXES:
        if any(word in text for word in words):
            return fix
    return "check --store and the space and rights there"
