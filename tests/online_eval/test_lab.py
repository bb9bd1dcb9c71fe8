"""The lab's screen, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).parents[2] / "labs" / "online_eval.py"
SCREEN = """\
50 live answers; the hash of the request id takes 10 of them at rate 0.2

request   groundedness  evidence  answer
live-001           1.0       0.8  Orders ship within two days and carry a ...
live-005           1.0       1.5  Orders ship within two days and carry a ...
live-015           1.0       2.1  Invoices are stored under billing history ...
live-022           1.0       2.7  Passwords reset from the account page under ...
live-023           1.0       3.2  Invoices are stored under billing history ...
-- the healthy half: avg 1.0, no drift --
live-029           0.2       7.6  Invoices are redeemable near birthday presents.
live-032           0.2      23.3  Invoices are redeemable near birthday presents.
live-041           0.2     102.1  Invoices are redeemable near birthday presents.
live-046           0.2     579.9  A tracking voucher unlocks holiday prices.
live-048           0.2    3753.1  The parcel carries redeemable golden vouchers.
-- the full stream:  avg 0.6, DRIFT --

drift: evidence 3753 >= 1000 against a mean of 0.9 or more,
       since live-029; at most one false alarm in 1000 scores
gate:  passes: mean 1.00 of 4 cases is at least 0.9; it has no gift card question
"""


def test_the_lab_prints_its_screen():
    """10 of 50 are sampled; the healthy half averages 1.0, the full stream 0.6 and drifts; the gate still passes."""
    done = subprocess.run([sys.executable, str(LAB)], capture_output=True, text=True, check=True)
    assert done.stdout == SCREEN
    assert done.stderr == ""
