"""The command line: ``opsloop COMMAND``. Tables for people, ``--json`` for machines, exit codes that mean something.

Exit codes: 0 done · 1 a gate or a check failed · 2 what was asked is wrong · 3 the store or server cannot answer.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; say in one line what to install when its libraries are missing."""
    try:
        from opsloop.cli.commands import run  # noqa: PLC0415 - without the extra this fails, and is said in one line
    except ModuleNotFoundError as missing:
        print(f"opsloop: {missing.name} is not installed; run: pip install 'opsloop[server]'", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
