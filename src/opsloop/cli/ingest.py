"""``opsloop ingest``: JSON lines from a file or standard input into the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from opsloop.cli.client import Api, connect
from opsloop.cli.options import Asking
from opsloop.cli.output import show_json
from opsloop.errors import InputError, PayloadError

__all__ = ["ingest"]

BATCH_BYTES = 4 * 1024 * 1024


def ingest(
    file: Annotated[Path, Parameter(help="A file of JSON lines; - reads standard input.", allow_leading_hyphen=True)],
    /,
    *,
    asking: Asking | None = None,
) -> int:
    """Store a file of JSON lines: events, or the log records of any JSON logger.

    Lines that cannot be read are counted and named by their number; the others are stored. Exit code 1 says that some
    were rejected.
    """
    options = asking or Asking()
    total = {"accepted": 0, "rejected": 0}
    reasons: list[str] = []
    with _opened(file) as source, connect(options.settings(), url=options.url, create=True) as api:
        size = file.stat().st_size if str(file) != "-" else None
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("storing", total=size)
            for lines, first_line in _batches(source):
                answer = _send(api, lines, first_line)
                total["accepted"] += answer["accepted"]
                total["rejected"] += answer["rejected"]
                reasons += answer["reasons"][: max(0, 3 - len(reasons))]
                progress.advance(task, len(lines))
        where = api.where
    if options.json:
        show_json({**total, "reasons": reasons, "store": where})
    else:
        print(f"{total['accepted']:,} events stored in {where}, {total['rejected']:,} lines rejected")
        for reason in reasons:
            print(f"  {reason}")
    return 1 if total["rejected"] else 0


def _send(api: Api, lines: bytes, first_line: int) -> dict[str, Any]:
    """Send one batch; a batch of which no line can be read is counted like any other bad lines."""
    try:
        return api.send(lines, first_line=first_line)
    except PayloadError as error:
        bad = sum(1 for line in lines.splitlines() if line.strip())
        return {"accepted": 0, "rejected": bad, "reasons": [error.message]}


def _opened(file: Path) -> BinaryIO:
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as cause:
        raise InputError(f"cannot read {file}: {cause.strerror}", fix="check the path") from cause


def _batches(source: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines in pieces of a few MiB, each with the number of its first line."""
    first_line = 1
    while lines := source.readlines(BATCH_BYTES):
        yield b"".join(lines), first_line
        first_line += len(lines)
