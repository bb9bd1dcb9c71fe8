"""The server: one process, one port: OTLP and JSON lines in, an API and live pages out, workers behind.

Rule
    An answer of 200 to anything that was sent means that it is committed. What cannot be taken now is answered with
    429 or 503 and ``Retry-After``; what can never be taken is answered with what is wrong and what to do.
"""

from __future__ import annotations

from opsloop.server.app import build_app
from opsloop.server.catalogue import all_endpoints
from opsloop.server.rehearsal import instants, rehearse
from opsloop.server.run import serve
from opsloop.server.runtime import Runtime

__all__ = ["Runtime", "all_endpoints", "build_app", "instants", "rehearse", "serve"]
