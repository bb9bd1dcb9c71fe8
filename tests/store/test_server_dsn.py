"""A ClickHouse server by its DSN: the real HTTP client, over the wire, against the real engine behind a small gateway.

No ClickHouse server can be installed here, so the gateway speaks the server's HTTP interface and hands every statement
to the embedded engine. What is proved is our side: DSN, database, schema, inserts, parameters and errors over HTTP.
"""

from __future__ import annotations

import gzip
import re
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import chdb
import lz4.frame
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from opsloop.errors import StoreError
from opsloop.event import Event
from opsloop.filter import Statement, equals
from opsloop.ingest import read_traces
from opsloop.server.bulk import LEAST_SPANS, read_many_traces
from opsloop.store import ClickHouseStream
from opsloop.store.ddl import migrations
from tests.otlp import pairs

pytest.importorskip("lz4")


class Gateway(BaseHTTPRequestHandler):
    """ClickHouse's HTTP interface in front of the engine of this process."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Run a statement: in the body, or in the URL with the rows to insert in the body."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.update(asked)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if "Content-Length" in self.headers else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        packed = self.headers.get("Content-Encoding", "")
        body = {"lz4": lz4.frame.decompress, "gzip": gzip.decompress}.get(packed, bytes)(body)
        parameters = {name.removeprefix("param_"): value for name, value in asked.items() if name.startswith("param_")}
        try:
            answer = self.server.run(asked.get("query", ""), body, asked.get("database", ""), parameters, asked)
            self._send(200, answer)
        except ConnectionError:
            self.close_connection = True
        except RuntimeError as error:
            self._send(500, str(error).encode())

    do_GET = do_POST  # noqa: N815 - the name that http.server calls

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        if status != 200:
            self.send_header("X-ClickHouse-Exception-Code", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Runs statements one at a time on its own connection to the engine."""

    daemon_threads = True

    def __init__(self, engine=":memory:"):
        super().__init__(("127.0.0.1", 0), Gateway)
        self.connection = chdb.connect(engine)
        self.lock = threading.Lock()
        self.statements = []
        self.asked = {}
        self.lost_answers = []
        """Inserts are carried out, and their senders told these errors, one after the other."""

    def run(self, query, body, database, parameters, asked):
        """Return the answer in the format that the statement asks for."""
        with self.lock, tempfile.NamedTemporaryFile(suffix=".native") as rows:
            if database:
                self.connection.query(f"USE `{database}`")
            statement = query.encode() + b"\n" + body if query else body
            insert = re.match(rb"(INSERT INTO .*?)\s+FORMAT\s+(Native|Arrow)\s*?\n", statement, re.DOTALL)
            if insert:
                rows.write(statement[insert.end() :])
                rows.flush()
                token = asked.get("insert_deduplication_token", "")
                sql = f"{insert[1].decode()} FROM INFILE '{rows.name}'"
                sql += f" SETTINGS insert_deduplication_token = '{token}' FORMAT {insert[2].decode()}"
            else:
                sql = query or body.decode()
            self.statements.append(sql)
            answer = bytes(self.connection.query(sql, "TabSeparated", params=parameters or None).bytes() or b"")
            if self.lost_answers and sql.startswith("INSERT INTO"):
                raise self.lost_answers.pop()
            return answer


@pytest.fixture
def served(clickhouse_engine):
    """A gateway on a free port."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    server.connection.close()


def test_the_same_code_takes_a_server(served):
    """Opening makes the database and the schema, and events go in and come back as they do embedded."""
    port = served.server_address[1]
    event = Event(
        ts_ns=10**18, event="tool", tool="retrieve", error=True, event_id="a", attributes={"gen_ai.x": [1, None]}
    )
    with ClickHouseStream(f"clickhouse://127.0.0.1:{port}/over_http") as stream:
        assert stream.schema_version == migrations()[-1].version
        assert stream.append([event, event, event.replace(event_id="", error=False)]) == 2
        assert stream.query(equals(tool="retrieve", error=True)) == [event]
        with pytest.raises(StoreError, match="did not answer"):
            stream.rows(Statement("SELECT nothing FROM nowhere"))
    with ClickHouseStream(f"clickhouse://127.0.0.1:{port}/over_http") as stream:
        assert stream.append([event]) == 0
        ((made,),) = stream.rows(Statement("SHOW CREATE TABLE events"))
        assert "default_compression_codec = 'ZSTD(1)'" in made  # whatever the server's own default is
    assert any(sql.startswith("INSERT INTO") for sql in served.statements)


def test_rows_of_a_large_body_go_over_the_wire(served):
    """Spans that were mapped column by column are stored by a server as they are by the embedded engine, and once."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(LEAST_SPANS):
        span = spans.add(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8, "big"), name="a span")
        span.start_time_unix_nano = span.end_time_unix_nano = 10**18 + number
        span.attributes.extend(pairs([("user.id", f"u-{number}"), ("retry", number), ("tags", ["a"])]))
    batch = read_many_traces(request.SerializeToString())
    assert batch.rows.num_rows == LEAST_SPANS
    with ClickHouseStream(f"clickhouse://127.0.0.1:{served.server_address[1]}/in_columns") as stream:
        assert stream.append(batch.events, rows=[batch.rows]) == LEAST_SPANS
        assert stream.append(batch.events, rows=[batch.rows]) == 0
        assert stream.query() == read_traces(request.SerializeToString(), json=False).events


def test_what_was_stored_without_an_answer_is_not_stored_again(served):
    """An insert that failed may have been carried out: what is sent again is looked up, however new it is."""
    port = served.server_address[1]
    events = [Event(ts_ns=10**18 + number, event="log", event_id=f"e{number}") for number in range(5)]
    with ClickHouseStream(f"clickhouse://127.0.0.1:{port}/lost_answers") as stream:
        served.lost_answers = [RuntimeError("a timeout"), RuntimeError("another one")]
        with pytest.raises(StoreError, match="cannot write 3 events to"):
            stream.append(events[:3])
        assert stream.append(events) == 2
        assert stream.query() == events
        assert stream.rows(Statement("SELECT uniqExact(sequence) FROM events")) == [(5,)]


def test_an_insert_that_is_tried_again_by_itself_is_stored_once(served):
    """The connection ends after the insert and before its answer: the second try is known by its token."""
    port = served.server_address[1]
    event = Event(ts_ns=10**18, event="log")
    with ClickHouseStream(f"clickhouse://127.0.0.1:{port}/sent_again") as stream:
        served.lost_answers = [ConnectionError()]
        assert stream.append([event, event]) == 2
        assert len([sql for sql in served.statements if sql.startswith("INSERT INTO `events`")]) == 2
        assert stream.query() == [event, event]
        assert stream.append([event]) == 1
        assert len(stream.query()) == 3


def test_ids_that_are_no_longer_remembered_are_looked_up(clickhouse, monkeypatch):
    """Memory is bounded; an event from before what it holds is still stored once, in whatever order it comes."""
    monkeypatch.setattr("opsloop.store.clickhouse.REMEMBERED_IDS", 10)
    events = [Event(ts_ns=10**18 + number, event="log", event_id=f"e{number}") for number in range(50)]
    for first in range(0, 50, 7):
        clickhouse.append(events[first : first + 7])
    assert len(clickhouse._recent) + len(clickhouse._older) < 40
    assert clickhouse.append(events[::-1]) == 0
    with ClickHouseStream(":memory:", database=clickhouse.database) as again:
        assert len(again._older) == 10
        assert again.append([*events, events[0].replace(event_id="new")]) == 1
    assert clickhouse.query(limit=2)[0] == events[0]
