"""What an import costs over a bare interpreter, interleaved: ours beside structlog and msgspec.

Run it with ``python benchmarks/imports.py``; each figure is the median of fresh processes, in one run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

SUBJECTS = {
    "(bare interpreter)": "pass",
    "msgspec": "import msgspec",
    "opsloop": "import opsloop",
    "opsloop, Logger used": "from opsloop import Logger",
    "structlog": "import structlog",
}
ROUNDS = 25


def main() -> None:
    seconds = {name: [] for name in SUBJECTS}
    for _ in range(ROUNDS):
        for name, code in SUBJECTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - start)
    bare = statistics.median(seconds["(bare interpreter)"])
    base = statistics.median(seconds["structlog"]) - bare
    print(f"{'subject':<24}{'ms over bare':>14}{'x structlog':>14}")
    for name, values in seconds.items():
        cost = statistics.median(values) - bare
        print(f"{name:<24}{cost * 1000:>14.1f}{cost / base:>14.2f}")


if __name__ == "__main__":
    main()
