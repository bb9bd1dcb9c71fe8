"""The build hook: it builds the pages when their sources changed, and only then."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed")

import hatch_build

RUN = "from opsloop.cli import main; main()"
UI = Path(__file__).parents[2] / "ui"


@pytest.fixture
def ui(tmp_path):
    """A small copy of the sources."""
    for name, text in (("package.json", "{}"), ("src/App.svelte", "<p/>"), ("public/a.svg", "<svg/>")):
        path = tmp_path / "ui" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "ui"


@pytest.fixture
def hook(ui):
    """The hook over the small copy."""
    return hatch_build.UiBuildHook(str(ui.parent), {}, None, None, str(ui.parent), "wheel")


def stamped(ui, text):
    """Leave a build with a stamp behind."""
    static = ui.parent / "src/opsloop/server/static"
    static.mkdir(parents=True)
    (static / ".stamp").write_text(text, encoding="ascii")


def test_the_stamp_follows_the_sources(ui):
    """A changed, renamed or added source changes the stamp; anything else beside them does not."""
    before = hatch_build.stamp_of(ui)
    (ui / "node_modules").mkdir()
    (ui / "node_modules" / "x.js").write_text("1", encoding="utf-8")
    (ui / "dist.txt").write_text("1", encoding="utf-8")
    assert hatch_build.stamp_of(ui) == before
    (ui / "src/App.svelte").write_text("<b/>", encoding="utf-8")
    changed = hatch_build.stamp_of(ui)
    (ui / "src/App.svelte").rename(ui / "src/Bpp.svelte")
    renamed = hatch_build.stamp_of(ui)
    (ui / "src/New.svelte").write_text("", encoding="utf-8")
    assert len({before, changed, renamed, hatch_build.stamp_of(ui)}) == 4


def test_a_matching_stamp_needs_no_node(ui, hook, monkeypatch):
    """Pages that are there already are neither built again nor a reason to ask for Node."""
    stamped(ui, hatch_build.stamp_of(ui))
    monkeypatch.setenv("PATH", "")
    assert hook.dependencies() == []
    hook.initialize("standard", {})


def test_node_is_asked_for_only_when_it_is_missing(hook, monkeypatch):
    """Without a Node on PATH the build asks for the one on PyPI; with OPSLOOP_UI=skip it asks for nothing."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("OPSLOOP_UI", raising=False)
    assert hook.dependencies() == [hatch_build.NODE_PACKAGE]
    monkeypatch.setenv("OPSLOOP_UI", "skip")
    assert hook.dependencies() == []


def test_packing_repeats(tmp_path):
    """The gzip twins hold the same text, are the same bytes on every run, and are made for large texts only."""
    text = "body{margin:0}" * 100
    for name, content in (("a.css", text), ("b.css", "x"), ("c.woff2", text), ("index.html", text)):
        (tmp_path / name).write_text(content, encoding="utf-8")
    hatch_build.pack(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.gz")}
    hatch_build.pack(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.gz")} == first
    assert {name: gzip.decompress(packed) for name, packed in first.items()} == {"a.css.gz": text.encode()}


def test_the_pages_name_commands_that_exist():
    """Every command that a page offers to copy or to type is one that the command line has."""
    texts = [path.read_text(encoding="utf-8") for path in (UI / "src").rglob("*.svelte")]
    named = {
        match for text in texts for match in re.findall(r"[\[`'](opsloop [a-z]+(?: (?:guard|backtest|run))?)", text)
    }
    assert len(named) > 5
    for command in sorted(named):
        done = subprocess.run(
            [sys.executable, "-c", RUN, *command.split()[1:], "--help"], capture_output=True, text=True, check=False
        )
        assert f"Usage: {command}" in done.stdout, f"{command}: {done.stdout[:200]}{done.stderr[-300:]}"


def test_the_lock_file_names_no_download_address():
    """The pages install from any registry: the lock file holds versions and hashes, no addresses."""
    lock = (UI / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert "http://" not in lock
    assert '"integrity"' in lock
