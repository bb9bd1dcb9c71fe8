"""What an import costs over a bare interpreter, interleaved: ours beside structlog and msgspec.

Run it with ``python benchmarks/imports.py``; each figure is the median of fresh processes, in one run. All have their
bytecode, as an installed package has: a first round writes it to a folder of the run's own. A source tree without it,
where ``PYTHONDONTWRITEBYTECODE`` is set, would be compiled each time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

SUBJECTS = {
    "(bare interpreter)": "pass",
    "msgspec": "import msgspec",
    "opsloop": "import opsloop",
    "opsloop, Logger used": "from opsloop import Logger",
    "opsloop, a line logged": "from opsloop import log; log.info('up')",
    "structlog": "import structlog",
    "structlog, a line logged": "import structlog; structlog.get_logger().info('up')",
}
ROUNDS = 25


def measured() -> dict[str, list[float]]:
    """Return the seconds that each subject took, in turn."""
    seconds = {name: [] for name in SUBJECTS}
    with tempfile.TemporaryDirectory() as folder:
        variables = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(1 + ROUNDS):
            for name, code in SUBJECTS.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=variables)
                seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    seconds = measured()
    bare = statistics.median(seconds["(bare interpreter)"])
    base = statistics.median(seconds["structlog"]) - bare
    print(f"{'subject':<26}{'ms over bare':>14}{'x structlog':>14}")
    for name, values in seconds.items():
        cost = statistics.median(values) - bare
        print(f"{name:<26}{cost * 1000:>14.1f}{cost / base:>14.2f}")


if __name__ == "__main__":
    main()
