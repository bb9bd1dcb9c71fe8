"""The lab prints what the room promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).parents[2] / "labs" / "structured_logging.py"
SCREEN = """\
1. One line of JSON per event; every line of a request shares its request_id
   (times, durations and span ids are left out here)
   {"event": "log", "request_id": "req-A", "message": "where is my parcel?"}
   {"event": "tool", "request_id": "req-A", "tool": "retrieve"}
   {"event": "request", "request_id": "req-A", "status_code": 200}
   {"event": "log", "request_id": "req-B", "message": "how do I return a lamp?"}
   {"event": "tool", "request_id": "req-B", "tool": "retrieve", "error": true, "message": "index timed out after 3 s"}
   {"event": "request", "request_id": "req-B", "status_code": 503, "error": true}
   {"event": "log", "request_id": "req-C", "message": "mail me at [EMAIL_1]"}
   {"event": "tool", "request_id": "req-C", "tool": "retrieve"}
   {"event": "request", "request_id": "req-C", "status_code": 200}

2. correlate("req-B"): the failing request's three lines, in the order they were written
   {"event": "log", "request_id": "req-B", "message": "how do I return a lamp?"}
   {"event": "tool", "request_id": "req-B", "tool": "retrieve", "error": true, "message": "index timed out after 3 s"}
   {"event": "request", "request_id": "req-B", "status_code": 503, "error": true}

3. The same story as a tree
   req-B failed  503  TimeoutError  /chat  tenant acme  3.00 s

         0 us x request  /chat  503  TimeoutError                                           3.00 s
         0 us   ├─ log  how do I return a lamp?
         0 us x └─ tool  retrieve  TimeoutError  index timed out after 3 s                  3.00 s

   first failure  tool  retrieve  TimeoutError  index timed out after 3 s

4. query(event="tool", tool="retrieve", error=True)
   1 failed retrieval, in req-B: index timed out after 3 s
   the typed line "tool:retrieve error:true duration>500ms since:1h" finds the same: True
"""


def test_the_lab_finds_the_failed_retrieval():
    """Records share their request_id, correlate("req-B") has its three lines, query finds the one failed retrieval."""
    done = subprocess.run([sys.executable, str(LAB)], capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout == SCREEN
    assert done.stderr == ""
