"""The command line, on a store of its own and against what it says to what is wrong."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from opsloop.clock import NANOSECONDS, SystemClock, utc
from opsloop.event import encode_event
from opsloop.sim import Fault, SupportBot

ROOT = Path(__file__).parents[2]
HOUR = 3600 * NANOSECONDS


def opsloop(*arguments, cwd, code=0, stdin=None):
    """Run ``opsloop`` in a folder; return (standard output, standard error)."""
    command = [sys.executable, "-W", "error", "-m", "opsloop.cli", *map(str, arguments)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OPSLOOP_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environ, input=stdin, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder whose store holds an hour of a bot whose retriever broke lately, and what it does while tests run."""
    folder = tmp_path_factory.mktemp("cli")
    now_ns = SystemClock().now_ns()
    until_ns = now_ns + HOUR // 4
    fault = Fault("retriever_outage", now_ns - HOUR // 4, until_ns, 0.5)
    bot = SupportBot(start_ns=now_ns - HOUR, seed=1, faults=[fault])
    events = list(bot.events(now_ns - HOUR, until_ns))
    (folder / "bot.jsonl").write_bytes(b"".join(encode_event(event) + b"\n" for event in events))
    out, _ = opsloop("ingest", "bot.jsonl", cwd=folder)
    assert out == f"{len(events):,} events stored in .opsloop, 0 lines rejected\n"
    return folder


def test_failed_retrievals_are_found_and_one_is_told_whole(filled):
    """The query finds failures only, as lines that can be ingested again, and correlate tells one of them."""
    asked = ("logs", "event:retrieve tool:retrieve error:true", "--json", "--to", utc(SystemClock().now_ns()))
    out, _ = opsloop(*asked, cwd=filled)
    found = [json.loads(line) for line in out.splitlines()]
    assert found
    assert all(event["event"] == "retrieve" and event["error"] for event in found)
    story, _ = opsloop("logs", "--correlate", found[0]["request_id"], cwd=filled)
    assert found[0]["request_id"] in story
    assert found[0]["message"][:30] in story
    assert (
        opsloop("ingest", "-", cwd=filled, stdin=out)[0]
        == f"{len(found):,} events stored in .opsloop, 0 lines rejected\n"
    )
    again, _ = opsloop(*asked, cwd=filled)
    assert sorted(again.splitlines()) == sorted(out.splitlines())


def test_the_dashboard_shows_signals_burn_and_verdicts(filled):
    """Four signals with objectives, the retrieval in breach, and each SLO's tiers."""
    out, _ = opsloop("dashboard", cwd=filled)
    for part in ("latency", "errors", "saturation", "retrieval", "requests/s", "availability", "14.4×", "◆", "BREACH"):
        assert part in out
    answer = json.loads(opsloop("dashboard", "--json", cwd=filled)[0])
    verdicts = {reading["id"]: reading["verdict"] for reading in answer["readings"]}
    assert verdicts["retrieval"] == "BREACH"
    text, _ = opsloop("dashboard", "--explain", "retrieval", cwd=filled)
    assert "retrieval" in text


@pytest.mark.parametrize("interrupted", [False, True], ids=["three screens", "Ctrl-C"])
def test_watching_refreshes_one_screen_on_a_terminal(filled, interrupted):
    """On a terminal the screen is redrawn in place and given back at the end, by itself or at Ctrl-C, with code 0."""
    pty = pytest.importorskip("pty")
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
    command = [sys.executable, "-m", "opsloop.cli", "dashboard", "--watch", "--every", "0.1", "--from", "2h"]
    command += [] if interrupted else ["--times", "3"]
    environ = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, cwd=filled, env=environ, stdin=side, stdout=side, stderr=side, start_new_session=True
    ) as process:
        os.close(side)
        seen = b""
        try:
            while data := _read(main):
                seen += data
                if interrupted and seen.count(b"requests/s") >= 3:
                    process.send_signal(signal.SIGINT)
                    interrupted = False
        except BaseException:
            process.kill()
            raise
        finally:
            os.close(main)
    assert process.returncode == 0, seen[-2000:]
    assert b"Traceback" not in seen
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1
    screens = seen.split(b"requests/s")[1:]
    assert len(screens) >= 3
    for part in ("latency", "availability", "14.4×", "BREACH"):
        assert part.encode() in screens[0]


