"""Where a store can be, who owns it, and what is said when it cannot be had."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from opsloop.errors import ConfigError, StoreBusyError, StoreError
from opsloop.event import Event
from opsloop.store import ClickHouseStream
from opsloop.store.owner import FolderLock, Owner, owner_of


def run(code, *arguments):
    """Run code in a process of its own, since an engine serves one folder per process."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip(), done.stderr


def test_a_folder_keeps_its_events(tmp_path):
    """Events, ids and the order of arrival survive closing and opening again."""
    code = """
        import sys
        from opsloop.event import Event
        from opsloop.store import ClickHouseStream
        with ClickHouseStream(sys.argv[1]) as stream:
            added = stream.append([Event(ts_ns=10**18, event="log", event_id="a"), Event(ts_ns=10**18, event="log")])
            print(added, len(stream.query()))
    """
    assert run(code, tmp_path / "new" / "store")[0] == "2 2"
    assert run(code, tmp_path / "new" / "store")[0] == "1 3"


def test_a_second_owner_is_told_who_the_first_is(tmp_path):
    """A folder that is open in another process names that process and its address; a free one has no owner."""
    lock = FolderLock(tmp_path)
    lock.publish("http://127.0.0.1:4318")
    owner = owner_of(tmp_path)
    assert owner is not None
    assert owner.url == "http://127.0.0.1:4318"
    with pytest.raises(StoreBusyError, match=rf"is open in process {owner.pid} at http://127.0.0.1:4318; stop that"):
        FolderLock(tmp_path)
    lock.release()
    assert owner_of(tmp_path) is None


def test_the_lock_ends_with_its_process(tmp_path):
    """A killed owner leaves the folder free."""
    code = """
        import os, signal, sys
        from pathlib import Path
        from opsloop.store.owner import FolderLock
        lock = FolderLock(Path(sys.argv[1]))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run(code, tmp_path)
    assert owner_of(tmp_path) is None
    FolderLock(tmp_path).release()


def test_whoever_only_looks_does_not_keep_an_owner_out(tmp_path):
    """A command that asks who holds the folder has the lock for a moment; a server that starts just then gets it."""
    stop = threading.Event()

    def look():
        while not stop.wait(0.001):
            owner_of(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            FolderLock(tmp_path).release()
    finally:
        stop.set()
        looking.join()


def test_a_file_that_a_full_disk_left_empty_is_named(tmp_path):
    """The engine would say so on its own error output only; the sentence names the file and what can be done."""
    metadata = tmp_path / "clickhouse" / "metadata"
    metadata.mkdir(parents=True)
    (metadata / "opsloop.sql").touch()
    with pytest.raises(
        StoreError, match=r"opsloop\.sql is empty: the disk was full when it was written.*; put it back"
    ):
        ClickHouseStream(str(tmp_path))


def test_a_torn_lock_file_names_nobody(tmp_path):
    """A lock whose text cannot be read still holds."""
    lock = FolderLock(tmp_path)
    (tmp_path / "owner.lock").write_bytes(b"{")
    assert owner_of(tmp_path) == Owner()
    lock.release()


def test_a_path_that_is_a_file_is_refused(tmp_path):
    """The error says that it is a file, and what to do."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"cannot make the store's folder .*: File exists; choose a folder"):
        ClickHouseStream(str(tmp_path / "file"))


def test_an_unknown_scheme_is_refused():
    """A DSN of another database is named."""
    with pytest.raises(ConfigError, match="unknown store 'postgres://x'; use a folder"):
        ClickHouseStream("postgres://x")


def test_a_server_that_does_not_answer_is_an_error_of_the_store():
    """Nothing listens on port 1 of this machine."""
    with pytest.raises(StoreError, match=r"cannot open the store at clickhouse://127\.0\.0\.1:1/x"):
        ClickHouseStream("clickhouse://127.0.0.1:1/x")
    with pytest.raises(StoreError, match=r"at clickhouse://ann:\*\*\*@127\.0\.0\.1:1/x: ") as caught:
        ClickHouseStream("clickhouse://ann:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)


def test_decisions_are_recognised_however_old(clickhouse):
    """An alert written twice is stored once, even when its id is no longer remembered."""
    alert = Event(ts_ns=10**18, event="alert", event_id="alert:1")
    clickhouse.append([alert])
    clickhouse._recent.clear()
    clickhouse._older.clear()
    assert clickhouse.append([alert]) == 0


def test_a_closed_store_says_so(clickhouse_engine):
    """Writing after closing is an error, not a crash; closing twice is nothing."""
    stream = ClickHouseStream(":memory:", database="closed")
    stream.close()
    stream.close()
    with pytest.raises(StoreError, match="is closed; open it again"):
        stream.append([Event(ts_ns=10**18, event="log")])
