"""Ingest: whatever an application already sends, turned into events without a change of its code.

Rule
    Bytes in, events and rejections out, nothing stored here. A body that cannot be decoded is refused whole, with what
    was wrong; one bad record never sinks its neighbours: it is rejected, counted and said, and they are kept.
Files
    ``body`` undoes content encodings under a limit · ``otlp`` reads OTLP in protobuf and JSON into neutral records ·
    ``mapping`` makes events of them, all dialects at once · ``metrics`` makes gauges of data points, ``levels`` says of
    which how much is full · ``jsonl`` reads JSON lines · ``acceptance`` checks times · ``wire``, ``flat``,
    ``plan``, ``frames`` and ``columnar`` map many spans at once, and need the server's libraries.
"""

from __future__ import annotations

from opsloop.ingest.acceptance import accept
from opsloop.ingest.batch import Batch
from opsloop.ingest.body import decompress
from opsloop.ingest.jsonl import read_json_lines
from opsloop.ingest.levels import level_names, with_level
from opsloop.ingest.mapping import map_log, map_span
from opsloop.ingest.metrics import read_metrics
from opsloop.ingest.otlp import read_logs, read_traces

__all__ = [
    "Batch",
    "accept",
    "decompress",
    "level_names",
    "map_log",
    "map_span",
    "read_json_lines",
    "read_logs",
    "read_metrics",
    "read_traces",
    "with_level",
]
