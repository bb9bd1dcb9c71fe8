"""The public face is what it says it is, and cheap."""

from __future__ import annotations

import importlib
import subprocess
import sys

import opsloop


def test_all_is_true():
    """Every public name loads from the module that holds it, and nothing else is listed."""
    for name in opsloop.__all__:
        assert getattr(opsloop, name) is getattr(importlib.import_module(f"opsloop.{opsloop._HOMES[name]}"), name)
    assert sorted(opsloop.__all__) == sorted(opsloop._HOMES)
    assert set(opsloop.__all__) <= set(dir(opsloop))


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name fails like that of any module."""
    code = "import opsloop; opsloop.Evnt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'opsloop' has no attribute 'Evnt'" in done.stderr


def test_importing_opsloop_loads_almost_nothing():
    """The import itself loads not even msgspec: names load on first use."""
    code = "import sys; before = set(sys.modules); import opsloop; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert "msgspec" not in done.stdout
