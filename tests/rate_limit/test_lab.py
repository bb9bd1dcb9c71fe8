"""The lab prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).parents[2] / "labs" / "rate_limit.py"
EXPECTED = """\
rate: 20 requests per minute, bursts of 5
  t=0 #1                200  allowed           4 left
  t=0 #2                200  allowed           3 left
  t=0 #3                200  allowed           2 left
  t=0 #4                200  allowed           1 left
  t=0 #5                200  allowed           0 left
  t=0 #6                429  rejected          0 left
      per-minute for tenant acme: 0 of 20 requests per minute left, 1 asked, admissible in 3 s
      retry after 3 s
  t=0 #7                429  rejected          0 left
      per-minute for tenant acme: 0 of 20 requests per minute left, 1 asked, admissible in 3 s
      retry after 3 s
  t=0 #8                429  rejected          0 left
      per-minute for tenant acme: 0 of 20 requests per minute left, 1 asked, admissible in 3 s
      retry after 3 s
  t=3 #9                200  allowed           0 left

quota: 3 requests per day in Berlin, on the 23-hour day
  day #1                200  allowed           2 left
  day #2                200  allowed           1 left
  day #3                200  allowed           0 left
  day #4                429  rejected          0 left
      per-day for tenant acme: 0 of 3 requests per day left, 1 asked, resets in 46800 s
      retry after 46800 s
  next day              200  allowed           2 left

concurrency: 2 at once
  slot #1               200  allowed           1 left
  slot #2               200  allowed           0 left
  slot #3               429  rejected          0 left
      slots for tenant acme: all 2 slots are held, the next lease ends in 30 s
      retry after 30 s
  a slot is back, #3    200  allowed           0 left

reserve and settle: 1000 tokens per minute, and no request may ask for more
  ask 800               200  allowed           200 left
  used 150, ask 700     200  allowed           150 left
  ask 5000              413  never_admissible  150 left
      tokens for tenant acme: 5000 tokens asked, never more than 1000 at once
      waiting does not help
"""


def test_the_lab_shows_every_lever_with_its_reasons():
    """Every lever shows its yes and its no.

    Eight requests at once are five yeses and three 429s, one more fits at t=3; the fourth of three a day is over
    quota, the third of two slots is refused, and a settled estimate makes room.
    """
    done = subprocess.run([sys.executable, LAB], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == EXPECTED
