"""Structured logging: three requests, one fails; from its request id to the reason.

Run it: python labs/structured_logging.py
"""

from __future__ import annotations

import json

from opsloop import ManualClock, MemoryStream
from opsloop.event import encode_event
from opsloop.structured_logging import Logger, correlate, query
from opsloop.testing import SeededIds

SHOWN = ("event", "request_id", "tool", "status_code", "error", "message")


def search(clock: ManualClock, *, index_up: bool) -> None:
    """Look the question up in the vector index, which is slow to say that it is down."""
    clock.advance(seconds=0.08 if index_up else 3)
    if not index_up:
        raise TimeoutError("index timed out after 3 s")


def answer(log: Logger, clock: ManualClock, request_id: str, question: str, *, index_up: bool) -> None:
    """Serve one request of a support bot: retrieve, then answer."""
    with log.request(request_id=request_id, route="/chat", tenant="acme") as request:
        log.info(question)
        try:
            with log.step("tool", tool="retrieve"):
                search(clock, index_up=index_up)
        except TimeoutError:
            request.set(status_code=503)
        else:
            clock.advance(seconds=0.4)
            request.set(status_code=200)


def record(line: bytes) -> str:
    """Return a JSON record without its times and span ids, so that it fits the screen."""
    fields = json.loads(line)
    return json.dumps({name: fields[name] for name in SHOWN if name in fields})


def main() -> None:
    stream, clock = MemoryStream(), ManualClock("2026-01-05T09:00:00Z")
    log = Logger(stream, service="support-bot", clock=clock, ids=SeededIds(1))
    answer(log, clock, "req-A", "where is my parcel?", index_up=True)
    answer(log, clock, "req-B", "how do I return a lamp?", index_up=False)
    answer(log, clock, "req-C", "mail me at ann@example.org", index_up=True)

    print("1. One line of JSON per event; every line of a request shares its request_id")
    print("   (times, durations and span ids are left out here)")
    for event in stream.query():
        print("  ", record(encode_event(event)))

    story = correlate(stream, "req-B")
    print('\n2. correlate("req-B"): the failing request\'s three lines, in the order they were written')
    for event in story.events:
        print("  ", record(encode_event(event)))

    print("\n3. The same story as a tree")
    print("\n".join(f"   {line}".rstrip() for line in story.text(width=96).splitlines()))

    failed = query(stream, event="tool", tool="retrieve", error=True)
    print('\n4. query(event="tool", tool="retrieve", error=True)')
    print(f"   {len(failed)} failed retrieval, in {failed[0].request_id}: {failed[0].message}")
    typed = query(stream, "tool:retrieve error:true duration>500ms since:1h", now_ns=clock.now_ns())
    print(f'   the typed line "tool:retrieve error:true duration>500ms since:1h" finds the same: {typed == failed}')


if __name__ == "__main__":
    main()
