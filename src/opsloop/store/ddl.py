"""The schema's statements, written once for one server and generated for a cluster.

Objects
    A schema file holds statements that can each be run twice (``IF NOT EXISTS``): a migration that was interrupted is
    simply run again.
Rule
    On a cluster every statement gets ``ON CLUSTER``. A table ``t`` becomes ``t_local``, replicated within its shard,
    and ``t`` itself the Distributed table over all shards: every query and insert stays as it is. The rows of
    one request go to one shard. A view reads and writes the local tables of its own shard. The few small tables of
    the store's own record are not sharded: every node is a replica of them. What begins with the comment
    :data:`FOR_SERVERS` is not for the embedded engine.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final, NamedTuple

__all__ = [
    "VERSIONS_TABLE",
    "Migration",
    "clustered",
    "database_sql",
    "for_servers",
    "literal",
    "migrations",
    "quoted",
    "schema",
]

VERSIONS_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS schema_versions (version UInt32, file String, applied DateTime DEFAULT now())\n"
    "ENGINE = MergeTree\nORDER BY version"
)
EVERYWHERE: Final = frozenset({"schema_versions", "retentions"})
"""Tables that every node holds whole."""
SHARDING_KEYS: Final = {"events": "if(request_id = '', rand64(), cityHash64(request_id))"}
FOR_SERVERS: Final = "-- Not embedded: "
_TABLE: Final = re.compile(r"^CREATE TABLE IF NOT EXISTS (\w+)", re.MULTILINE)
_ENGINE: Final = re.compile(r"\bENGINE = (\w*MergeTree)\b(?:\(([^()]*)\))?")
_VIEW: Final = re.compile(r"^CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+)\s+TO (\w+)", re.MULTILINE)
_FROM: Final = re.compile(r"\bFROM (\w+)\b")
_ALTER: Final = re.compile(r"^ALTER TABLE (\w+)", re.MULTILINE)
_ALTERS_COLUMNS: Final = re.compile(r"\b(?:ADD|DROP|MODIFY|RENAME) COLUMN\b")
_UNCHANGED: Final = re.compile(r"^INSERT INTO \w+", re.MULTILINE)


class Migration(NamedTuple):
    """One schema file."""

    version: int
    file: str
    statements: tuple[str, ...]


def migrations() -> list[Migration]:
    """Return every schema file that this version knows, oldest first."""
    found = []
    for entry in resources.files("opsloop.store").joinpath("schema").iterdir():
        if entry.name.endswith(".sql"):
            parts = (part.strip().rstrip(";") for part in entry.read_text(encoding="utf-8").split(";\n"))
            found.append(Migration(int(entry.name.partition("_")[0]), entry.name, tuple(filter(None, parts))))
    return sorted(found)


def for_servers(sql: str) -> bool:
    """Return whether a statement is for servers only.

    >>> for_servers("ALTER TABLE events DROP PARTITION 20260105")
    False
    """
    return sql.startswith(FOR_SERVERS)


def schema(cluster: str = "", database: str = "opsloop") -> list[str]:
    """Return all statements that make the newest schema, for one server or for a cluster."""
    written = [VERSIONS_TABLE, *(sql for migration in migrations() for sql in migration.statements)]
    made = [each for sql in written for each in clustered(sql, cluster, database)]
    return [database_sql(database, cluster), f"USE {quoted(database)}", *made]


def database_sql(database: str, cluster: str = "") -> str:
    """Return the statement that makes the database.

    >>> database_sql("opsloop", "prod")
    "CREATE DATABASE IF NOT EXISTS `opsloop` ON CLUSTER 'prod'"
    """
    return f"CREATE DATABASE IF NOT EXISTS {quoted(database)}" + (f" ON CLUSTER {literal(cluster)}" if cluster else "")


def clustered(sql: str, cluster: str, database: str) -> list[str]:
    """Return a statement of the schema as the statements that do the same on a cluster; unchanged without one.

    Raises ``ValueError`` for a statement whose form on a cluster is not known.

    >>> clustered("ALTER TABLE events DROP PARTITION 20260105", "prod", "opsloop")
    ["ALTER TABLE events_local ON CLUSTER 'prod' DROP PARTITION 20260105"]
    """
    if not cluster or _UNCHANGED.search(sql):
        return [sql]
    on = f"ON CLUSTER {literal(cluster)}"
    if table := _TABLE.search(sql):
        return _replicated(sql, table[1], on, cluster, database)
    if view := _VIEW.search(sql):
        head = f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view[1]} {on}\nTO {view[2]}_local"
        return [sql[: view.start()] + head + _FROM.sub(r"FROM \1_local", sql[view.end() :])]
    if alter := _ALTER.search(sql):
        before, after = sql[: alter.start()], sql[alter.end() :]
        if alter[1] in EVERYWHERE:
            return [f"{before}ALTER TABLE {alter[1]} {on}{after}"]
        changes = [f"{before}ALTER TABLE {alter[1]}_local {on}{after}"]
        if _ALTERS_COLUMNS.search(after):
            changes.append(f"ALTER TABLE {alter[1]} {on}{after}")
        return changes
    raise ValueError(f"no form on a cluster is known for: {sql[:80]}")


def _replicated(sql: str, table: str, on: str, cluster: str, database: str) -> list[str]:
    """Return the replicated table and, unless every node holds it whole, the distributed one over it."""
    everywhere = table in EVERYWHERE
    local = table if everywhere else f"{table}_local"
    path = f"/clickhouse/tables/{'' if everywhere else '{shard}/'}{{database}}/{local}"
    replica = "{shard}-{replica}" if everywhere else "{replica}"

    def engine(match: re.Match[str]) -> str:
        arguments = f", {match[2]}" if match[2] else ""
        return f"ENGINE = Replicated{match[1]}('{path}', '{replica}'{arguments})"

    made = _TABLE.sub(f"CREATE TABLE IF NOT EXISTS {local} {on}", sql)
    made, engines = _ENGINE.subn(engine, made)
    if engines != 1:
        raise ValueError(f"table {table} has {engines} engines of the MergeTree family, not 1")
    if everywhere:
        return [made]
    key = SHARDING_KEYS.get(table, "rand64()")
    over = f"ENGINE = Distributed({literal(cluster)}, {literal(database)}, {literal(local)}, {key})"
    return [made, f"CREATE TABLE IF NOT EXISTS {table} {on} AS {local}\n{over}"]


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL.

    >>> quoted("to day")
    '`to day`'
    """
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    r"""Return a text as a literal of SQL.

    >>> print(literal("it's"))
    'it\'s'
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
