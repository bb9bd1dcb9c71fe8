"""The server's own pages: every view a URL, the first with its data, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest


def get(url, *, encoding="identity"):
    """Return (headers, body) of a page."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": encoding})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


def test_the_first_page_brings_its_data(server):
    """The page holds the answer of /api/signals as inert JSON, under a policy that runs no inline script."""
    headers, body = get(server.url)
    if b"without its pages" in body:
        pytest.skip("the pages are not built: install opsloop without OPSLOOP_UI=skip")
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    (boot,) = re.findall(rb'<script type="application/json" id="boot">(.*?)</script>', body)
    assert json.loads(boot).keys() == server.ask("/api/signals").keys()


def test_every_view_is_a_url_and_files_are_packed(server):
    """An unknown path is the page, a missing file is not; a packed file comes packed where that is understood."""
    _, page = get(f"{server.url}/requests/req-1")
    if b"without its pages" in page:
        pytest.skip("the pages are not built: install opsloop without OPSLOOP_UI=skip")
    (script,) = re.findall(rb'src="(/assets/[^"]+\.js)"', page)[:1]
    plain_headers, plain = get(f"{server.url}{script.decode()}")
    packed_headers, packed = get(f"{server.url}{script.decode()}", encoding="gzip")
    assert "immutable" in plain_headers["Cache-Control"]
    assert packed_headers["Content-Encoding"] == "gzip"
    assert len(packed) < len(plain)
    assert server.refused("/assets/missing.js")[0] == 404
    assert server.refused("/.stamp")[0] == 404
