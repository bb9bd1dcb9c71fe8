"""What one structured log call costs its caller, beside the bare encoder and beside its peers.

    python benchmarks/structured_logging.py [--rounds 200] [--markdown]

The call has five fields and three bound ones. The floor is what nobody can go below who writes the line at once: encode
the merged record and hand the bytes to a buffered file. Subjects take turns in short rounds, in another order in each,
with the garbage collector off as timeit has it. A ratio is the median over the rounds of a subject's time by the
floor's in the same round, so a busy machine disturbs little: compare the ratios, not the machines. What a writer's
thread does is outside of the timed part and shown below the table. Peers are measured where they are installed (orjson,
structlog, python-json-logger, loguru, opentelemetry-sdk), in a fast usual setting.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import logging.handlers
import os
import random
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import Context, copy_context
from pathlib import Path
from statistics import median
from typing import IO, Any

import msgspec

from opsloop.structured_logging import BufferedSink, JsonLinesSink, Logger

CALLS = 500
BOUND: dict[str, Any] = {"request_id": "req-0123456789abcdef", "tenant": "acme", "route": "/chat"}
FIELDS: dict[str, Any] = {"tool": "retrieve", "duration_us": 1834, "documents": 4, "score": 0.87, "cached": False}
MESSAGE = "documents retrieved"


class Subject:
    """One way to log: ``call`` is timed, ``settle`` is not.

    The loop calls each way itself, with ``first`` and the five fields, so that no one has a frame more than its own.
    Only what cannot be said so brings its ``"own"`` fields, at the price of that frame.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        settle: Callable[[], Any] = lambda: None,
        first: str = MESSAGE,
        fields: str = "keywords",
        context: Context | None = None,
    ):
        self.call = call
        self.settle = settle
        self.first = first
        self.fields = fields
        self.context = context or copy_context()

    def seconds(self) -> float:
        return self.context.run(self._seconds)

    def _seconds(self) -> float:
        call, first = self.call, self.first
        if self.fields == "keywords":
            began = time.perf_counter()
            for _ in range(CALLS):
                call(first, tool="retrieve", duration_us=1834, documents=4, score=0.87, cached=False)
        else:
            began = time.perf_counter()
            for _ in range(CALLS):
                call()
        spent = time.perf_counter() - began
        self.settle()
        return spent / CALLS


class Discard:
    """A sink that encodes and throws away."""

    def append(self, events):
        batch = [msgspec.json.encode(event) for event in events]
        return len(batch)


def floor(encode: Callable[[Any], bytes], out: IO[bytes]) -> Subject:
    now_ns, write, bound = time.time_ns, out.write, BOUND

    def call(message, /, **fields):
        write(encode({"ts_ns": now_ns(), "event": "log", "message": message, **bound, **fields}) + b"\n")

    return Subject(call)


def handed_over(stack: ExitStack, *, redact: bool) -> Subject:
    sink = stack.enter_context(BufferedSink(Discard(), capacity=100_000))
    return Subject(Logger(sink, redact=redact).bind(**BOUND).info, settle=sink.flush)


def handed_event(stack: ExitStack, kind: str, *, in_request: bool = False) -> Subject:
    sink = stack.enter_context(BufferedSink(Discard(), capacity=100_000))
    log, context = Logger(sink).bind(**BOUND), copy_context()
    if in_request:
        context.run(log.request().__enter__)
    return Subject(log.event, settle=sink.flush, first=kind, context=context)


def at_once(out: IO[bytes], *, redact: bool, flush: bool = False) -> Subject:
    return Subject(Logger(JsonLinesSink(out, flush=flush), redact=redact).bind(**BOUND).info)


def at_once_attributes(out: IO[bytes]) -> Subject:
    info = Logger(JsonLinesSink(out, flush=False), redact=False).bind(**BOUND).info

    def call():
        info(MESSAGE, index="main", words=1834, documents=4, score=0.87, cached=False)

    return Subject(call, fields="own")


