"""What it costs to take OTLP spans until they can be queried, beside a bare sink on the same engine and beside peers.

    python benchmarks/ingest.py [--rounds 3] [--spans 10000] [--peers /path/to/venv] [--markdown]

The spans are those of a small support bot: a request with a retrieval, a model call and a tool call under it, fifteen
attributes each, texts and documents included. Everything is timed until the commit is acknowledged or the spans are
found, whichever the subject offers. Each subject has a process of its own (an embedded engine allows no second store),
subjects take turns in each round, and the best round of each counts: on a busy machine compare the ratios.

``bare chDB sink`` is what nobody can go below who uses this engine: it hands the same bytes to the engine, which puts
them into eight columns and a map, without ids checked, texts found, content read, repeats known or counters kept.
Over HTTP it is a bare ASGI application under the HTTP server that opsloop uses: a body, the same statement, the answer.
Phoenix and MLflow are measured when they are installed in the environment that ``--peers`` names, in their default
setting, over HTTP with bodies of 512 spans. Whoever is measured over HTTP gets one body before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TEXT = (
    "the order was shipped on monday and should arrive by friday please check your tracking page for details about "
    "refund policy warranty returns invoice number customer support team answer"
)
WORDS = TEXT.split()
PROTOBUF = {"Content-Type": "application/x-protobuf"}
SAMPLE = 5_000
SAMPLES = 9


def put(record, name, value):
    target = record.attributes.add(key=name).value
    match value:
        case bool():
            target.bool_value = value
        case int():
            target.int_value = value
        case float():
            target.double_value = value
        case list():
            for item in value:
                target.array_value.values.add(string_value=item)
        case _:
            target.string_value = value


def body(spans: int, seed: int) -> bytes:
    """Return the protobuf body of so many spans that begin within the last minute."""
    rng = random.Random(seed)
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    origin = {"service.name": "bot", "service.version": "1.4.2", "deployment.environment.name": "production"}
    for name, value in {**origin, "telemetry.sdk.language": "python", "host.name": "node-7"}.items():
        put(group.resource, name, value)
    scope = group.scope_spans.add()
    start = time.time_ns() - 60 * 10**9
    for number in range(spans):
        step = number % 4
        if step == 0:
            trace_id, root = rng.randbytes(16), rng.randbytes(8)
            common = {
                "request_id": f"req-{rng.randrange(10**12):012d}",
                "user.id": f"u-{rng.randrange(2000)}",
                "session.id": f"s-{rng.randrange(5000)}",
                "tenant.id": f"t-{rng.randrange(50)}",
            }
        start += rng.randrange(5_000_000_000 // spans * 10)
        name, kind, attributes = STEPS[step](rng)
        span = scope.spans.add(
            trace_id=trace_id,
            span_id=rng.randbytes(8) if step else root,
            parent_span_id=root if step else b"",
            name=name,
            kind=kind,
            start_time_unix_nano=start,
            end_time_unix_nano=start + int(rng.lognormvariate(19, 1)),
        )
        for key, value in {**common, **attributes}.items():
            put(span, key, value)
    return request.SerializeToString()


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def request_span(rng):
    route = rng.choice(["/chat", "/search", "/refund"])
    return f"POST {route}", 2, {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": 500 if rng.random() < 0.02 else 200,
        "url.scheme": "https",
        "url.path": route,
        "server.address": "bot.internal",
        "server.port": 8443,
        "user_agent.original": "bot-web/3.1",
        "network.protocol.version": "1.1",
        "client.address": f"10.0.{rng.randrange(256)}.{rng.randrange(256)}",
        "input.value": words(rng, 12),
    }  # fmt: skip


def retrieve_span(rng):
    attributes = {"openinference.span.kind": "RETRIEVER", "input.value": words(rng, 12), "retrieval.top_k": 3}
    for place in range(3):
        attributes[f"retrieval.documents.{place}.document.id"] = f"kb-{rng.randrange(1000)}"
        attributes[f"retrieval.documents.{place}.document.score"] = round(rng.random(), 4)
    content = {"retrieval.documents.0.document.content": words(rng, 20), "gen_ai.data_source.id": "kb"}
    return "retrieval kb", 3, {**attributes, **content}


def chat_span(rng):
    def message(role, text):
        return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])

    return "chat gpt-4o", 3, {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.usage.input_tokens": rng.randrange(3000),
        "gen_ai.usage.output_tokens": rng.randrange(500),
        "gen_ai.usage.cost": round(rng.random() / 100, 6),
        "gen_ai.response.time_to_first_chunk": round(rng.random(), 3),
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.input.messages": message("user", words(rng, 12)),
        "gen_ai.output.messages": message("assistant", words(rng, 30)),
    }  # fmt: skip


def tool_span(rng):
    return "execute_tool lookup_order", 1, {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "lookup_order",
        "gen_ai.tool.call.id": f"call_{rng.randrange(10**9)}",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.arguments": json.dumps({"order": rng.randrange(10**6)}),
        "gen_ai.tool.call.result": words(rng, 10),
        "db.system.name": "postgresql",
        "db.response.returned_rows": rng.randrange(5),
        "cache.hit": rng.random() < 0.5,
        "retry.count": 0,
        "server.address": "orders.internal",
    }  # fmt: skip


STEPS = (request_span, retrieve_span, chat_span, tool_span)


# ---- in process: processor time until the commit ------------------------------------------------------------------


def timed(take: Callable[[bytes], None], bodies: list[bytes], spans: int) -> dict[str, float]:
    """Return the least processor and wall time per span, in µs, over the samples after the first.

    A sample is as many bodies as have :data:`SAMPLE` spans: what is done once for several small ones counts, too.
    """
    size = bodies_in_a_sample(spans)
    best = {"cpu": float("inf"), "wall": float("inf")}
    for first in range(0, len(bodies), size):
        cpu, wall = time.process_time(), time.perf_counter()
        for each in bodies[first : first + size]:
            take(each)
        took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        if first:
            best = {key: min(best[key], seconds / size / spans * 1e6) for key, seconds in took.items()}
    return best


def bodies_in_a_sample(spans: int) -> int:
    return max(1, SAMPLE // spans)


def merged_size(table: str, command: Callable[[str], Any], rows: Callable[[str], Any]) -> float:
    """Return how many bytes a row takes once all of them have been merged; a merge that runs puts ours off."""
    parts = f"FROM system.parts WHERE active AND table = '{table}'"
    while rows(f"SELECT countIf(level = 0) {parts}")[0][0]:
        command(f"OPTIMIZE TABLE {table} FINAL")
        time.sleep(0.1)
    return rows(f"SELECT sum(bytes_on_disk) / sum(rows) {parts}")[0][0]


def opsloop_store(folder: str, spans: int, bodies: list[bytes]) -> dict[str, float]:
    """The server's own way of a body, from its bytes to the commit, with the counters that listen."""
    from opsloop.clock import SystemClock
    from opsloop.filter import Statement
    from opsloop.integrations.counters import SignalCounters
    from opsloop.server.bulk import read_many_traces
    from opsloop.settings import Settings
    from opsloop.store import ClickHouseStream, GroupCommit

    with ClickHouseStream(folder) as stream:
        counters = SignalCounters(Settings(), SystemClock())
        stream.listeners.append(lambda stored: counters.add(stored.events, rows=stored.rows))
        commits = GroupCommit(stream, batch_milliseconds=1)

        def take(each):
            batch = read_many_traces(each)
            commits.submit(batch.events, batch.rows).result()

        result = timed(take, bodies, spans)
        commits.close()

        def command(sql):
            stream.command(Statement(sql))

        # Parts with a roll-up and parts without are not merged with each other.
        command("ALTER TABLE events MATERIALIZE PROJECTION rollup SETTINGS mutations_sync = 2")
        return {**result, "bytes": merged_size("events", command, lambda sql: stream.rows(Statement(sql)))}


