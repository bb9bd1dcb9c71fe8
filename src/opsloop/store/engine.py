"""What the embedded engine is told at its start, and the file that hands rows to it.

Rule
    New parts are written with LZ4, which takes a fraction of the time, and merged with ZSTD: nearly all bytes are in
    parts that were merged. Columns have the engine's default codec, and the engine is told when it is which. A server
    has a setting of the table instead, since its configuration is not ours.
Limits
    The engine reads this once, with the first client of a process.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from opsloop.store.ddl import literal

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["FileInsert", "engine_options"]

_CACHES: Final = {
    # The engine's own defaults are 5 GiB each and suit a server; these suit a laptop.
    "mark_cache_size": str(64 * 1024 * 1024),
    "uncompressed_cache_size": str(16 * 1024 * 1024),
    "index_mark_cache_size": str(16 * 1024 * 1024),
}
_CONFIGURATION: Final = b"""<clickhouse><compression><case>
<min_part_size>1</min_part_size><min_part_size_ratio>0</min_part_size_ratio><method>zstd</method><level>1</level>
</case></compression></clickhouse>"""
"""Of what an insert writes, the size counts as 0: it has the engine's own default, LZ4."""
_INSERT: Final = "max_threads = 1, input_format_defaults_for_omitted_fields = 0"
"""A file is one block: a second thread would wait for the first. To look for defaults, of which there are none, costs a
small insert a tenth."""
_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Up to what size the file is kept between inserts."""


def engine_options() -> dict[str, str]:
    """Return the options of a client of the embedded engine."""
    return {**_CACHES, "config-file": _path(_configuration())}


@cache
def _configuration() -> int:
    """Return a file with the configuration, which is there as long as the process: any of its clients may be first."""
    file = _nameless_file()
    os.write(file, _CONFIGURATION)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _nameless_file() -> int:
    """Return a new file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("opsloop")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _path(file: int) -> str:
    """Return under which name this process can open a file that has none."""
    return f"/dev/fd/{file}"


class FileInsert:
    """Inserts rows by a file, as the client itself would, but without a list of columns: to match one is quadratic.

    The file has no name and is written over and over: a new one for every insert costs a tenth of it.
    """

    def __init__(self) -> None:
        """Open the file."""
        self._file: Any = os.fdopen(_nameless_file(), "w+b", buffering=0)
        path = literal(_path(self._file.fileno()))
        self._sql = f"INSERT INTO events FROM INFILE {path} SETTINGS {_INSERT} FORMAT Arrow"

    def insert(self, client: Client, data: pa.Table) -> None:
        """Insert rows; nobody else may meanwhile."""
        self._file.seek(0)
        with pa.ipc.new_file(self._file, data.schema) as writer:
            writer.write(data)
        size = self._file.tell()
        self._file.truncate()
        self._file.seek(0)  # where some systems begin to read what has been opened already
        try:
            client.command(self._sql)
        finally:
            if size > _KEPT_BYTES:
                self._file.truncate(_KEPT_BYTES)

    def close(self) -> None:
        """Give the memory back."""
        self._file.close()
