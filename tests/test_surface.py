"""The public face is what it says it is, and cheap."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import opsloop


def test_all_is_true():
    """Every public name of the package has a home, and is listed."""
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


LAZY = ("opsloop", "opsloop.store", "opsloop.structured_logging")
"""The packages whose names load on first use."""


@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_name_is_the_one_of_its_home(name):
    """Each loads from the module that it is said to live in, and only public names do."""
    package = importlib.import_module(name)
    for public, home in package._HOMES.items():
        assert getattr(package, public) is getattr(importlib.import_module(f"{name}.{home}"), public)
    assert set(package._HOMES) <= set(package.__all__)


@pytest.mark.parametrize("name", LAZY)
def test_no_lazy_name_is_that_of_a_module_beside_it(name):
    """Else whoever imports that module first would find the module in the name's place."""
    package = importlib.import_module(name)
    assert not set(package._HOMES) & {module.name for module in pkgutil.iter_modules(package.__path__)}


def test_a_logger_loads_only_what_it_needs():
    """An application that logs to a file pays for no HTTP, no settings, and nothing that reads events back."""
    code = "import sys, opsloop; opsloop.Logger; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    room = {"correlation", "exporter", "find", "grammar", "spool", "story"}
    unwanted = {"http.client", "ssl", "tomllib", "opsloop.settings"} | {f"opsloop.structured_logging.{m}" for m in room}
    assert not unwanted & set(done.stdout.split())
    assert "opsloop.structured_logging.logger" in done.stdout.split()