def open_bare_sink(folder: str) -> tuple[Any, Callable[[bytes], None]]:
    """Return a client of the same engine, and what hands it the same bytes and does nothing else."""
    import clickhouse_connect

    schema = Path(__file__).with_name("otlp.proto")
    client = clickhouse_connect.get_client(dsn=f"chdb://{folder}/bare")
    client.command(
        "CREATE TABLE spans (service LowCardinality(String), trace_id String CODEC(ZSTD(1)), span_id String"
        " CODEC(ZSTD(1)), parent_span_id String CODEC(ZSTD(1)), name LowCardinality(String), start_ns UInt64"
        " CODEC(Delta(8), ZSTD(1)), end_ns UInt64 CODEC(ZSTD(1)), status UInt8, attributes Map(LowCardinality(String),"
        " String) CODEC(ZSTD(1))) ENGINE = MergeTree ORDER BY start_ns"
    )
    pairs = (
        "Array(Tuple(key String, value Tuple(text Nullable(String), flag Nullable(Bool), whole Nullable(Int64),"
        " real Nullable(Float64), list Nullable(String))))"
    )
    structure = (
        f"resource_spans Array(Tuple(resource Tuple(attributes {pairs}), scope_spans Array(Tuple(spans Array(Tuple("
        "trace_id String, span_id String, parent_span_id String, name String, start_ns UInt64, end_ns UInt64,"
        f" attributes {pairs}, status Tuple(code UInt32)))))))"
    )
    text = "coalesce(v.text, toString(v.whole), toString(v.real), toString(v.flag), v.list, '')"
    path = Path(folder) / "body"
    sql = f"""INSERT INTO spans SELECT service, span.trace_id, span.span_id, span.parent_span_id, span.name,
        span.start_ns, span.end_ns, span.status.code,
        mapFromArrays(span.attributes.key, arrayMap(v -> {text}, span.attributes.value))
        FROM (SELECT own.value.text[indexOf(own.key, 'service.name')] AS service, arrayJoin(scope.spans) AS span
        FROM (SELECT g.resource.attributes AS own, arrayJoin(g.scope_spans) AS scope
        FROM (SELECT arrayJoin(resource_spans) AS g FROM file('{path}', ProtobufSingle, '{structure}'))))
        SETTINGS max_threads = 1, format_schema = '{schema}:Request'"""

    def take(each):
        path.write_bytes(each)
        client.command(sql)

    return client, take


