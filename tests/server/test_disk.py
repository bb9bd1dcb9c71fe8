"""A disk that is full, read-only, not ours, or has lost bytes: what is said, to whom, and that nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import urllib.error
from pathlib import Path

import pytest

from opsloop.clock import SystemClock

pytestmark = pytest.mark.timeout(180)  # servers and commands start a dozen times
LINES = {"Content-Type": "application/x-ndjson"}
CLI = (sys.executable, "-m", "opsloop.cli")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 48 MiB of its own, where mounting one is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, *, leave=0):
    """Fill a disk but for ``leave`` bytes; return the file that does it."""
    ballast = folder / "ballast"
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):  # there is no space left
        while True:
            os.write(handle, bytes(4096))
    os.close(handle)
    os.truncate(ballast, max(0, ballast.stat().st_size - leave))
    return ballast


def lines(name, *, count=20, days=1, size=10):
    """Return events of today and the days before, with ids and messages that do not compress."""
    now_ns = SystemClock().now_ns()
    rows = [
        {
            "ts_ns": now_ns - number % days * 86_400 * 10**9,
            "event": "log",
            "event_id": f"{name}-{number}",
            "message": os.urandom(size).hex(),
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def send(server, body):
    """Send lines; return the status, Retry-After and the problem."""
    try:
        return 200, None, server.ask("/api/events", body=body, headers=LINES)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Retry-After"], json.loads(error.read())


def stored(server):
    """Return the ids that are stored, in order."""
    return sorted(event["event_id"] for event in server.ask("/api/logs?limit=1000&from=30d")["events"])


def test_a_full_disk_is_said_and_got_over(new_server, small_disk):
    """503 with Retry-After while there is no space, health says why, reading goes on; with space storing goes on."""
    server = new_server()
    server.folder = small_disk / "store"
    server.start()
    assert send(server, lines("first"))[0] == 200
    ballast = fill(small_disk)
    retried = lines("second", days=4)
    for _ in range(2):
        status, retry_after, problem = send(server, retried)
        assert (status, retry_after) == (503, "1")
        assert problem["detail"].startswith(f"cannot write 20 events to {server.folder}: ")
        assert "not enough space" in problem["detail"]
        assert problem["fix"].startswith("free some space there or keep fewer days; nothing acknowledged is lost")
    health = server.ask("/health")
    assert (health["status"], health["last_commit_failure"]) == ("degraded", f"{problem['detail']}; {problem['fix']}")
    assert stored(server) == sorted(f"first-{number}" for number in range(20))

    server.kill()
    server.start()  # a store that is there is opened on a full disk too, to be read and to drop old days
    assert len(stored(server)) == 20
    assert send(server, retried)[0] == 503

    ballast.unlink()
    assert send(server, retried)[0] == 200
    assert server.ask("/health")["status"] == "ok"
    assert stored(server) == sorted(f"{name}-{number}" for name in ("first", "second") for number in range(20))
    assert server.stop() == 0


def test_a_new_store_on_a_full_disk_is_refused(small_disk):
    """Nothing half-made is left behind: the same command works once there is space."""
    ballast = fill(small_disk, leave=1024 * 1024)
    store = str(small_disk / "store")
    done = subprocess.run([*CLI, "ingest", "-", "--store", store], input=lines("a"), capture_output=True, check=False)
    assert done.returncode == 3
    said = done.stderr.decode()
    assert "No space left on device for new tables in" in said
    assert "free 16 MiB there, or choose another folder with --store" in said
    ballast.unlink()
    done = subprocess.run([*CLI, "ingest", "-", "--store", store], input=lines("a"), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_read_only_disk_is_refused(new_server, small_disk):
    """The sentence says what the system said, and where."""
    server = new_server()
    server.folder = small_disk / "store"
    server.start()
    server.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, _, said = cli(server, "up", "--port", "0")
    refusal = f"cannot write in the store's folder {server.folder}: Read-only file system"
    assert (code, said) == (3, f"opsloop: {refusal}; choose a folder that can be written with --store\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that another user may not write")
def test_a_folder_of_another_user_is_refused():
    """Both the folder and what the engine has in it are looked at before the engine is, and named."""
    code = """
        import os, sys
        from opsloop.errors import StoreError
        from opsloop.store import ClickHouseStream
        ClickHouseStream(sys.argv[1]).close()
        os.chmod(sys.argv[1], 0o777)
        os.chmod(sys.argv[1] + "/owner.lock", 0o666)
        for place in sys.argv[1:]:
            os.seteuid(65534)
            try:
                ClickHouseStream(place)
            except StoreError as error:
                print(error)
            os.seteuid(0)
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "shut").mkdir(mode=0o755)
        command = [sys.executable, "-c", textwrap.dedent(code), f"{folder}/store", f"{folder}/shut"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"cannot write {folder}/store/clickhouse: Permission denied; "
        "give this user the right to write there, or choose another folder with --store\n"
        f"cannot write in the store's folder {folder}/shut: Permission denied; "
        "choose a folder that can be written with --store\n"
    )


def parts(server, file="data.bin"):
    """Return a file of every part of the events, oldest day first."""
    return sorted((server.folder / "clickhouse" / "store").glob(f"*/*/2*/{file}"))


def cli(server, *arguments):
    """Run a command on the server's store; return (exit code, output, errors)."""
    done = subprocess.run(
        [*CLI, *arguments, "--store", str(server.folder)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_part_that_is_lost_is_never_silent(new_server):
    """A file of a part is gone: the server starts, says which rows may be missing, and takes them again."""
    server = new_server().start()
    body = lines("a", count=60, days=3)
    assert send(server, body)[0] == 200
    server.stop()
    lost, *_ = parts(server)
    lost.unlink()
    day = lost.parent.name[:8]
    sentence = (
        f"part {lost.parent.name} of events is damaged (broken-on-start): "
        f"20 rows of {day[:4]}-{day[4:6]}-{day[6:]} may be missing"
    )
    server.start()
    health = server.ask("/health")
    assert (health["status"], [part["message"] for part in health["damaged_parts"]]) == ("degraded", [sentence])
    assert len(stored(server)) == 40
    assert sentence in cli(server, "store")[1]
    assert send(server, body)[0] == 200
    assert len(stored(server)) == 60
    server.stop()
    assert f"{sentence}; its files are in {lost.parents[1]}/detached/" in cli(server, "logs")[2]


def test_bytes_that_changed_are_found_and_set_aside(new_server):
    """Flipped bytes in a part: a question that reads them says so, a check names the part, and without it all works."""
    server = new_server().start()
    assert send(server, lines("a", count=60, days=3))[0] == 200
    server.stop()
    path, *_ = parts(server)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
    path.write_bytes(data)
    code, said, _ = cli(server, "store", "check")
    part = path.parent.name
    assert code == 1
    assert said.startswith(f"part {part} of events is damaged (CHECKSUM_DOESNT_MATCH): 20 rows of ")

    server.start()
    status, _, problem = server.refused("/api/logs?limit=1000&from=30d")
    assert status == 503
    assert "opsloop store check names it" in json.loads(problem)["fix"]
    assert cli(server, "store", "check", "--set-aside")[0] == 1
    assert len(stored(server)) == 40
    assert server.ask("/health")["damaged_parts"][0]["rows"] == 20
    shutil.rmtree(server.ask("/api/store")["damaged_parts"][0]["path"])
    assert cli(server, "store", "check")[:2] == (0, "every part is what was written\n")
    assert server.ask("/health")["status"] == "ok"
