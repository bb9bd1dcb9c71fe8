"""The lab's promise: what it prints, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).parents[2] / "labs" / "improvement.py"

EXPECTED = """\
week       new  repeats  prevented  guards  requests  deploys  also
2026-W02     3        0          0       3       103        3
2026-W03     1        0          1       4       101        3  1 re-run not counted, 1 caught other
2026-W04     0        0          1       4       100        1  1 pre-existing
2026-W05     0        0          1       4       100        2  1 overridden

pr-1  guard-A  prevented     it landed with the guard passing
pr-2  guard-B  caught_other  another failure than the problem's
pr-3  guard-C  prevented     it landed with the guard passing
pr-4  guard-D  preexisting   the baseline does not pass either: fail
pr-5  guard-A  prevented     it landed with the guard passing
pr-6  guard-D  overridden    it landed while guard-D failed
"""


def test_the_lab_prints_four_weeks():
    """New incidents fall 3, 1, 0, 0; one repeat a week is prevented; the guards stay four; nothing else is claimed."""
    done = subprocess.run([sys.executable, LAB], capture_output=True, text=True, check=True)
    assert done.stdout == EXPECTED
    assert done.stderr == ""
