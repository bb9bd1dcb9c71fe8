"""What a command prints: tables on a terminal, JSON for machines, errors in one line with what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from opsloop.clock import utc
from opsloop.errors import FilterError, OpsloopError, StoreError

__all__ = [
    "EXIT_WRONG",
    "SHAPES",
    "console",
    "count",
    "exit_code",
    "failure",
    "moment",
    "percent",
    "seconds",
    "show_json",
    "table",
]

SHAPES = {"OK": "●", "BREACH": "◆", "NO_DATA": "○", "INSUFFICIENT": "◌"}
"""A verdict by shape as well as by colour: ● ok, ◆ breach, ○ no data, ◌ too few samples."""

FILE_WIDTH = 180
EXIT_WRONG = 2
EXIT_UNAVAILABLE = 3


def console() -> Console:
    """Return a console on standard output; it colours on a terminal only, and a file or pipe gets wide lines."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)


def show_json(value: Any) -> None:
    """Print a value as indented JSON."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> Table:
    """Return a plain table; columns named in ``right`` are aligned to the right. Cells are text, never markup."""
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        last = name == columns[-1]
        justify: Literal["left", "right"] = "right" if name in right else "left"
        grid.add_column(name, justify=justify, overflow="fold" if last else "ellipsis", no_wrap=not last)
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text("–" if cell is None else str(cell)) for cell in row))
    return grid


def failure(error: OpsloopError) -> int:
    """Print an error on standard error and return the exit code it means."""
    print(f"opsloop: {error}", file=sys.stderr)
    if isinstance(error, FilterError) and error.text:
        carets = "^" * max(1, error.end - error.start)
        print(f"  {error.text}\n  {' ' * error.start}{carets}", file=sys.stderr)
    return exit_code(error)


def exit_code(error: OpsloopError) -> int:
    """Return 3 when the store or server cannot answer, 2 when what was asked is wrong."""
    return EXIT_UNAVAILABLE if isinstance(error, StoreError) else EXIT_WRONG


def seconds(microseconds: float | None) -> str:
    """Return a duration as people write it.

    >>> seconds(412_000), seconds(2_310_000), seconds(None)
    ('412 ms', '2.31 s', '–')
    """
    if microseconds is None:
        return "–"
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1000:.0f} ms" if microseconds < 1_000_000 else f"{microseconds / 1_000_000:.2f} s"


def percent(ratio: float | None) -> str:
    """Return a ratio in percent.

    >>> percent(0.0123), percent(None)
    ('1.23 %', '–')
    """
    return "–" if ratio is None else f"{ratio * 100:.2f} %"


def count(number: float | None) -> str:
    """Return a count with thin groups of thousands.

    >>> count(1234567)
    '1,234,567'
    """
    return "–" if number is None else f"{number:,.0f}"


def moment(ts_ns: int) -> str:
    """Return a time as UTC to the second, as every page shows it."""
    return utc(ts_ns)[:19].replace("T", " ")
