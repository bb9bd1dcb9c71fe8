"""The event stream on ClickHouse: embedded through chDB, or a server by its DSN, behind one client and one SQL.

Objects
    One *writer* client and a small pool of *reader* clients: a shared client would make inserts wait for reads.
    chDB runs one engine per process and one process per path; a second owner is refused with a sentence that says so.
Rule
    ``append`` returns after the rows are committed. An ``event_id`` that was seen before is not stored again: ids of
    the last quarter to half a million identified events are remembered (and loaded at start); an event from before
    what is remembered, or from an insert that failed and may have stored some days of it, is looked up in the table,
    and so are decisions (alerts, incidents, guards, …), however old they are.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl

import clickhouse_connect
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from opsloop.clock import SystemIds
from opsloop.errors import ConfigError, StoreError
from opsloop.event import FIELDS, Event
from opsloop.filter import ALL, Filter, Statement, compile_filter
from opsloop.settings import without_password
from opsloop.store.columns import ids_of, numbered, packed, record_batch, written_id
from opsloop.store.ddl import VERSIONS_TABLE, clustered, database_sql, for_servers, migrations, quoted
from opsloop.store.engine import FileInsert, engine_options
from opsloop.store.faults import check_folder, check_space, named_errors
from opsloop.store.owner import FolderLock
from opsloop.store.stored import Stored

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["ClickHouseStream"]

DECISIONS: Final = frozenset({"alert", "incident", "problem", "guard", "gate", "deploy", "breach"})
REMEMBERED_IDS: Final = 250_000
ASKED_IDS: Final = {"embedded": 10_000, "remote": 1_000}
"""At most this many ids in one look-up: each scans the time in question, and a server has a bound on its URL."""
READERS: Final = 2
CHUNK_BYTES: Final = 65_536
SESSION: Final = {
    # To look whether a roll-up fits costs any statement 15 ms: those that are written to fit one ask for it.
    "optimize_use_projections": 0,
    # Every question has new constants: machine code that is made for one is never used again.
    "compile_expressions": 0,
    "compile_aggregate_expressions": 0,
    # Each leaf that is asked for would be read out of the whole map again.
    "optimize_functions_to_subcolumns": 0,
    # Leaves are wide: a block of the usual size leaves the caches, and a second thread without work.
    "max_block_size": 8192,
    # Indexes tell which granules to read before reading begins, for all threads at once.
    "use_skip_indexes_on_data_read": 0,
    # The latest lines are in the newest part: the first chunk of every other one need not be read to see that.
    "read_in_order_use_buffering": 0,
}
EMBEDDED_SESSION: Final = SESSION | {
    # With some tens of parts, to start threads takes longer than to look into all indexes.
    "max_threads_for_indexes": 1,
}
CLUSTER_SESSION: Final = SESSION | {
    # An answer means stored: on every shard that is concerned, and on most of its replicas.
    "distributed_foreground_insert": 1,
    "insert_quorum": "auto",
}


class ClickHouseStream:
    """A :class:`opsloop.stream.Database` on ClickHouse. Safe between threads; close it, or use it in ``with``.

    ``location`` is a folder, ``:memory:``, or ``clickhouse://user:password@host:8123/database``, with ``?cluster=NAME``
    for a cluster of that name. The table is created and migrated on opening. Raises :class:`StoreError` when that
    cannot be done, :class:`StoreBusyError` when another process owns the folder.
    """

    def __init__(self, location: str, *, database: str = "") -> None:
        """Open the store at ``location`` and bring its schema up to date."""
        self.location = without_password(location)
        self.listeners: list[Callable[[Stored], None]] = []
        """Each is told of the events that an append stored anew, in the order of their sequence numbers, before another
        append begins; it must be quick, must not raise and must not append."""
        self._write_lock = threading.Lock()
        self._closed = False
        self._writer: Client | None = None
        self._readers: queue.LifoQueue[Client] = queue.LifoQueue()
        self._file: FileInsert | None = None
        self._dsn, self.database, self.cluster, self._options, self._folder = _place(location, database)
        self.embedded = self._dsn.startswith("chdb://")
        self._ids = SystemIds()
        self.lock = FolderLock(self._folder) if self._folder else None
        with ExitStack() as undo:  # what fails to open leaves no lock and no connection behind
            undo.callback(self.close)
            if self._folder:
                check_folder(self._folder)
            self._open()
            undo.pop_all()

    def _open(self) -> None:
        """Connect, make the database and its schema, and load what deduplication needs."""
        with named_errors(f"cannot open the store at {self.location}"):
            first = self._connect("default")
            try:
                if self.database not in {row[0] for row in first.query("SHOW DATABASES").result_rows}:
                    self._check_space()
                    first.command(database_sql(self.database, self.cluster))
                self._writer = self._connect(self.database)
            finally:
                first.close()  # last, since an engine in memory ends with its last client
            for _ in range(READERS):
                self._readers.put(self._connect(self.database))
            if self.embedded:
                self._file = FileInsert()
        self.schema_version = self._migrate()
        if not self.embedded and not self.cluster:
            self.define("ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 100")
        self._recent: set[str] = set()
        self._older: set[str] = set()
        self._forgotten_ns = self._older_ns = self._recent_ns = -1
        """Until when there are events whose ids are not remembered, are the older ones, are the recent ones."""
        self._sequence = self._load()

    def append(self, events: Iterable[Event], *, rows: Sequence[pa.Table] = ()) -> int:
        """Commit events, and events that are rows already, in one insert; return how many were new."""
        with self._write_lock:
            fresh = self._unseen(list(events))
            tables = [record_batch(fresh, self._sequence)] if fresh else []
            first = len(tables)
            new_ids = {event.event_id for event in fresh if event.event_id}
            for each in rows:
                new, ids = self._unseen_rows(each, new_ids)
                new_ids |= ids
                tables.append(numbered(new, self._sequence + sum(table.num_rows for table in tables)))
            added: int = sum(table.num_rows for table in tables)
            if added:
                latest_ns = max(pc.max(table["ts_ns"]).as_py() for table in tables if table.num_rows)
                data = packed(tables)
                try:
                    self._insert(data)
                except StoreError:
                    # Some of the rows, or all of them, may be stored: neither ids nor numbers are free.
                    self._forgotten_ns = max(self._forgotten_ns, latest_ns)
                    raise
                finally:
                    self._sequence += added
                self._remember(new_ids, latest_ns)
                for told in self.listeners:
                    told(Stored(fresh, tables[first:]))
        return added

    @property
    def last_sequence(self) -> int:
        """The last sequence number in use, 0 before the first: no event that is stored has a higher one."""
        return self._sequence - 1

    def query(
        self,
        where: Filter = ALL,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Event]:
        """Return matching events; see :meth:`opsloop.stream.Source.query`."""
        condition = compile_filter(where)
        parameters = dict(condition.parameters)
        tests = [condition.sql]
        for name, bound, sign in (("start_ns", start_ns, ">"), ("end_ns", end_ns, "<=")):
            if bound is not None:
                tests.append(f"ts_ns {sign} {{{name}:Int64}}")
                parameters[name] = bound
        way = "DESC" if newest_first else "ASC"
        sql = f"SELECT {', '.join(FIELDS)} FROM events WHERE {' AND '.join(tests)} ORDER BY ts_ns {way}, sequence {way}"
        if limit is not None:
            sql += " LIMIT {most:UInt64}"
            parameters["most"] = limit
        return [_event(row) for row in self.rows(Statement(sql, parameters))]

    def rows(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Run one statement on a reader and return its rows."""
        client = self._readers.get()
        try:
            with named_errors(f"the store at {self.location} did not answer"):
                result = client.query(statement.sql, parameters=statement.parameters or None)
                return [tuple(row) for row in result.result_rows]
        finally:
            self._readers.put(client)

    def raw(self, statement: Statement, form: str) -> Generator[bytes, None, None]:
        """Run one statement on a client of its own and yield the answer as the engine writes it in a format.

        ``CSV`` and ``JSONEachRow`` are never held as a whole, so the answer may be as large as it likes.
        """
        doing = f"the store at {self.location} did not answer"
        with named_errors(doing):
            client = self._connect(self.database)
        try:
            with named_errors(doing):
                answer: Any = client.raw_stream(statement.sql, parameters=statement.parameters or None, fmt=form)
                try:
                    while chunk := answer.read(CHUNK_BYTES):
                        yield bytes(chunk)
                finally:
                    answer.close()
        finally:
            client.close()

    def command(self, statement: Statement) -> None:
        """Run one statement that changes the table, such as dropping a day, after all waiting inserts."""
        with self._write_lock, named_errors(f"the store at {self.location} refused a change"):
            self._client().command(statement.sql, parameters=statement.parameters or None)

    def define(self, sql: str) -> None:
        """Run one statement of the schema, on every node of the cluster if there is one, after all waiting inserts."""
        for each in clustered(sql, self.cluster, self.database):
            self.command(Statement(each))

    def system(self, table: str) -> str:
        """Return what to select from to read a table of the engine's own records about all nodes."""
        return f"clusterAllReplicas({quoted(self.cluster)}, system.{table})" if self.cluster else f"system.{table}"

    def local(self, table: str) -> str:
        """Return the name of the table that holds the rows of this node."""
        return f"{table}_local" if self.cluster else table

    def close(self) -> None:
        """Close all clients; everything acknowledged is on disk already."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            self._writer.close()
            for _ in range(self._readers.qsize()):
                self._readers.get().close()
        if self._file is not None:
            self._file.close()
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> Self:
        """Return the stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stream."""
        self.close()

    def _insert(self, data: pa.Table) -> None:
        """Insert rows; once more where no answer came, since a server knows an insert with the same token again.

        No two appends have the same token, those of different processes neither: what a sender sends again is ours to
        know, by its ids.
        """
        what = f"cannot write {data.num_rows} events to {self.location}"
        if self._file is not None:
            with named_errors(what):
                self._file.insert(self._client(), data)
            return
        settings = {"insert_deduplication_token": self._ids.trace_id()}
        try:
            with named_errors(what):
                self._client().insert_arrow("events", data, settings=settings)
        except StoreError:
            if self._closed:
                raise
            with named_errors(what):
                self._client().insert_arrow("events", data, settings=settings)

    def _client(self) -> Client:
        if self._writer is None or self._closed:
            raise StoreError(f"the store at {self.location} is closed", fix="open it again")
        return self._writer

    def _connect(self, database: str) -> Client:
        return clickhouse_connect.get_client(dsn=self._dsn, database=database, **self._options)

    def _migrate(self) -> int:
        """Apply every schema file that this database has not seen, in order; return the version reached.

        A file counts once its last statement has run. All statements can run twice, so one that was interrupted is
        simply run again.
        """
        with named_errors(f"cannot bring the schema of {self.location} up to date"):
            client = self._client()
            applied = set()
            if "schema_versions" in {row[0] for row in client.query("SHOW TABLES").result_rows}:
                applied = {row[0] for row in client.query("SELECT version FROM schema_versions").result_rows}
            known = migrations()
            newest = known[-1].version
            if applied and max(applied) > newest:
                message = f"{self.location} has schema version {max(applied)}, this opsloop knows {newest}"
                raise StoreError(message, fix="upgrade opsloop; a store never migrates backward")
            waiting = [migration for migration in known if migration.version not in applied]
            if waiting:
                self._check_space()
                self.define(VERSIONS_TABLE)
            for version, name, statements in waiting:
                for sql in statements:
                    if not (self.embedded and for_servers(sql)):
                        self.define(sql)
                client.insert("schema_versions", [[version, name]], column_names=["version", "file"])
        return newest

    def _check_space(self) -> None:
        if self._folder:
            check_space(self._folder)

    def _load(self) -> int:
        """Load the newest ids and return the next sequence number."""
        sql = f"SELECT event_id, ts_ns FROM events WHERE event_id != '' ORDER BY ts_ns DESC LIMIT {REMEMBERED_IDS}"
        rows = self.rows(Statement(sql))
        self._older = {row[0] for row in rows}
        if rows:
            self._older_ns = rows[0][1]
        if len(rows) == REMEMBERED_IDS:
            self._forgotten_ns = rows[-1][1]
        (last,) = self.rows(Statement("SELECT max(sequence) FROM events"))[0]
        return int(last) + 1

    def _unseen(self, events: list[Event]) -> list[Event]:
        fresh: list[Event] = []
        batch: set[str] = set()
        for event in events:
            name = event.event_id
            if name:
                if name in batch or name in self._recent or name in self._older:
                    continue
                batch.add(name)
            fresh.append(event)
        decisions = [event.event_id for event in fresh if event.event_id and event.event in DECISIONS]
        doubtful = {
            event.event_id: event.ts_ns for event in fresh if event.event_id and event.ts_ns <= self._forgotten_ns
        }
        stored = self._stored(decisions) | self._stored(list(doubtful), within=_span(doubtful.values()))
        return [event for event in fresh if event.event_id not in stored] if stored else fresh

    def _unseen_rows(self, rows: pa.Table, taken: set[str]) -> tuple[pa.Table, set[str]]:
        """Return the rows whose ids are new, and these ids. A row always has one, and no row is a decision."""
        ids = ids_of(rows)
        distinct = set(ids)
        times = rows["ts_ns"].to_numpy()
        old = np.flatnonzero(times <= self._forgotten_ns)
        doubtful = {ids[place]: at for place, at in zip(old.tolist(), times[old].tolist(), strict=True)}
        stored = self._stored(list(doubtful), within=_span(doubtful.values()))
        known = (taken, self._recent, self._older, stored)
        if len(distinct) == len(ids) and all(distinct.isdisjoint(others) for others in known):
            return rows, distinct
        new: set[str] = set()
        mask = []
        for name in ids:
            mask.append(name not in new and not any(name in others for others in known))
            new.add(name)
        kept = rows.filter(pa.array(mask, pa.bool_()))
        return kept, set(ids_of(kept))

    def _stored(self, ids: Sequence[str], *, within: tuple[int, int] | None = None) -> set[str]:
        """Return which ids the table has: anywhere, or from the first to the last of two times."""
        most = ASKED_IDS["embedded" if self.embedded else "remote"]
        asked = (ids[first : first + most] for first in range(0, len(ids), most))
        return {row[0] for some in asked for look_up in _look_ups(some, within) for row in self.rows(look_up)}

    def _remember(self, ids: Iterable[str], latest_ns: int) -> None:
        self._recent.update(ids)
        self._recent_ns = max(self._recent_ns, latest_ns)
        if len(self._recent) >= REMEMBERED_IDS:
            self._forgotten_ns = max(self._forgotten_ns, self._older_ns)
            self._older, self._older_ns = self._recent, self._recent_ns
            self._recent, self._recent_ns = set(), -1


def _look_ups(ids: Sequence[str], within: tuple[int, int] | None) -> list[Statement]:
    """Return the statements that find ids, each by an index: those that are written out, and those of spans."""
    bounds: dict[str, Any] = {"first": within[0], "last": within[1]} if within else {}
    time = " AND ts_ns BETWEEN {first:Int64} AND {last:Int64}" if within else ""
    written = f"SELECT event_id FROM events WHERE stored_event_id IN {{names:Array(String)}}{time}"
    look_ups = [Statement(written, {"names": list(map(written_id, ids)), **bounds})]
    if spans := [name for name in ids if ":" in name]:
        traces = {name[:place] for name in spans for place, letter in enumerate(name) if letter == ":"}
        worked_out = "trace_id IN {traces:Array(String)} AND event_id IN {ids:Array(String)}"
        sql = f"SELECT event_id FROM events WHERE {worked_out}{time}"
        look_ups.append(Statement(sql, {"traces": sorted(traces), "ids": spans, **bounds}))
    return look_ups


def _span(times: Collection[int]) -> tuple[int, int] | None:
    """Return the first and the last of some times."""
    return (min(times), max(times)) if times else None


def _place(location: str, database: str) -> tuple[str, str, str, dict[str, Any], Path | None]:
    """Return (DSN for the client, database, cluster, further client options, the folder to lock)."""
    if "://" in location and not location.startswith("chdb://"):
        scheme, _, rest = location.partition("://")
        if scheme not in {"clickhouse", "clickhouses", "http", "https"}:
            raise ConfigError(
                f"unknown store {location!r}", fix="use a folder, :memory: or clickhouse://host:8123/name"
            )
        address, _, path = rest.partition("/")
        path, _, query = path.partition("?")
        cluster = dict(parse_qsl(query)).get("cluster", "")
        scheme = {"clickhouse": "http", "clickhouses": "https"}.get(scheme, scheme)
        options: dict[str, Any] = {
            "autogenerate_session_id": False,
            "settings": CLUSTER_SESSION if cluster else SESSION,
        }
        return f"{scheme}://{address}", database or path or "opsloop", cluster, options, None
    place = location.removeprefix("chdb://") or ":memory:"
    folder = None
    if place != ":memory:":
        folder = Path(place).expanduser().absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            message = f"cannot make the store's folder {folder}: {cause.strerror}"
            raise StoreError(message, fix="choose a folder that can be written with --store") from cause
        place = str(folder / "clickhouse")
    options = {"chdb_options": engine_options(), "settings": EMBEDDED_SESSION}
    return f"chdb://{place}", database or "opsloop", "", options, folder


def _event(row: tuple[Any, ...]) -> Event:
    values = dict(zip(FIELDS, row, strict=True))
    text = values["attributes"]
    values["attributes"] = msgspec.json.decode(text) if text else {}
    return Event(**values)
