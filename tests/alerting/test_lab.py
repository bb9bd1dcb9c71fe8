"""The lab's whole output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).parents[2] / "labs" / "extend.py"
EXPECTED = """\
page when AT_LEAST(2, BREACH, (latency-p95, latency-p99, errors, saturation, quality, retrieval))

quiet -> NO PAGE
  service-unhealthy is inactive, no page: 0 of 5 signals breach in one window, 2 needed
latency alone -> NO PAGE
  service-unhealthy is inactive, no page: 1 of 5 signals breach in one window, 2 needed: latency-p95
  (p95 2.31 s > 1.50 s, n=240)
latency and errors -> PAGE
  service-unhealthy is firing, page: 2 of 5 signals breach in one window: latency-p95 (p95 2.31 s >
  1.50 s, n=240), errors (4.2 % > 2.0 %, n=240); receiver notices: first notification
still latency and errors -> NO PAGE
  service-unhealthy is firing, no page: 2 of 5 signals breach in one window: latency-p95 (p95 2.48 s
  > 1.50 s, n=240), errors (5.1 % > 2.0 %, n=240); receiver notices: told already, nothing new
all well again -> RESOLVED
  service-unhealthy is inactive, resolved: 0 of 5 signals breach in one window, 2 needed; receiver
  notices: all alerts resolved
quality alone -> NO PAGE
  service-unhealthy is inactive, no page: 1 of 5 signals breach in one window, 2 needed: quality
  (mean 0.62 < 0.75, n=240)
p95 and p99 of one latency -> NO PAGE
  service-unhealthy is inactive, no page: 1 of 5 signals breach in one window, 2 needed: latency-p95
  (p95 2.31 s > 1.50 s, n=240), latency-p99 (p99 4.90 s > 3.00 s, n=240)

7 evaluations, 1 page. Why the third one paged, in full:

service-unhealthy at 2026-01-05T09:03:00.000Z: page
  formula     AT_LEAST(2, BREACH, (latency-p95, latency-p99, errors, saturation, quality, retrieval))
  window      (2026-01-05T09:02:00.000Z, 2026-01-05T09:03:00.000Z]
  input       BREACH       latency-p95 (p95 2.31 s > 1.50 s, n=240)
  input       OK           latency-p99 (p99 1.60 s < 3.00 s, n=240)
  input       BREACH       errors (4.2 % > 2.0 %, n=240)
  input       OK           saturation (35.0 % < 80.0 %, n=240)
  input       OK           quality (mean 0.97 > 0.75, n=240)
  input       OK           retrieval (1.0 % < 5.0 %, n=240)
  result      BREACH, 2 of 5 signals breach in one window
  transition  inactive -> firing (breach)
  passed      condition: firing
  passed      receiver notices: first notification
"""


def test_the_lab_pages_once_and_says_why():
    """Seven evaluations give one page: two distinct signals in one window; each line says why or why not."""
    done = subprocess.run([sys.executable, str(LAB)], capture_output=True, text=True, check=True)
    assert done.stdout == EXPECTED