def at_once_in_requests(out: IO[bytes], *, redact: bool) -> Subject:
    """Ten lines a request, each line of another place, and a tenth of the request itself."""
    log = Logger(JsonLinesSink(out, flush=False), redact=redact)
    info = log.bind(component="search").info
    messages = [
        f"step {name} done" for name in ("plan", "seek", "find", "read", "rank", "cut", "join", "cite", "ask", "tell")
    ]
    turn = 0

    def call():
        nonlocal turn
        turn += 1
        if turn % len(messages) == 0:
            with log.request(tenant="acme", route="/chat", status_code=200):
                for message in messages:
                    info(message, tool="retrieve", duration_us=1834, documents=4, score=0.87, cached=False)

    return Subject(call, fields="own")


def at_once_new_texts(out: IO[bytes], *, redact: bool) -> Subject:
    """A message and a value that were never said before."""
    info = Logger(JsonLinesSink(out, flush=False), redact=redact).bind(**BOUND).info
    turn = 0

    def call():
        nonlocal turn
        turn += 1
        info(f"shard {turn} retrieved", index=f"main-{turn}", words=1834, documents=4, score=0.87, cached=False)

    return Subject(call, fields="own")


def standard_library() -> Subject:
    class Formatter(logging.Formatter):
        def format(self, record):
            line = {"ts": record.created, "level": record.levelname, "message": record.getMessage()}
            return json.dumps({**line, **record.fields})

    handler = logging.StreamHandler(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    handler.flush = lambda: None  # the stream's own buffer, as everyone else here
    handler.setFormatter(Formatter())
    logger = logging.Logger("json", logging.INFO)  # noqa: LOG001 - one of its own
    logger.addHandler(handler)
    return Subject(lambda message, **fields: logger.info(message, extra={"fields": {**BOUND, **fields}}))


def python_json_logger() -> Subject:
    from pythonjsonlogger.orjson import OrjsonFormatter

    handler = logging.StreamHandler(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    handler.flush = lambda: None
    handler.setFormatter(OrjsonFormatter("{message}{levelname}{created}", style="{"))
    logger = logging.Logger("pjl", logging.INFO)  # noqa: LOG001 - one of its own
    logger.addHandler(handler)
    return Subject(lambda message, **fields: logger.info(message, extra={**BOUND, **fields}))


def structlog_logger(out: IO[bytes], *, contextvars: bool) -> Subject:
    import structlog

    class Out:
        def __init__(self, *_: Any):
            self._write = out.write

        def info(self, line: bytes):
            self._write(line + b"\n")

    merge = [structlog.contextvars.merge_contextvars] if contextvars else []
    logger = structlog.wrap_logger(
        Out(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            *merge,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt=None),
            structlog.processors.JSONRenderer(serializer=fastest_encoder()),
        ],
        cache_logger_on_first_use=True,
    )
    if contextvars:
        structlog.contextvars.bind_contextvars(**BOUND)
        return Subject(logger.new().info)
    return Subject(logger.bind(**BOUND).info)


def fastest_encoder() -> Callable[..., bytes]:
    try:
        import orjson
    except ImportError:
        return lambda value, **_: msgspec.json.encode(value)
    return lambda value, **_: orjson.dumps(value)


def loguru_logger(out: IO[bytes]) -> Subject:
    from loguru import logger

    logger.remove()
    logger.add(lambda message: out.write(message.encode()), serialize=True, format="{message}")
    return Subject(logger.bind(**BOUND).info)


def opentelemetry(stack: ExitStack) -> Subject:
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter

    provider = LoggerProvider()
    processor = BatchLogRecordProcessor(InMemoryLogRecordExporter(), schedule_delay_millis=60_000)
    provider.add_log_record_processor(processor)
    stack.callback(provider.shutdown)
    emit = provider.get_logger("benchmark").emit

    def call(message, /, **fields):
        emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                body=message,
                attributes={**BOUND, **fields},
            )
        )

    return Subject(call, settle=processor.force_flush)


