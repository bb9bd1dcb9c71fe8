"""The schema on a cluster: generated from the one that is written, accepted by the engine, and run as far as one can.

A cluster needs a Keeper, which the embedded engine has not. So the text is compared whole, every statement goes through
the engine's parser, and a cluster of one shard, this process, runs it without replication.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from opsloop.cli.commands import run
from opsloop.filter import Statement
from opsloop.store.ddl import VERSIONS_TABLE, clustered, migrations, schema

WRITTEN = [VERSIONS_TABLE, *(sql for migration in migrations() for sql in migration.statements)]
EXPECTED_TAIL = """
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/events_local', '{replica}')
PARTITION BY toYYYYMMDD(fromUnixTimestamp64Nano(ts_ns, 'UTC'))
ORDER BY (ts_ns, sequence)"""
FORMS = """
ALTER TABLE events ADD COLUMN IF NOT EXISTS region String
=>
ALTER TABLE events_local ON CLUSTER 'prod' ADD COLUMN IF NOT EXISTS region String;
ALTER TABLE events ON CLUSTER 'prod' ADD COLUMN IF NOT EXISTS region String
---
ALTER TABLE events ADD INDEX IF NOT EXISTS i tool TYPE set(8) GRANULARITY 1
=>
ALTER TABLE events_local ON CLUSTER 'prod' ADD INDEX IF NOT EXISTS i tool TYPE set(8) GRANULARITY 1
---
ALTER TABLE retentions ADD COLUMN IF NOT EXISTS why String
=>
ALTER TABLE retentions ON CLUSTER 'prod' ADD COLUMN IF NOT EXISTS why String
---
-- per minute
CREATE TABLE IF NOT EXISTS sums (m Int64, n SimpleAggregateFunction(sum, UInt64))
ENGINE = AggregatingMergeTree
ORDER BY m
=>
-- per minute
CREATE TABLE IF NOT EXISTS sums_local ON CLUSTER 'prod' (m Int64, n SimpleAggregateFunction(sum, UInt64))
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/sums_local', '{replica}')
ORDER BY m;
CREATE TABLE IF NOT EXISTS sums ON CLUSTER 'prod' AS sums_local
ENGINE = Distributed('prod', 'opsloop', 'sums_local', rand64())
---
CREATE TABLE IF NOT EXISTS last (k String, v UInt64)
ENGINE = ReplacingMergeTree(v)
ORDER BY k
=>
CREATE TABLE IF NOT EXISTS last_local ON CLUSTER 'prod' (k String, v UInt64)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/last_local', '{replica}', v)
ORDER BY k;
CREATE TABLE IF NOT EXISTS last ON CLUSTER 'prod' AS last_local
ENGINE = Distributed('prod', 'opsloop', 'last_local', rand64())
---
CREATE MATERIALIZED VIEW IF NOT EXISTS to_sums TO sums AS SELECT ts_ns AS m, count() AS n FROM events GROUP BY m
=>
CREATE MATERIALIZED VIEW IF NOT EXISTS to_sums ON CLUSTER 'prod'
TO sums_local AS SELECT ts_ns AS m, count() AS n FROM events_local GROUP BY m
---
INSERT INTO sums SELECT ts_ns, 1 FROM events
=>
INSERT INTO sums SELECT ts_ns, 1 FROM events
"""
"""Statements of kinds that later files may hold, and what each becomes on a cluster."""
MORE = {
    written.strip(): [sql.strip() for sql in made.split(";\n")]
    for written, made in (pair.split("=>\n") for pair in FORMS.split("\n---\n"))
}


def test_the_table_of_events_on_a_cluster():
    """Replicated within a shard, distributed over all of them by request; the columns are those that are written."""
    (written,) = [sql for sql in migrations()[0].statements if "events" in sql]
    local, over = clustered(written, "prod", "opsloop")
    head = "CREATE TABLE IF NOT EXISTS events_local ON CLUSTER 'prod' (\n    ts_ns "
    assert local[local.index("CREATE") :].startswith(head)
    assert local.endswith(EXPECTED_TAIL)
    assert over == (
        "CREATE TABLE IF NOT EXISTS events ON CLUSTER 'prod' AS events_local\n"
        "ENGINE = Distributed('prod', 'opsloop', 'events_local', "
        "if(request_id = '', rand64(), cityHash64(request_id)))"
    )


@pytest.mark.parametrize("sql", MORE, ids=lambda sql: " ".join(sql.split()[:6]))
def test_every_form_of_statement_has_its_form_on_a_cluster(sql):
    """Columns are added to both tables, indexes to the local one; views stay within a shard; engines keep arguments."""
    assert clustered(sql, "prod", "opsloop") == MORE[sql]


def single(sql):
    """Take the cluster out of a statement again."""
    sql = re.sub(r" ON CLUSTER '(?:[^'\\]|\\.)*'", "", sql).replace("_local", "")
    sql = re.sub(
        r"Replicated(\w+)\('[^']*', '[^']*'(?:, ([^)]*))?\)", lambda m: m[1] + (f"({m[2]})" if m[2] else ""), sql
    )
    return re.sub(r"\nTO ", " TO ", sql)


def test_without_its_clauses_it_is_what_is_written():
    """For one server the statements are as written, and on a cluster the same but for the clauses of a cluster."""
    assert schema()[2:] == WRITTEN
    for sql in [*WRITTEN, *MORE]:
        assert clustered(sql, "", "opsloop") == [sql]
        first, *others = clustered(sql, "it's", "opsloop")
        assert single(first) == sql
        plain = re.sub(r"^(?:--.*\n)+", "", sql)  # what is said about a statement is said once
        for other in others:
            assert single(other) == plain or "ENGINE = Distributed(" in other


@pytest.mark.parametrize("cluster", ["", "prod", "it's"])
def test_the_engine_reads_every_statement(clickhouse, cluster):
    """Its own parser accepts all of it, whatever the cluster is called."""
    more = [each for sql in MORE for each in clustered(sql, cluster, "opsloop")]
    for sql in [*schema(cluster, "o'db"), *more]:
        clickhouse.rows(Statement(f"EXPLAIN AST {sql}"))


def test_the_command_prints_what_is_run(capsys):
    """``opsloop store ddl`` prints every statement, for one server and for a cluster."""
    for arguments, statements in (([], schema()), (["--cluster", "prod"], schema("prod"))):
        assert run(["store", "ddl", *arguments]) == 0
        assert capsys.readouterr().out == "".join(f"{sql};\n\n" for sql in statements)


def test_a_statement_without_a_known_form_is_refused():
    """A new kind of statement cannot slip into a schema file without a form on a cluster."""
    with pytest.raises(ValueError, match="no form on a cluster is known for: RENAME TABLE a TO b"):
        clustered("RENAME TABLE a TO b", "prod", "opsloop")
    with pytest.raises(ValueError, match="table t has 0 engines of the MergeTree family"):
        clustered("CREATE TABLE IF NOT EXISTS t (x Int8) ENGINE = Log", "prod", "opsloop")


CONFIG = """<clickhouse><tcp_port>9000</tcp_port><remote_servers><prod><shard><replica>
<host>127.0.0.1</host><port>9000</port></replica></shard></prod></remote_servers></clickhouse>"""


def test_a_cluster_of_one_shard_runs_it(tmp_path):
    """Through ``?cluster=prod`` events go in, come out, are known again and dropped, over the distributed table."""
    (tmp_path / "config.xml").write_text(CONFIG)
    code = """
        import os, sys, threading
        from opsloop.clock import parse_time
        from opsloop.event import Event
        from opsloop.filter import Statement
        from opsloop.settings import ServerSettings, Settings
        from opsloop.store import ClickHouseStream
        from opsloop.store.damage import check_parts, parts_set_aside
        from opsloop.store.retention import apply_retention, drop_old_days
        from tests.store.test_ddl import alone
        from tests.store.test_server_dsn import Server

        class Cluster(Server):
            def run(self, query, body, *others):
                if not (query.encode() + body).startswith(b"INSERT"):
                    query, body = alone(query), alone(body.decode()).encode()
                return super().run(query, body, *others)

        server = Cluster(f":memory:?config-file={sys.argv[1]}/config.xml")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        now_ns = parse_time("2026-01-05T12:00:00Z")
        days = [now_ns - back * 86_400 * 10**9 for back in range(4)]
        events = [Event(ts_ns=day, event="log", event_id=str(day), request_id="r") for day in days]
        settings = Settings(server=ServerSettings(retention_days=36_000))
        for _ in range(2):
            with ClickHouseStream(f"clickhouse://127.0.0.1:{server.server_address[1]}/some?cluster=prod") as stream:
                local = stream.rows(Statement("SELECT count() FROM events_local"))
                print(stream.append(events), len(stream.query()), local)
                print(apply_retention(stream, settings, now_ns=now_ns))
                print(drop_old_days(stream, retention_days=2, now_ns=now_ns))
                print(check_parts(stream), parts_set_aside(stream))
        print(server.asked["distributed_foreground_insert"], server.asked["insert_quorum"], flush=True)
        os._exit(0)  # the server's threads are in the engine
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = ["4 4 [(0,)]", "True", "['20260102']", "[] []"]
    again = ["1 4 [(3,)]", "False", "['20260102']", "[] []"]
    assert done.stdout.splitlines() == [*first, *again, "1 auto"]


def alone(sql):
    """Take out of a statement what needs a Keeper: replication, and its being run on all nodes."""
    sql = re.sub(r" ON CLUSTER 'prod'", "", sql)
    return re.sub(r"Replicated(\w+)\('[^']*', '[^']*'(?:, [^)]*)?\)", r"\1", sql)