def bare_sink(folder: str, spans: int, bodies: list[bytes]) -> dict[str, float]:
    client, take = open_bare_sink(folder)
    result = timed(take, bodies, spans)
    size = merged_size("spans", client.command, lambda sql: client.query(sql).result_rows)
    return {**result, "bytes": size}


IN_PROCESS = {"opsloop": opsloop_store, "bare chDB sink": bare_sink}


def in_own_process(name: str, spans: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--subject", name, "--spans", str(spans)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


# ---- servers: wall time over HTTP until the spans are found ---------------------------------------------------------


def call(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=60) as answer:
        return answer.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(command: list[str], url: str, **environment: str) -> Iterator[tuple[int, float]]:
    """Run a server until the block ends; give its process id and how long it took to answer at ``url``."""
    began = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True, **quiet)
    try:
        while True:
            try:
                call(url)
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.perf_counter() - began > 120:
                    raise RuntimeError(f"{command[0]} did not start") from None
                time.sleep(0.02)
        yield process.pid, time.perf_counter() - began
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            print(f"# {command[0]} had to be killed")
        with suppress(ProcessLookupError):  # children may outlive it
            os.killpg(process.pid, signal.SIGKILL)


def processor_seconds(session: int) -> float:
    """Return the processor time that a server and its children took so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may have ended by now
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += (int(fields[11]) + int(fields[12])) * (int(fields[3]) == session)
    return ticks / os.sysconf("SC_CLK_TCK")


def send_all(
    pid: int, send: Callable[[bytes], None], found: Callable[[int, str], bool], bodies: list[bytes], spans: int
) -> dict[str, float]:
    """Return how many spans a second can be found, sent one body after the other, and their processor time in µs.

    ``found(count, trace_id)`` tells whether so many spans are there, and the last trace.
    """

    def wait(sent: int) -> None:
        trace_id = last_trace(bodies[sent - 1])
        until = time.perf_counter() + 60
        while not found(sent * spans, trace_id):
            if time.perf_counter() > until:
                raise RuntimeError("the spans were not found within a minute")
            time.sleep(0.05)

    send(bodies[0])
    wait(1)
    cpu, began = processor_seconds(pid), time.perf_counter()
    for each in bodies[1:]:
        send(each)
    wait(len(bodies))
    timed_spans = (len(bodies) - 1) * spans
    rate = timed_spans / (time.perf_counter() - began)
    return {"rate": rate, "cpu": (processor_seconds(pid) - cpu) / timed_spans * 1e6}


def last_trace(sent: bytes) -> str:
    made = ExportTraceServiceRequest.FromString(sent)
    return made.resource_spans[0].scope_spans[0].spans[-1].trace_id.hex()


def opsloop_server(folder: str, spans: int, bodies: list[bytes]) -> dict[str, float]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "opsloop.cli", "up", "--port", str(port), "--store", folder]
    with server(command, f"{url}/health") as (pid, cold):
        time.sleep(3)
        idle = int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
        waits = sorted(sent_to_readable(url, number) for number in range(40))

        def found(_, trace_id):
            return trace_id.encode() in call(f"{url}/api/logs?q=trace_id:{trace_id}")

        sent = send_all(pid, lambda each: call(f"{url}/v1/traces", each, PROTOBUF), found, bodies, spans)
        p95 = waits[int(0.95 * len(waits))]
        return {**sent, "cold": cold, "idle": idle, "p50": statistics.median(waits), "p95": p95}


def bare_server(folder: str, spans: int, bodies: list[bytes]) -> dict[str, float]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def found(_, trace_id):
        return call(f"{url}/{trace_id}") != b"0"

    with server([sys.executable, __file__, "--serve-bare", str(port), folder], f"{url}/") as (pid, _):
        return send_all(pid, lambda each: call(f"{url}/v1/traces", each, PROTOBUF), found, bodies, spans)


def serve_bare(port: int, folder: str) -> None:
    """Take bodies over HTTP into the bare sink, and say of a trace how many of its spans are there."""
    import uvicorn

    client, take = open_bare_sink(folder)

    async def application(scope, receive, send):
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        answer = b""
        if scope["method"] == "POST":
            take(b"".join(parts))
        else:
            sql = "SELECT count() FROM spans WHERE trace_id = unhex({id:String})"
            answer = str(client.query(sql, parameters={"id": scope["path"][1:]}).result_rows[0][0]).encode()
        headers = [(b"content-type", b"application/x-protobuf"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    quiet = {"log_level": "warning", "access_log": False, "server_header": False}
    uvicorn.run(application, host="127.0.0.1", port=port, lifespan="off", **quiet)


def sent_to_readable(url: str, number: int) -> float:
    """Return how long four spans take from being sent to being in the log's answer, in milliseconds."""
    made = ExportTraceServiceRequest.FromString(body(4, 10_000 + number))
    trace_id = made.resource_spans[0].scope_spans[0].spans[0].trace_id.hex()
    began = time.perf_counter()
    call(f"{url}/v1/traces", made.SerializeToString(), PROTOBUF)
    while trace_id.encode() not in call(f"{url}/api/logs?q=trace_id:{trace_id}"):
        time.sleep(0.001)
    return (time.perf_counter() - began) * 1000


