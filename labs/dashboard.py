"""Golden signals from one window of requests: latency, errors, saturation and the error budget, each judged.

Five minutes of a support bot. In the last two a retriever goes bad: answers slow down, some fail, requests pile up.
"""

from __future__ import annotations

from opsloop import Event
from opsloop.clock import parse_time, seeded
from opsloop.dashboard import dashboard

END_NS = parse_time("2026-01-05T09:05:00Z")
REQUESTS = 600
SLOTS = 32


def traffic() -> list[Event]:
    """Return two requests a second for five minutes; the retriever fails from the third minute on."""
    chance = seeded(7)
    events = []
    for index in range(1, REQUESTS + 1):
        ts_ns, name = END_NS - (REQUESTS - index) * 500_000_000, f"req-{index:03d}"
        bad = index > REQUESTS * 3 // 5
        failed = bad and chance.random() < 0.25
        duration_us = round(chance.lognormvariate(13.2, 0.35) * (4 if bad else 1))
        running = chance.randint(26, 32) if bad else chance.randint(4, 12)
        events += [
            Event(ts_ns=ts_ns, event="retrieve", tool="retrieve", request_id=name, error=failed),
            Event(
                ts_ns=ts_ns,
                event="request",
                request_id=name,
                status_code=503 if failed else 200,
                error=failed,
                error_type="RetrievalTimeout" if failed else "",
                duration_us=duration_us,
                time_to_first_token_us=duration_us // 3,
                input_tokens=chance.randint(400, 900),
                output_tokens=chance.randint(80, 240),
                cost_microusd=chance.randint(300, 700),
                attributes={"in_flight": running},
            ),
        ]
    return events


def main() -> None:
    board = dashboard(traffic(), end_ns=END_NS, window_seconds=300, slots=SLOTS)
    print(board.text())
    failed = ", ".join(f"{name} {count}" for name, count in board.signals.errors.by_type.items())
    print(f"\nFullest resource: {board.signals.saturation.resource}. Failed by type: {failed}.")


if __name__ == "__main__":
    main()
