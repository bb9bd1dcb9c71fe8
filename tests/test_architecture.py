"""The rules of ARCHITECTURE.md, as tests. Each failure names the module and the rule."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = SOURCE / "opsloop"
ROOMS = ("structured_logging", "dashboard", "online_eval", "rate_limit", "alerting", "improvement")
FLOORS = {
    "errors": 0,
    "lazy": 0,
    "clock": 1,
    "quantile": 1,
    "event": 2,
    "verdict": 3,
    "filter": 3,
    "rollup": 4,
    "stream": 4,
    "settings": 4,
    "endpoint": 4,
    **dict.fromkeys(ROOMS, 5),
    "store": 6,
    "ingest": 6,
    "testing": 6,
    "integrations": 6,
    "sim": 6,
    "server": 7,
    "cli": 8,
    "": 9,
}
"""A module imports its own folder and lower floors. Rooms share a floor, so they are strangers."""
SERVER_SIDE = {"api", "worker", "pytest_plugin"}
"""Files right of the line in a room: they may need the server's libraries, and only server/ and cli/ open them."""
HEAVY = (
    "chdb",
    "clickhouse_connect",
    "starlette",
    "uvicorn",
    "redis",
    "numpy",
    "opentelemetry",
    "google",
    "rich",
    "yaml",
)
FORBIDDEN_FOLDERS = {"utils", "helpers", "common", "types"}
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if "static" not in parts and "labs" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, lazily too, as full dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the absolute name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return found


def room(module: str) -> str:
    """Return the top folder or file of a module inside the package."""
    return [*module.split("."), ""][1]


def test_every_folder_has_a_floor():
    """A stray folder or top-level file fails: the tree of ARCHITECTURE.md is the whole tree."""
    assert {room(name) for name in MODULES} <= set(FLOORS)
    assert not FORBIDDEN_FOLDERS & {path.name for path in PACKAGE.rglob("*") if path.is_dir()}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    """A module imports its own folder and lower floors only, even inside functions; so there are no cycles upward."""
    own = room(name)
    for target in imports(MODULES[name]):
        if target != "opsloop" and not target.startswith("opsloop."):
            continue
        other = room(target)
        assert other == own or FLOORS[other] < FLOORS[own], (
            f"{name} may not import {target}: {other} is not below {own}"
        )


def test_there_are_no_import_cycles():
    """No module reaches itself through module-level imports."""
    graph = {name: {t for t in imports(path) if t in MODULES and t != name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_only_the_server_opens_a_rooms_api(name):
    """``api`` and ``worker`` of a room are imported by server/ alone."""
    if room(name) in {"server", "cli"}:
        return
    for target in imports(MODULES[name]):
        parts = target.split(".")
        opened = len(parts) > 2 and parts[0] == "opsloop" and parts[1] in ROOMS and parts[2] in SERVER_SIDE
        inside = name.startswith(f"opsloop.{parts[1]}.{parts[2]}") if opened else False
        assert not opened or inside, f"{name} imports {target}, which belongs to the server"


@pytest.mark.parametrize(
    "name", ["opsloop", *(f"opsloop.{room}" for room in ROOMS), "opsloop.testing", "opsloop.settings"]
)
def test_the_sdk_is_light(name):
    """Importing the package or a room in a fresh process loads no server, store, numeric or telemetry library."""
    code = f"import sys, {name}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", f"import {name} loads {done.stdout.strip()}"


def calls(path: Path) -> set[str]:
    """Return every dotted attribute chain that a file uses, such as ``datetime.now``."""
    return {
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }


@pytest.mark.parametrize("name", [name for name in MODULES if name != "opsloop.clock"])
def test_only_the_clock_knows_time_and_chance(name):
    """``time``, ``random``, ``secrets`` and ``uuid`` are imported by clock.py alone, and nothing calls datetime.now."""
    banned = imports(MODULES[name]) & {"time", "random", "secrets", "uuid"}
    assert not banned, f"{name} imports {banned}: take a Clock or Ids instead"
    bad = {c for c in calls(MODULES[name]) if c.endswith((".now", ".utcnow", ".today")) and "date" in c}
    assert not bad, f"{name} reads the clock through {bad}"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "opsloop.settings"])
def test_only_settings_reads_the_environment(name):
    """``os.environ`` and ``os.getenv`` occur in settings.py alone."""
    bad = calls(MODULES[name]) & {"os.environ", "os.getenv", "os.environb"}
    assert not bad, f"{name} uses {bad}: ask opsloop.settings"


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *sorted((SOURCE.parent / "labs").glob("*.py"))], ids=lambda p: p.name
)
def test_files_and_functions_fit(path):
    """A file has at most 600 lines, a function 70, a lab 80 in all."""
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    limit = 80 if path.parent.name == "labs" else MAX_FILE_LINES
    assert lines <= limit, f"{path} has {lines} lines, the limit is {limit}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, (
                f"{path}: {node.name} has {length} lines, the limit is {MAX_FUNCTION_LINES}"
            )


@pytest.mark.parametrize("name", MODULES)
def test_all_is_what_is_public(name):
    """A module's ``__all__`` is sorted, every name in it exists, and every public definition is in it."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    if name.rpartition(".")[2] in {"__main__", *SERVER_SIDE} and "__all__" not in ast.unparse(tree):
        return
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    assert public is not None, f"{name} has no __all__"
    assert len(set(public)) == len(public), f"{name}.__all__ repeats a name"
    in_order = sorted(public, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert list(public) == in_order, f"{name}.__all__ is unsorted"
    missing = [entry for entry in public if not hasattr(module, entry)]
    assert not missing, f"{name}.__all__ names {missing}, which do not exist"
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    }
    assert defined <= set(public), f"{name}: {sorted(defined - set(public))} are public but not in __all__"