def phoenix(folder: str, spans: int, bodies: list[bytes], peers: Path) -> dict[str, float]:
    port, grpc = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    places = {"PHOENIX_WORKING_DIR": folder, "PHOENIX_PORT": str(port), "PHOENIX_GRPC_PORT": str(grpc)}
    query = json.dumps({"query": "{projects{edges{node{recordCount}}}}"}).encode()

    def found(count, _):
        answer = json.loads(call(f"{url}/graphql", query, {"Content-Type": "application/json"}))
        return sum(edge["node"]["recordCount"] for edge in answer["data"]["projects"]["edges"]) >= count

    command = [str(peers / "bin/phoenix"), "serve"]
    with server(command, f"{url}/healthz", PHOENIX_HOST="127.0.0.1", **places) as (pid, _):
        return send_all(pid, lambda each: call(f"{url}/v1/traces", each, PROTOBUF), found, bodies, spans)


def mlflow(folder: str, spans: int, bodies: list[bytes], peers: Path) -> dict[str, float]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port", str(port), "--workers", "1"]
    headers = {**PROTOBUF, "x-mlflow-experiment-id": "0"}

    def found(_, trace_id):
        try:
            return trace_id.encode() in call(f"{url}/api/3.0/mlflow/traces/get?trace_id=tr-{trace_id}")
        except urllib.error.HTTPError:  # not yet
            return False

    with server([str(peers / "bin/mlflow"), "server", *places], f"{url}/health") as (pid, _):
        return send_all(pid, lambda each: call(f"{url}/v1/traces", each, headers), found, bodies, spans)


