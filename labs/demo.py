"""The five labs back to back: find what broke, page once, keep it fixed. Offline, the same on every run."""

from __future__ import annotations

import runpy
from pathlib import Path

LABS = ("structured_logging", "dashboard", "online_eval", "rate_limit", "improvement")
WIDTH = 96


def main() -> None:
    for number, name in enumerate(LABS, 1):
        print(f"── {number}/{len(LABS)} {name} ".ljust(WIDTH, "─"))
        runpy.run_path(str(Path(__file__).with_name(f"{name}.py")), run_name="__main__")
        print()
    print("── the loop ".ljust(WIDTH, "─"))
    print("Five instruments, one event stream: what broke was found, one page was enough, and it stays fixed.")


if __name__ == "__main__":
    main()
