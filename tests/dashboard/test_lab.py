"""The lab is a promise: its whole screen is compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).parents[2] / "labs" / "dashboard.py"
SCREEN = """\
Page. 4 of 5 signals in breach; a page needs 2. Burning: availability, fast.
2026-01-05  09:00:00 to 09:05:00 UTC

  SIGNAL        MEASURE                         VALUE       LIMIT       N  VERDICT
◆ latency       p95 latency                    3.23 s    > 1.50 s     600  BREACH
◆ errors        failed requests                 9.00%     > 2.00%     600  BREACH
◆ saturation    fullest resource                 100%     > 80.0%     600  BREACH
○ quality       mean score                          -      < 0.75       0  NO DATA
◆ retrieval     failed retrievals               9.00%     > 5.00%     600  BREACH
  traffic       request rate                  2.00 /s           -     600  no objective
  traffic       token rate                   1,603 /s           -     600  no objective
                p95 time to first token        1.08 s           -     600  no objective
                cost per request             $0.00049           -     600  no objective

  OBJECTIVE     BURN OVER                        BURN       LIMIT          VERDICT
◆ availability  1 h / 5 m               18.0x / 18.0x     > 14.4x          BREACH, page
◆               6 h / 30 m              18.0x / 18.0x     > 6.00x          BREACH, page
▲               1 d / 2 h               18.0x / 18.0x     > 3.00x          BREACH, ticket
▲               3 d / 6 h               18.0x / 18.0x     > 1.00x          BREACH, ticket
                99.5% promised. The budget is spent 18.0 times: 54 of 600 bad in 30 d, 0.5% allowed.
● fast          1 h / 5 m               6.87x / 6.87x     > 14.4x          OK
◆               6 h / 30 m              6.87x / 6.87x     > 6.00x          BREACH, page
▲               1 d / 2 h               6.87x / 6.87x     > 3.00x          BREACH, ticket
▲               3 d / 6 h               6.87x / 6.87x     > 1.00x          BREACH, ticket
                95% promised. The budget is spent 6.9 times: 206 of 600 bad in 30 d, 5% allowed.

Fullest resource: slots. Failed by type: RetrievalTimeout 54.
"""


def test_the_lab_prints_this_screen():
    """One window of requests flags latency p95, errors, saturation and the burn, and shows the traffic."""
    done = subprocess.run([sys.executable, str(LAB)], capture_output=True, text=True, check=True)
    assert done.stdout == SCREEN