SERVED = {"opsloop": opsloop_server, "bare chDB sink": bare_server}


# ---- the tables -----------------------------------------------------------------------------------------------------


def in_process_rows(rounds: int, sizes: list[int]) -> list[list[str]]:
    rows = []
    for spans in sizes:
        found: dict[str, dict[str, float]] = {}
        for _ in range(rounds):
            for name in IN_PROCESS:
                result = in_own_process(name, spans)
                found[name] = {key: min(value, found.get(name, result)[key]) for key, value in result.items()}
        base = found["bare chDB sink"]
        for name, best in found.items():
            share = base["cpu"] / best["cpu"]
            rate = f"{1e6 / best['cpu']:,.0f}"
            rows.append([name, f"{spans:,}", f"{best['cpu']:.1f}", rate, f"{share:.2f}", f"{best['bytes']:.0f}"])
    return rows


def served_rows(rounds: int, spans: int, peers: Path | None) -> tuple[list[list[str]], dict[str, float]]:
    found: dict[tuple[str, int], dict[str, float]] = {}
    for size, count in ((512, 41), (spans, 13)):
        for _ in range(rounds):
            for name, run in SERVED.items():
                with tempfile.TemporaryDirectory() as folder:
                    result = run(folder, size, [body(size, seed) for seed in range(count)])
                best = found.setdefault((name, size), result)
                best.update({key: (max if key == "rate" else min)(best[key], each) for key, each in result.items()})
    for name, run, count in (("Phoenix", phoenix, 5), ("MLflow", mlflow, 3)):
        if peers is None or not (peers / "bin" / name.lower()).exists():
            print(f"# {name}: not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name, 512] = run(folder, 512, [body(512, seed) for seed in range(count)], peers)
            except (RuntimeError, OSError, KeyError, ValueError) as cause:
                print(f"# {name}: {cause}")
    slowest = min(result["rate"] for result in found.values())
    rows = []
    for (name, size), result in found.items():
        share, times = result["rate"] / found["bare chDB sink", size]["rate"], result["rate"] / slowest
        told = [f"{result['rate']:,.0f}", f"{share:.2f}", f"{times:.1f}", f"{result['cpu']:.1f}"]
        rows.append([name, f"{size:,}", *told])
    return rows, found["opsloop", 512]


def show(head: list[str], rows: list[list[str]], *, markdown: bool) -> None:
    if markdown:
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))
        return
    for row in [head, *rows]:
        print(f"{row[0]:24}" + "".join(f"{cell:>18}" for cell in row[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--spans", type=int, default=10_000, help="spans in a large body")
    parser.add_argument("--peers", type=Path, help="an environment with arize-phoenix and mlflow")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/ingest.md has them")
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    parser.add_argument("--serve-bare", nargs=2, metavar=("PORT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bare:
        serve_bare(int(options.serve_bare[0]), options.serve_bare[1])
        return
    if options.subject:
        with tempfile.TemporaryDirectory() as folder:
            count = SAMPLES * bodies_in_a_sample(options.spans)
            bodies = [body(options.spans, seed) for seed in range(count)]
            print(json.dumps(IN_PROCESS[options.subject](folder, options.spans, bodies)))
        return
    head = ["until the commit", "spans in a body", "CPU µs/span", "spans/s/core", "of the bare sink", "bytes/span"]
    show(head, in_process_rows(options.rounds, [512, options.spans]), markdown=options.markdown)
    print()
    rows, own = served_rows(options.rounds, options.spans, options.peers)
    head = ["over HTTP, one sender", "spans in a body", "spans/s", "of the bare sink", "× slowest", "CPU µs/span"]
    show(head, rows, markdown=options.markdown)
    print(
        f"\nsent to readable: p50 {own['p50']:.0f} ms, p95 {own['p95']:.0f} ms; idle {own['idle']:.0f} MB;"
        f" cold start {own['cold']:.1f} s"
    )


if __name__ == "__main__":
    main()
