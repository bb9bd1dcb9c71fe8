"""Run the command line with ``python -m opsloop.cli``."""

from __future__ import annotations

from opsloop.cli import main

main()