def _read(terminal):
    """Read from a terminal, nothing once its other side is closed."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""


def test_a_panel_is_written_as_svg_and_as_png(filled, tmp_path):
    """``--svg`` and ``--png`` are one picture in two forms; a place that cannot be written is named."""
    pytest.importorskip("resvg_py")
    svg, png = tmp_path / "errors.svg", tmp_path / "errors.png"
    asked = ("dashboard", "--panel", "errors", "--svg", svg, "--png")
    opsloop(*asked, png, cwd=filled)
    assert svg.read_text().startswith("<svg")
    assert (png.read_bytes()[:4], png.read_bytes()[16:24]) == (b"\x89PNG", (1440).to_bytes(4) + (480).to_bytes(4))
    _, said = opsloop(*asked, tmp_path, cwd=filled, code=2)
    assert "check --png" in said


def test_logs_are_summed_up_and_a_story_is_a_file(filled):
    """A line with a pipe prints a number per group, and a story is saved for Perfetto."""
    out, _ = opsloop("logs", "event:retrieve error:true | count by error_type", cwd=filled)
    head, *groups = out.splitlines()
    assert head.split() == ["count", "events", "error_type"]
    assert all(line.split()[0] == line.split()[1] for line in groups)
    assert groups
    found, _ = opsloop("logs", "event:request session_id:*", "--json", "-n", "1", cwd=filled)
    request = json.loads(found)
    out, _ = opsloop("logs", "--correlate", request["request_id"], "--export", "trace.json", cwd=filled)
    assert out == f"{(filled / 'trace.json').stat().st_size:,} bytes written to trace.json\n"
    assert json.loads((filled / "trace.json").read_text())["traceEvents"]
    out, _ = opsloop("logs", "--session", request["session_id"], cwd=filled)
    assert out.startswith(f"session {request['session_id']}  ")
    assert request["request_id"] in out


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("eval",), "drift"),
        (("limit",), "tenant-requests"),
        (("alert",), "AT_LEAST(2, BREACH"),
        (("alert", "explain", "service-unhealthy"), "service-unhealthy"),
        (("incident",), "no incidents"),
        (("incident", "flywheel"), "prevented"),
    ],
)
def test_every_room_answers(filled, arguments, shown):
    """Each command prints its room's state from the store, and the same as JSON."""
    assert shown in opsloop(*arguments, cwd=filled)[0]
    json.loads(opsloop(*arguments, "--json", cwd=filled)[0])


def test_guards_run_and_their_exit_code_says_how(tmp_path):
    """The example guards pass on the bot, fail on a bot that invents, and where there are none nothing has passed."""
    guards = ROOT / "guards"
    assert opsloop("guard", "run", "nowhere", cwd=tmp_path, code=5)[0].startswith("0 guards: none found")
    assert "4 guards: 4 pass" in opsloop("guard", "run", guards, cwd=tmp_path)[0]
    opsloop("guard", "run", guards, "--mode", "frozen", "--target", "opsloop.sim:answer", cwd=tmp_path)
    (tmp_path / "broken.py").write_text(
        "from functools import partial\nfrom opsloop.sim import answer\n"
        "invents = partial(answer, fault='hallucination_drift')\n"
    )
    out, _ = opsloop("guard", "run", guards, "--mode", "frozen", "--target", "broken:invents", cwd=tmp_path, code=1)
    assert "fail" in out


def test_the_demo_is_the_five_labs(tmp_path):
    """`opsloop demo` prints what labs/demo.py prints, which is what the docs show."""
    lab = subprocess.run([sys.executable, ROOT / "labs" / "demo.py"], capture_output=True, text=True, check=True).stdout
    assert opsloop("demo", cwd=tmp_path)[0] == lab
    assert lab in (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("logs", "duraton>5ms"), 2, "^"),
        (("logs", "tool:retrieve AND"), 2, "^"),
        (("logs", "--correlate", "nobody"), 2, "no event has request_id 'nobody'"),
        (("logs", "--from", "soon"), 2, "'soon' is no time"),
        (("dashboard", "--explain", "speed"), 2, "speed"),
        (("ingest", "missing.jsonl"), 2, "cannot read missing.jsonl: No such file or directory; check the path"),
        (
            ("logs", "--store", "nowhere"),
            3,
            "no server runs and there is no store at nowhere; start one with: opsloop up",
        ),
        (("logs", "--url", "http://127.0.0.1:9"), 3, "no opsloop server answers at http://127.0.0.1:9"),
        (("logs", "--url", "ftp://x"), 2, "'ftp://x' is no server address; write http://host:port"),
        (("logs", "--config", "missing.toml"), 2, "cannot read missing.toml"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(filled, arguments, code, says):
    """The first line says what was wrong and what to do; the code says whose fault it was; a query gets its caret."""
    _, err = opsloop(*arguments, cwd=filled, code=code)
    assert says in err
    assert err.startswith("opsloop: ")


def test_a_store_that_cannot_be_opened_is_said(filled):
    """A path that is a file is refused with a sentence and exit code 3."""
    _, err = opsloop("ingest", "bot.jsonl", "--store", "bot.jsonl", cwd=filled, code=3)
    assert "cannot make the store's folder" in err


def test_bad_lines_are_counted_and_named(filled):
    """The good lines of a file are stored, the bad ones named by number, and the exit code is 1."""
    now_ns = SystemClock().now_ns()
    lines = f'{{"ts_ns": {now_ns}, "event": "log", "message": "good"}}\nnot json\n{{"ts_ns": 1, "event": "log"}}\n'
    out, _ = opsloop("ingest", "-", cwd=filled, code=1, stdin=lines)
    assert out.splitlines()[0] == "1 events stored in .opsloop, 2 lines rejected"
    assert "line 2: not JSON" in out
    assert "older than the 90 days that are kept" in out
