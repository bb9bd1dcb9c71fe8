"""Migrations go forward only: from the data of every earlier version, and from the middle of an interrupted one."""

from __future__ import annotations

import re

import pytest

from opsloop.errors import StoreError
from opsloop.event import Event
from opsloop.filter import Statement, equals
from opsloop.store import ClickHouseStream
from opsloop.store.ddl import VERSIONS_TABLE, migrations

NEWEST = migrations()[-1].version
START = 1_767_614_400_000_000_000
DAY_NS = 86_400 * 10**9
ROWS = [
    Event(ts_ns=START - DAY_NS, event="score", tenant="größe", message="yesterday"),
    Event(ts_ns=START, event="request", event_id="r1", request_id="r1", duration_us=7, status_code=200, route="/chat"),
    Event(
        ts_ns=START + 1, event="tool", event_id="t1", tool="retrieve", error=True, attributes={"a": {"b": [1, None]}}
    ),
]
WRITTEN = """INSERT INTO events (sequence, ts_ns, event, event_id, severity, tenant, message) VALUES
    (0, 1767528000000000000, 'score', '', 'INFO', 'größe', 'yesterday');
INSERT INTO events (sequence, ts_ns, event, event_id, severity, request_id, duration_us, status_code, route) VALUES
    (1, 1767614400000000000, 'request', 'r1', 'INFO', 'r1', 7, 200, '/chat');
INSERT INTO events (sequence, ts_ns, event, event_id, severity, tool, error, attributes, leaves) VALUES
    (2, 1767614400000000001, 'tool', 't1', 'INFO', 'retrieve', true, '{"a":{"b":[1,null]}}', {'a.b': '1'})"""


@pytest.fixture
def bare(clickhouse_engine, request):
    """A database without a schema: its name, and what runs a statement in it."""
    name = f"bare_{abs(hash(request.node.nodeid))}"
    clickhouse_engine.command(Statement(f"CREATE DATABASE {name}"))
    client = clickhouse_engine._connect(name)
    yield name, client.command
    client.close()
    clickhouse_engine.command(Statement(f"DROP DATABASE {name}"))


def build(run, version):
    """Make the schema of an earlier version, as its own code did, with rows that the first one wrote."""
    run(VERSIONS_TABLE)
    for migration in migrations()[:version]:
        for sql in migration.statements:
            run(sql)
        run(f"INSERT INTO schema_versions (version, file) VALUES ({migration.version}, '{migration.file}')")
        for sql in WRITTEN.split(";\n") if migration.version == 1 else ():
            run(sql)


@pytest.mark.parametrize("version", range(1, NEWEST + 1))
def test_every_earlier_version_is_brought_up_to_date(bare, version):
    """All rows come through unchanged, what was stored is known again, and a second opening changes nothing."""
    name, run = bare
    build(run, version)
    for _ in range(2):
        with ClickHouseStream(":memory:", database=name) as stream:
            assert stream.schema_version == NEWEST
            assert stream.query() == ROWS
            assert stream.append(ROWS[1:]) == 0
            rows = stream.rows(Statement("SELECT version, file FROM schema_versions ORDER BY version"))
            assert rows == [(migration.version, migration.file) for migration in migrations()]
    with ClickHouseStream(":memory:", database=name) as stream:
        assert stream.append([ROWS[1].replace(event_id="r2")]) == 1


def test_rows_of_the_first_version_are_answered_for_like_those_of_today(bare):
    """Merged into one part with rows that are stored once, old ones have the same ids, JSON and leaves as ever."""
    name, run = bare
    build(run, 1)
    today = Event(
        ts_ns=START + 2, event="tool", event_id="t:s", trace_id="t", span_id="s", attributes={"a": {"b": "1"}}
    )
    with ClickHouseStream(":memory:", database=name) as stream:
        assert stream.append([today]) == 1
        for _ in range(2):
            assert stream.query() == [*ROWS, today]
            found = stream.rows(Statement("SELECT event_id, attributes, leaves FROM events WHERE event = 'tool'"))
            assert sorted(found) == [
                ("t1", '{"a":{"b":[1,null]}}', {"a.b": "1"}),
                ("t:s", '{"a":{"b":"1"}}', {"a.b": "1"}),
            ]
            for event in (ROWS[2], today):
                assert stream.query(equals(event_id=event.event_id, **{"a.b": 1})) == [event]
            stream.command(Statement("OPTIMIZE TABLE events FINAL"))
    with ClickHouseStream(":memory:", database=name) as stream:
        assert stream.append([*ROWS[1:], today]) == 0


STEPS = [
    pytest.param(migration.version, done, id=f"{migration.file}-{done}")
    for migration in migrations()
    for done in range(len(migration.statements) + 1)
]


@pytest.mark.parametrize(("version", "done"), STEPS)
def test_an_interrupted_migration_is_resumed(bare, version, done):
    """A migration that ended after any of its statements, unrecorded, is run again and loses nothing."""
    name, run = bare
    if version > 1:
        build(run, version - 1)
    for sql in migrations()[version - 1].statements[:done]:
        run(sql)
    with ClickHouseStream(":memory:", database=name) as stream:
        assert stream.schema_version == NEWEST
        assert stream.query() == (ROWS if version > 1 else [])
        assert stream.append([ROWS[1].replace(event_id="new")]) == 1


def test_a_store_of_a_newer_version_is_refused(clickhouse):
    """A schema from the future is refused with a sentence, and not changed."""
    clickhouse.command(Statement("INSERT INTO schema_versions (version, file) VALUES (99, 'from the future')"))
    with pytest.raises(StoreError) as caught:
        ClickHouseStream(":memory:", database=clickhouse.database)
    assert str(caught.value) == (
        f":memory: has schema version 99, this opsloop knows {NEWEST}; upgrade opsloop; a store never migrates backward"
    )


def test_versions_count_up_without_a_gap():
    """A file that is left out or has a number twice is noticed before it is shipped."""
    assert [migration.version for migration in migrations()] == list(range(1, NEWEST + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", migration.file) for migration in migrations())
