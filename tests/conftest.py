"""Fixtures that every room's tests share."""

from __future__ import annotations

import itertools
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from opsloop.clock import ManualClock, SeededIds
from opsloop.stream import MemoryStream

# How long an example takes is the machine's business, not a property: a busy one must not fail a test.
settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts a command in the background has it ignore Ctrl-C, and so would every process of a test.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_DATABASES = itertools.count()


@pytest.fixture
def clock():
    """A clock that stands at a Monday morning."""
    return ManualClock("2026-01-05T09:00:00Z")


@pytest.fixture
def ids():
    """Ids that are the same on every run."""
    return SeededIds(1)


@pytest.fixture
def memory():
    """An empty stream in memory."""
    return MemoryStream()


@pytest.fixture(scope="session")
def clickhouse_engine():
    """One in-memory engine for the whole run: chDB starts once in a process."""
    from opsloop.store import ClickHouseStream

    with ClickHouseStream(":memory:", database="keeps_the_engine_alive") as stream:
        yield stream


@pytest.fixture
def clickhouse(clickhouse_engine):
    """A fresh, empty ClickHouse stream in a database of its own."""
    from opsloop.filter import Statement
    from opsloop.store import ClickHouseStream

    name, made = f"test_{next(_DATABASES)}", clickhouse_engine.database
    clickhouse_engine.command(Statement(f"CREATE DATABASE {name}"))
    for table in ("events", "retentions", "schema_versions"):  # copied, since to migrate each anew takes longer
        clickhouse_engine.command(Statement(f"CREATE TABLE {name}.{table} AS {made}.{table}"))
    versions = f"INSERT INTO {name}.schema_versions SELECT * FROM {made}.schema_versions"
    clickhouse_engine.command(Statement(versions))
    with ClickHouseStream(":memory:", database=name) as stream:
        yield stream
    clickhouse_engine.command(Statement(f"DROP DATABASE {name}"))


@pytest.fixture(params=["memory", "clickhouse"])
def stream(request):
    """Each form of the stream in turn."""
    return request.getfixturevalue(request.param)


def pytest_terminal_summary(terminalreporter):
    """Where every part is there, as in CI, a skipped test is a failure of the set-up and is said to be one."""
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("OPSLOOP_TESTS_SKIP_NOTHING") and skipped:
        terminalreporter.write_line(f"{len(skipped)} tests were skipped where nothing may be", red=True)


def pytest_sessionfinish(session):
    """See :func:`pytest_terminal_summary`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("OPSLOOP_TESTS_SKIP_NOTHING") and skipped and session.exitstatus == 0:
        session.exitstatus = 1
