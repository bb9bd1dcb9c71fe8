"""Write the reference pages that follow from the code: docs/settings.md and docs/cli.md. A test holds them current."""

from __future__ import annotations

import ast
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from opsloop import settings
from opsloop.cli.commands import app

FOLDER = Path(__file__).parent
SECTIONS = ("log", "server", "gauge", "objective", "slo", "eval", "limit", "alert", "receiver", "guards")
WIDTH = 100


def settings_page() -> str:
    """Return docs/settings.md: every setting with its default and meaning, and every environment variable."""
    tree = ast.parse(inspect.getsource(settings))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    lines = [
        "# Settings",
        "",
        inspect.getdoc(settings).partition("\n\n")[2],
        "",
        "This page is written by `python docs/generate.py` from `opsloop/settings.py`.",
        "",
    ]
    for field in msgspec.structs.fields(settings.Settings):
        structure = _structure(field.type)
        node = classes[structure.__name__]
        lines += [f"## {ast.get_docstring(node)}", "", "| setting | default | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {default} | {help_text} |" for name, default, help_text in _rows(structure, node)]
        lines.append("")
    lines += ["## Environment", "", "| variable | overrides |", "|---|---|"]
    lines += [f"| `{name}` | `{setting}` |" for name, setting in settings.ENVIRONMENT.items()]
    lines += ["| `OPSLOOP_CONFIG` | which file is read |", "| `OPSLOOP_URL` | which server the command line asks |"]
    lines += [f"| `{name}` | {_TOKENS[name]} |" for name in settings.SECRET_VARIABLES]
    return "\n".join(lines) + "\n"


_TOKENS = {
    "OPSLOOP_TOKEN": "the token that the command line sends",
    "OPSLOOP_INGEST_TOKEN": "the token that may send events to the server",
    "OPSLOOP_READ_TOKEN": "the token that may read from the server",
    "OPSLOOP_ADMIN_TOKEN": "the token that may do everything on the server",
}


def _structure(kind: Any) -> Any:
    """Return the struct of a table, or of the items of a list of tables."""
    arguments = getattr(kind, "__args__", ())
    return arguments[0] if arguments else kind


def _rows(structure: Any, node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    helps = _field_docstrings(node)
    for field in msgspec.structs.fields(structure):
        empty = field.default_factory() if field.default is msgspec.NODEFAULT and not field.required else field.default
        default = "required" if field.required else f"`{msgspec.json.encode(empty).decode()}`"
        yield field.name, default, helps.get(field.name, "")


def _field_docstrings(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for this, following in zip(node.body, node.body[1:], strict=False):
        if isinstance(this, ast.AnnAssign) and isinstance(following, ast.Expr):
            found[this.target.id] = " ".join(str(following.value.value).split())
    return found


def cli_page() -> str:
    """Return docs/cli.md: the help of every command."""
    lines = [
        "# Command line",
        "",
        "This page is written by `python docs/generate.py` from the commands themselves.",
        "",
    ]
    for command in _commands():
        lines += [f"## opsloop {' '.join(command)}".rstrip(), "", "```text", _help(command), "```", ""]
    return "\n".join(lines)


def _commands() -> Iterator[list[str]]:
    yield []
    for name in sorted(app.resolved_commands() if hasattr(app, "resolved_commands") else app):
        if not name.startswith("-"):
            yield [name]
            for below in sorted(app[name]):
                if not below.startswith("-"):
                    yield [name, below]


def _help(command: list[str]) -> str:
    screen = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
    app.help_print(command, console=screen)
    return re.sub(r"[ \t]+$", "", screen.file.getvalue(), flags=re.MULTILINE).strip("\n")


PAGES = {"settings.md": settings_page, "cli.md": cli_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
