"""The pages: the built UI as static files, every view a URL, the first page with its data in it."""

from __future__ import annotations

import mimetypes
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from opsloop.endpoint import Endpoint
from opsloop.errors import OpsloopError
from opsloop.server.problem import problem

__all__ = ["Pages"]

POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    "frame-ancestors 'self'; form-action 'self'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_WITHOUT_UI: Final = """<!doctype html><html lang="en"><title>opsloop</title>
<h1>opsloop is running, without its pages</h1>
<p>This copy was installed with OPSLOOP_UI=skip. The API answers at <a href="/api/openapi.json">/api/openapi.json</a>;
install opsloop without that variable to get the pages.</p></html>"""


class Pages:
    """Serves the built UI; any path that is no file is a view of the one page."""

    def __init__(self, first: Endpoint, *, folder: Traversable | None = None) -> None:
        """Embed the answer of ``first`` into the first page."""
        self._first = first
        self._folder = folder or resources.files("opsloop.server").joinpath("static")

    async def answer(self, request: Request) -> Response:
        """Return a file, or the page."""
        path = request.path_params.get("path", "")
        parts = [part for part in path.split("/") if part]
        if any(part.startswith(".") for part in parts):
            return problem(404, f"there is nothing at /{path}")
        file = self._folder.joinpath(*parts) if parts else self._folder
        if parts and file.is_file():
            return self._file(file, path, gzip="gzip" in request.headers.get("accept-encoding", ""))
        if parts and "." in parts[-1] and parts[0] == "assets":
            return problem(404, f"there is nothing at /{path}")
        return await run_in_threadpool(self._page, with_data=not parts and not request.query_params)

    def _file(self, file: Traversable, path: str, *, gzip: bool) -> Response:
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        cache = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
        headers = {**HEADERS, "Cache-Control": cache, "Vary": "Accept-Encoding"}
        packed = self._folder.joinpath(f"{path}.gz")
        if gzip and packed.is_file():
            return Response(packed.read_bytes(), headers={**headers, "Content-Encoding": "gzip"}, media_type=kind)
        return Response(file.read_bytes(), headers=headers, media_type=kind)

    def _page(self, *, with_data: bool) -> Response:
        index = self._folder.joinpath("index.html")
        headers = {**HEADERS, "Cache-Control": "no-cache"}
        if not index.is_file():
            return HTMLResponse(_WITHOUT_UI, headers=headers)
        text = index.read_text(encoding="utf-8")
        if with_data:
            text = text.replace("<!--boot-->", self._boot())
        return HTMLResponse(text, headers=headers)

    def _boot(self) -> str:
        """Return the first page's data as an inert JSON element, or nothing when it cannot be had now."""
        try:
            data = msgspec.json.encode(self._first.handler({}, b"")).decode()
        except OpsloopError:
            return ""
        safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        return f'<script type="application/json" id="boot">{safe}</script>'
