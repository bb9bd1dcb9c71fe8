"""The pytest plugin, as a person runs it: in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

GUARD = """\
schema: guard/v1
id: {id}
problem: P-1
title: refunds
state: {state}
input: {{vars: {{question: "What does a return label cost?"}}}}
case:
  assert: [{{type: contains, value: {value}}}]
provenance: {{fingerprint: "fp1:00000000000000aa"}}
proof:
  bad: [{{output: {bad}}}]
  good: [{{output: {value}}}]
"""


def run(folder, *arguments):
    """Run pytest over a folder with the plugin alone; return (exit code, output)."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path):
    """Guards that pass, are toothless and are only proposed, and one that the bot fails."""
    rows = [
        ("G-ok", "4.90 euros", "no", "active"),
        ("G-dull", "a", "a", "active"),
        ("G-draft", "a", "b", "proposed"),
        ("G-back", "5.90 euros", "no", "active"),
    ]
    for name, value, bad, state in rows:
        text = GUARD.format(id=name, value=value, bad=bad, state=state)
        (tmp_path / f"{name}.guard.yaml").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_selftest_failure_error_and_skip(folder):
    """A toothless guard is an error and never a failure, a draft is skipped, the rest passes; JUnit has the numbers."""
    code, output = run(folder, "--junit-xml=out.xml")
    assert code == 1
    assert "2 passed, 1 skipped, 1 error" in output
    assert "G-dull (refunds): toothless: bad[0] passes every assertion" in output
    assert "Traceback" not in output
    assert "pytest_plugin.py" not in output
    cases = {case.get("name"): case for case in ET.parse(folder / "out.xml").iter("testcase")}
    properties = {part.get("name"): part.get("value") for part in cases["G-ok"].iter("property")}
    assert properties == {"verdict": "pass", "mode": "selftest", "n": "2", "passes": "2", "fingerprint": ""}
    assert [part.tag for part in cases["G-dull"] if part.tag != "properties"] == ["error"]


def test_frozen_against_the_application(folder):
    """A confirmed regression is a failure with its reason and no traceback of ours."""
    code, output = run(folder, "--guard-mode=frozen", "--guard-target=opsloop.sim:answer", "-k", "G-ok or G-back")
    assert code == 1
    assert "1 failed, 1 passed" in output
    assert "G-back (refunds): 0 of 1 passed: the answer does not contain '5.90 euros'" in output
    assert "Traceback" not in output


def test_a_fingerprint_selects(folder):
    """-k finds guards by their problem's fingerprint."""
    code, output = run(folder, "-k", "00000000000000aa and not dull")
    assert (code, "2 passed, 1 skipped" in output) == (0, True)


def test_a_wrong_file_stops_with_its_line(folder):
    """A file that is no guard is a collection error that names the line."""
    (folder / "bad.guard.yaml").write_text("schema: guard/v1\nid: 5\n")
    code, output = run(folder)
    assert code == 2
    assert "bad.guard.yaml:2: id: Expected `str`, got `int`" in output


def test_the_plugin_is_silent_without_guards(tmp_path):
    """In a run without guards it prints nothing and does not even load YAML."""
    (tmp_path / "test_plain.py").write_text("import sys\n\n\ndef test_plain():\n    assert 'yaml' not in sys.modules\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    code, output = run(tmp_path)
    assert code == 0
    assert "guard" not in output
    assert "opsloop" not in output
