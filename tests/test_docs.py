"""Docs are executed: examples run, reference pages are current, and everything public is written down."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opsloop.event import KINDS
from tests.test_architecture import MODULES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets(language):
    """Return (page and number, text) of every fenced block of a language."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (name, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if name == language
    ]


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if ">>>" in path.read_text(encoding="utf-8")])
def test_docstring_examples_run(name):
    """Every example in a docstring prints what it says."""
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed


@pytest.mark.parametrize("text", snippets("python"))
def test_python_snippets_run(text, tmp_path):
    """Every Python snippet of the docs runs by itself, offline, in an empty folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(240)
@pytest.mark.parametrize("text", snippets("console"))
def test_console_snippets_print_what_they_show(text):
    """A console block shows commands after ``$`` and exactly what they print."""
    for block in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = block.partition("\n")
        words = command.split()
        assert words[0] == "python", f"only python commands are run here: {command}"
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.stdout.strip() == expected.strip()


def test_event_kinds_are_documented():
    """Every kind of event stands in docs/event.md."""
    page = (ROOT / "docs" / "event.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in page] == []


def test_reference_pages_are_current():
    """docs/settings.md and docs/cli.md are what docs/generate.py writes."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        generate = importlib.import_module("generate")
    finally:
        sys.path.pop(0)
    for name, page in generate.PAGES.items():
        written = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert written == page(), f"docs/{name} is stale: run python docs/generate.py"


def test_every_link_between_pages_leads_somewhere():
    """A relative link in the README or the docs names a file that exists."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
