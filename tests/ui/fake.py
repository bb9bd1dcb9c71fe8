"""A server that answers the pages' API from a made-up hour: full, empty or broken, with the real security header."""

from __future__ import annotations

import json
import mimetypes
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.ui import rooms, scene

POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'self'"
)
STATIC = Path(__file__).parents[2] / "src/opsloop/server/static"
BUILT = Path(__file__).parents[2] / "ui/dist"
EVENTS = scene.events()


def static_folder() -> Path | None:
    """Return where the built pages are: the checkout's own build first, then what the package build left."""
    return next((folder for folder in (BUILT, STATIC) if (folder / "index.html").is_file()), None)


def matching(query: str) -> list[dict[str, Any]]:
    """Return the events that the terms of a query let through; enough of the language for a page to be tried."""
    if query == "event:breach":
        return scene.breaches()
    found = EVENTS
    for term in query.split():
        field, _, value = term.partition(":")
        found = [event for event in found if str(event.get(field, "")).lower() == value.strip('"').lower()]
    return found


def logs(parameters: dict[str, str]) -> dict[str, Any]:
    """Return a window of log events, newest first."""
    end = int(parameters["to"]) if parameters.get("to", "").isdigit() else scene.NOW_NS
    limit = int(parameters.get("limit", "100"))
    found = [event for event in matching(parameters.get("q", "")) if event["ts_ns"] <= end]
    start = scene.NOW_NS - 60 * scene.MINUTE
    return {
        "query": parameters.get("q", ""),
        "start_ns": start,
        "end_ns": end,
        "events": found[:limit],
        "more": len(found) > limit,
    }


def histogram(parameters: dict[str, str]) -> dict[str, Any]:
    """Return counts by minute."""
    start = scene.NOW_NS - 60 * scene.MINUTE
    found = matching(parameters.get("q", ""))
    place = [min(59, max(0, (event["ts_ns"] - start) // scene.MINUTE)) for event in found]
    total = Counter(place)
    errors = Counter(at for at, event in zip(place, found, strict=True) if event.get("error"))
    return {
        "start_ns": start,
        "end_ns": scene.NOW_NS,
        "step_ns": scene.MINUTE,
        "total": [total[i] for i in range(60)],
        "errors": [errors[i] for i in range(60)],
    }


def facets(parameters: dict[str, str]) -> dict[str, Any]:
    """Return the most frequent values."""
    found = matching(parameters.get("q", ""))
    return {
        "facets": [
            {
                "field": name,
                "values": [
                    {"value": value, "count": n}
                    for value, n in Counter(str(event.get(name, "")) for event in found).most_common(10)
                    if value
                ],
            }
            for name in ("severity", "event", "tool", "tenant", "model", "error_type")
        ]
    }


def answer(path: str, parameters: dict[str, str], *, mode: str) -> tuple[int, Any]:
    """Return (status, body) of one API call."""
    if mode == "broken":
        problem = {"title": "The store cannot be read", "detail": "the disk is full", "fix": "free some space"}
        return 503, {"type": "about:blank", "status": 503, **problem}
    query = parameters.get("q", "")
    if query.startswith("tool:="):
        fault = {"title": "The query does not parse", "detail": "expected a value", "fix": "write tool:NAME"}
        return 400, {"type": "about:blank", "status": 400, **fault, "text": query, "start": 5, "end": 6}
    empty = mode == "empty"
    if path == "/api/signals":
        return 200, scene.empty_signals() if empty else scene.silent() if mode == "silent" else scene.signals()
    if path == "/api/signals/by":
        return 200, scene.breakdown(parameters.get("dimension", "route"), empty=empty)
    if path == "/api/logs":
        return 200, logs(parameters) | ({"events": [], "more": False} if empty else {})
    if path == "/api/logs/histogram":
        return 200, histogram({"q": "event:none"} if empty else parameters)
    if path == "/api/logs/facets":
        return 200, {"facets": []} if empty else facets(parameters)
    if path.startswith("/api/requests/"):
        gone = {"title": "No event has request_id 'req-5f3a10'", "detail": "", "fix": "check the id"}
        return (400, {"type": "about:blank", "status": 400, **gone}) if empty else (200, scene.story())
    found = rooms.answer(path, empty=empty)
    return (404, {"title": "No such address", "status": 404}) if found is None else (200, found)


class Handler(BaseHTTPRequestHandler):
    """Static files with index.html as the fallback, the API, and one stream of ticks."""

    protocol_version = "HTTP/1.1"
    mode = "full"
    folder = Path()
    closing = threading.Event()

    def do_GET(self) -> None:
        """Answer one request."""
        address = urlsplit(self.path)
        if address.path == "/api/live":
            self.ticks()
        elif address.path.startswith("/api/"):
            parameters = {name: values[-1] for name, values in parse_qs(address.query).items()}
            status, body = answer(address.path, parameters, mode=self.mode)
            kind = "application/json" if status == 200 else "application/problem+json"
            self.reply(status, kind, json.dumps(body).encode())
        else:
            wanted = self.folder / address.path.lstrip("/")
            file = wanted if wanted.is_file() else self.folder / "index.html"
            self.reply(200, mimetypes.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes())

    def reply(self, status: int, kind: str, body: bytes) -> None:
        """Send a whole body with the security header."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-security-policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def ticks(self) -> None:
        """Send a tick now and every two seconds until the page leaves or the server closes."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(f'event: tick\ndata: {{"now_ns": {scene.NOW_NS}}}\n\n'.encode())
                self.wfile.flush()
                if self.closing.wait(2):
                    return
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class FakeServer(ThreadingHTTPServer):
    """A fake on a free loopback port; use it as a context manager."""

    daemon_threads = True

    def __init__(self, folder: Path, *, mode: str = "full", port: int = 0) -> None:
        """Bind the port and start answering."""
        self.closing = threading.Event()
        scoped = type("Scoped", (Handler,), {"folder": folder, "mode": mode, "closing": self.closing})
        super().__init__(("127.0.0.1", port), scoped)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    def __exit__(self, *args: object) -> None:
        """Stop answering and free the port."""
        self.closing.set()
        self.shutdown()
        self.thread.join()
        self.server_close()
