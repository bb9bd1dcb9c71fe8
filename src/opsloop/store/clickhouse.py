"""The event stream on ClickHouse: embedded through chDB, or a server by its DSN, behind one client and one SQL.

Objects
    One *writer* client and a small pool of *reader* clients: a shared client would make inserts wait for reads.
    chDB runs one engine per process and one process per path; a second owner is refused with a sentence that says so.
Rule
    ``append`` returns after the rows are committed. An ``event_id`` that was seen before is not stored again: ids of
    the last quarter to half a million identified events are remembered (and loaded at start), ids of decisions
    (alerts, incidents, guards, …) are looked up in the table, however old they are.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import clickhouse_connect
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from opsloop.errors import ConfigError, StoreError
from opsloop.event import FIELDS, Event
from opsloop.filter import ALL, Filter, Statement, compile_filter
from opsloop.store.columns import events_of, numbered, record_batch
from opsloop.store.owner import FolderLock

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["ClickHouseStream"]

DECISIONS: Final = frozenset({"alert", "incident", "problem", "guard", "gate", "deploy", "breach"})
REMEMBERED_IDS: Final = 250_000
READERS: Final = 2
CHUNK_BYTES: Final = 65_536
ENGINE_OPTIONS: Final = {
    # The engine's own defaults are 5 GiB each and suit a server; these suit a laptop.
    "mark_cache_size": str(64 * 1024 * 1024),
    "uncompressed_cache_size": str(16 * 1024 * 1024),
    "index_mark_cache_size": str(16 * 1024 * 1024),
}


class ClickHouseStream:
    """A :class:`opsloop.stream.Database` on ClickHouse. Safe between threads; close it, or use it in ``with``.

    ``location`` is a folder, ``:memory:``, or ``clickhouse://user:password@host:8123/database``. The table is created
    and migrated on opening. Raises :class:`StoreError` when that cannot be done, :class:`StoreBusyError` when another
    process owns the folder.
    """

    def __init__(self, location: str, *, database: str = "") -> None:
        """Open the store at ``location`` and bring its schema up to date."""
        self.location = location
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        """Each is told of the events that an append stored anew, in the order of their sequence numbers, before another
        append begins; it must be quick, must not raise and must not append."""
        self._write_lock = threading.Lock()
        self._closed = False
        self._writer: Client | None = None
        self._select_lock = threading.Lock()
        self._selecting: Client | None = None
        self._readers: queue.LifoQueue[Client] = queue.LifoQueue()
        self._dsn, self.database, self._options, folder = _place(location, database)
        self.embedded = self._dsn.startswith("chdb://")
        self.lock = FolderLock(folder) if folder else None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Connect, make the database and its schema, and load what deduplication needs."""
        with _named_errors(f"cannot open the store at {self.location}"):
            first = self._connect("default")
            try:
                first.command(f"CREATE DATABASE IF NOT EXISTS {_quoted(self.database)}")
                self._writer = self._connect(self.database)
            finally:
                first.close()  # last, since an engine in memory ends with its last client
            for _ in range(READERS):
                self._readers.put(self._connect(self.database))
        self.schema_version = self._migrate()
        self._recent: set[str] = set()
        self._older: set[str] = set()
        self._sequence = self._load()

    def append(self, events: Iterable[Event], *, rows: Sequence[pa.Table] = ()) -> int:
        """Commit events, and events that are rows already, in one insert; return how many were new."""
        with self._write_lock:
            fresh = self._unseen(list(events))
            tables = [record_batch(fresh, self._sequence)] if fresh else []
            new_ids = {event.event_id for event in fresh if event.event_id}
            for each in rows:
                new, ids = self._unseen_rows(each, new_ids)
                new_ids |= ids
                fresh += events_of(new) if self.listeners else ()
                tables.append(numbered(new, self._sequence + sum(table.num_rows for table in tables)))
            added: int = sum(table.num_rows for table in tables)
            if added:
                with _named_errors(f"cannot write {added} events to {self.location}"):
                    self._client().insert_arrow("events", pa.concat_tables(tables, promote_options="permissive"))
                self._sequence += added
                self._remember(new_ids)
                for told in self.listeners:
                    told(fresh)
        return added

    def select(self, sql: str) -> pa.Table:
        """Return the rows of a statement of ours as Arrow columns, on a client that neither reads nor writes wait for.

        Only the embedded engine reads files of this machine: :attr:`embedded` says whether this one is.
        """
        with self._select_lock, _named_errors(f"the store at {self.location} did not answer"):
            if self._selecting is None:
                self._selecting = self._connect(self.database)
            return pa.ipc.open_stream(self._selecting.raw_query(sql, fmt="ArrowStream")).read_all()

    @property
    def last_sequence(self) -> int:
        """The sequence number of the event that was stored last, 0 before the first."""
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
            with _named_errors(f"the store at {self.location} did not answer"):
                result = client.query(statement.sql, parameters=statement.parameters or None)
                return [tuple(row) for row in result.result_rows]
        finally:
            self._readers.put(client)

    def raw(self, statement: Statement, form: str) -> Generator[bytes, None, None]:
        """Run one statement on a client of its own and yield the answer as the engine writes it in a format.

        ``CSV`` and ``JSONEachRow`` are never held as a whole, so the answer may be as large as it likes.
        """
        doing = f"the store at {self.location} did not answer"
        with _named_errors(doing):
            client = self._connect(self.database)
        try:
            with _named_errors(doing):
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
        with self._write_lock, _named_errors(f"the store at {self.location} refused a change"):
            self._client().command(statement.sql, parameters=statement.parameters or None)

    def close(self) -> None:
        """Close all clients; everything acknowledged is on disk already."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            self._writer.close()
            if self._selecting is not None:
                self._selecting.close()
            for _ in range(self._readers.qsize()):
                self._readers.get().close()
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> Self:
        """Return the stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stream."""
        self.close()

    def _client(self) -> Client:
        if self._writer is None or self._closed:
            raise StoreError(f"the store at {self.location} is closed", fix="open it again")
        return self._writer

    def _connect(self, database: str) -> Client:
        return clickhouse_connect.get_client(dsn=self._dsn, database=database, **self._options)

    def _migrate(self) -> int:
        """Apply every schema file that this database has not seen, in order; return the version reached."""
        with _named_errors(f"cannot bring the schema of {self.location} up to date"):
            client = self._client()
            client.command(
                "CREATE TABLE IF NOT EXISTS schema_versions"
                " (version UInt32, file String, applied DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY version"
            )
            applied = {row[0] for row in client.query("SELECT version FROM schema_versions").result_rows}
            files = _schema_files()
            newest = max(files)
            if applied and max(applied) > newest:
                message = f"{self.location} has schema version {max(applied)}, this opsloop knows {newest}"
                raise StoreError(message, fix="upgrade opsloop; a store never migrates backward")
            for version in sorted(set(files) - applied):
                name, text = files[version]
                for sql in filter(None, (part.strip() for part in text.split(";\n"))):
                    client.command(sql.rstrip(";"))
                client.insert("schema_versions", [[version, name]], column_names=["version", "file"])
        return newest

    def _load(self) -> int:
        """Load the newest ids and return the next sequence number."""
        rows = self.rows(
            Statement(f"SELECT event_id FROM events WHERE event_id != '' ORDER BY ts_ns DESC LIMIT {REMEMBERED_IDS}")
        )
        self._older = {row[0] for row in rows}
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
        asked = [event.event_id for event in fresh if event.event_id and event.event in DECISIONS]
        if asked:
            sql = "SELECT event_id FROM events WHERE event_id IN {ids:Array(String)}"
            stored = {row[0] for row in self.rows(Statement(sql, {"ids": asked}))}
            fresh = [event for event in fresh if event.event_id not in stored]
        return fresh

    def _unseen_rows(self, rows: pa.Table, taken: set[str]) -> tuple[pa.Table, set[str]]:
        """Return the rows whose ids are new, and these ids. A row always has one, and no row is a decision."""
        ids = rows["event_id"].to_pylist()
        distinct = set(ids)
        known = (taken, self._recent, self._older)
        if len(distinct) == len(ids) and all(distinct.isdisjoint(others) for others in known):
            return rows, distinct
        new: set[str] = set()
        mask = []
        for name in ids:
            mask.append(name not in new and not any(name in others for others in known))
            new.add(name)
        kept = rows.filter(pa.array(mask, pa.bool_()))
        return kept, set(kept["event_id"].to_pylist())

    def _remember(self, ids: Iterable[str]) -> None:
        self._recent.update(ids)
        if len(self._recent) >= REMEMBERED_IDS:
            self._older, self._recent = self._recent, set()


def _place(location: str, database: str) -> tuple[str, str, dict[str, Any], Path | None]:
    """Return (DSN for the client, database, further client options, the folder to lock)."""
    if "://" in location and not location.startswith("chdb://"):
        scheme, _, rest = location.partition("://")
        if scheme not in {"clickhouse", "clickhouses", "http", "https"}:
            raise ConfigError(
                f"unknown store {location!r}", fix="use a folder, :memory: or clickhouse://host:8123/name"
            )
        address, _, path = rest.partition("/")
        scheme = {"clickhouse": "http", "clickhouses": "https"}.get(scheme, scheme)
        return f"{scheme}://{address}", database or path or "opsloop", {"autogenerate_session_id": False}, None
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
    return f"chdb://{place}", database or "opsloop", {"chdb_options": ENGINE_OPTIONS}, folder


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _schema_files() -> dict[int, tuple[str, str]]:
    found = {}
    for entry in resources.files("opsloop.store").joinpath("schema").iterdir():
        if entry.name.endswith(".sql"):
            found[int(entry.name.partition("_")[0])] = (entry.name, entry.read_text(encoding="utf-8"))
    return found


def _event(row: tuple[Any, ...]) -> Event:
    values = dict(zip(FIELDS, row, strict=True))
    text = values["attributes"]
    values["attributes"] = msgspec.json.decode(text) if text else {}
    return Event(**values)


@contextmanager
def _named_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into ours, with what was being done and what can be done about it."""
    try:
        yield
    except ClickHouseError as cause:
        text = " ".join(str(cause).split())
        raise StoreError(f"{what}: {text[:400]}", fix="check --store and the space and rights there") from cause
    except OSError as cause:
        raise StoreError(f"{what}: {cause}", fix="check --store and the space and rights there") from cause