def subjects(stack: ExitStack, out: IO[bytes]) -> dict[str, Subject]:
    made = {
        "floor: msgspec encode + buffered write": floor(msgspec.json.Encoder().encode, out),
        "opsloop, handed over": handed_over(stack, redact=False),
        "opsloop, handed over, redacted": handed_over(stack, redact=True),
        'opsloop, handed over, event("gauge")': handed_event(stack, "gauge"),
        'opsloop, handed over, event("tool")': handed_event(stack, "tool"),
        'opsloop, handed over, event("tool") in a request': handed_event(stack, "tool", in_request=True),
        "opsloop, at once": at_once(out, redact=False),
        "opsloop, at once, no field a column": at_once_attributes(out),
        "opsloop, at once, redacted": at_once(out, redact=True),
        "opsloop, at once, redacted, each line flushed": at_once(out, redact=True, flush=True),
        "opsloop, at once, redacted, new texts each time": at_once_new_texts(out, redact=True),
        "opsloop, at once, redacted, ten lines a request": at_once_in_requests(out, redact=True),
    }
    peers: dict[str, Callable[[], Subject]] = {
        "floor: orjson encode + buffered write": lambda: floor(__import__("orjson").dumps, out),
        "structlog, fastest, bound": lambda: structlog_logger(out, contextvars=False),
        "structlog, fastest, contextvars": lambda: structlog_logger(out, contextvars=True),
        "logging + json": standard_library,
        "python-json-logger, orjson": python_json_logger,
        "OpenTelemetry Logger.emit, batch": lambda: opentelemetry(stack),
        "loguru, serialize": lambda: loguru_logger(out),
    }
    for name, make in peers.items():
        try:
            made[name] = make()
        except ImportError as cause:
            print(f"# {name}: not installed ({cause.name})")
    return made


def bytes_per_queued_event(count: int = 20_000) -> float:
    gate = threading.Event()

    class Closed:
        def append(self, events):
            gate.wait()
            return len(list(events))

    sink = BufferedSink(Closed(), capacity=2 * count, batch=1)
    log = Logger(sink).bind(**BOUND)
    log.info("the writer waits with this one")
    time.sleep(0.2)
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        log.info(MESSAGE, tool="retrieve", duration_us=1834 + number, documents=4, score=number / 7, cached=False)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    gate.set()
    sink.close(60)
    return size / count


def total_cpu_seconds(count: int = 20_000) -> float:
    """Both threads' processor time per event, made, redacted and encoded."""
    with BufferedSink(Discard(), capacity=2 * count) as sink:
        log = Logger(sink).bind(**BOUND)
        began = time.process_time()
        for _ in range(count):
            log.info(MESSAGE, tool="retrieve", duration_us=1834, documents=4, score=0.87, cached=False)
        sink.flush(60)
        return (time.process_time() - began) / count


def rounds(made: dict[str, Subject], count: int) -> dict[str, list[float]]:
    """Return the seconds per call of each subject in each round."""
    taken: dict[str, list[float]] = {name: [] for name in made}
    order, chance = list(made), random.Random(7)
    gc.collect()
    gc.disable()
    for _ in range(count):
        chance.shuffle(order)
        for name in order:
            taken[name].append(made[name].seconds())
    gc.enable()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/structured_logging.md has it")
    options = parser.parse_args()
    with ExitStack() as stack:
        out = stack.enter_context(Path(os.devnull).open("wb", buffering=1 << 16))
        made = subjects(stack, out)
        taken = rounds(made, options.rounds)
    base = next(name for name in ("floor: orjson encode + buffered write", next(iter(made))) if name in made)
    rows = [
        (median(mine / floor for mine, floor in zip(taken[name], taken[base], strict=True)), median(taken[name]), name)
        for name in made
    ]
    if options.markdown:
        print("| subject | µs per call | × floor |\n|---|---|---|")
        print("\n".join(f"| {name} | {seconds * 1e6:.2f} | {ratio:.2f} |" for ratio, seconds, name in sorted(rows)))
    else:
        print(f"{'subject':50}{'µs/call':>9}{'× floor':>9}")
        print("\n".join(f"{name:50}{seconds * 1e6:9.2f}{ratio:9.2f}" for ratio, seconds, name in sorted(rows)))
    print(f"\nbytes per queued event: {bytes_per_queued_event():.0f}")
    print(f"processor time of both threads, handed over, redacted and encoded: {total_cpu_seconds() * 1e6:.1f} µs")


if __name__ == "__main__":
    main()
