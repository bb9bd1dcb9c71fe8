"""What a question to a full store costs: one request's story, a page of lines, a window's signals, a month's budget.

    python benchmarks/query.py [--millions 1 5] [--folder DIR] [--rounds 9] [--only-requests]

An embedded store is filled with so many million events of the shape that the simulated bot sends (nine to a request,
eight tenants, four models, three routes, a release every three days, one request of 150 failing), spread over the 30
days before a fixed moment. Each question goes through the function behind the HTTP route, so parsing, every statement
and the decoding of rows are in its time. The median of the rounds counts; the engine's memory of conditions it has
seen is off, and every round asks for another request, of any day, and a moment some seconds later, or it would lie.
With ``--folder`` a store that was filled before is asked again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from opsloop.clock import NANOSECONDS, ManualClock, parse_time, utc
from opsloop.dashboard.api import endpoints as dashboard_endpoints
from opsloop.dashboard.budgets import budget_series
from opsloop.dashboard.evaluation import read_slos
from opsloop.endpoint import Endpoint
from opsloop.filter import Statement
from opsloop.settings import ObjectiveSettings, Settings
from opsloop.store import ClickHouseStream
from opsloop.store.columns import HOLE, shape_of
from opsloop.store.rolled import roll_up_quiet_days
from opsloop.structured_logging.api import endpoints as logging_endpoints

END_NS = parse_time("2026-01-05T09:00:00Z")
DAYS = 30
PERIOD_NS = DAYS * 86_400 * NANOSECONDS
BLOCK_ROWS = 900_000
PATIENCE_MS = 10_000
"""A question that has taken so long in all is not asked more than three times."""
PER_REQUEST = 9
KINDS = "['request', 'limit', 'embed', 'retrieve', 'rerank', 'llm', 'guardrail', 'limit', 'gauge']"
DOCUMENTS = (
    '{"id":"kb-118","score":1,"content":"A discount code has 4 to 24 characters and can take off a percentage or a'
    ' fixed amount. Limit it by date, by number of uses or to one use per customer."}'
)
SHAPES = ", ".join(
    f"kind = '{kind}', '{shape_of(attributes)}'"
    for kind, attributes in {
        "request": {"input": "", "finish_reason": "", "in_flight": 1},
        "limit": {
            "phase": "",
            "allowed": True,
            "limits": {"tenant-requests": {"used_ratio": 0.5}, "service-slots": {"used_ratio": 0.5}},
            "reservation": "",
        },
        "retrieve": {"input": "", "documents": []},
        "llm": {"prompt_version": "", "finish_reason": ""},
        "gauge": {"name": "", "value": 2, "limit": 16, "unit": ""},
    }.items()
)
"""What every kind says beside its columns."""
FAILED = "event:retrieve tool:retrieve error:true"
TARGETS: Mapping[str, int | None] = {
    "a request's story": 50,
    f"`{FAILED}`, latest 100": 100,
    "latest 100 of everything": 100,
    "an hour's p95, explained": 50,
    "facets of an hour": 50,
    "facets of 30 days": None,
    "histogram of 30 days": None,
    "dashboard page of an hour": None,
    "dashboard page of a day": None,
    "dashboard page of 30 days": None,
    "budgets of 30 days": 200,
    "their course in 120 steps": 200,
}
"""Every question, with the milliseconds that it may take at 5 million events."""
BUDGETS = ("budgets of 30 days", "their course in 120 steps")

FILL = f"""
INSERT INTO events (ts_ns, sequence, event, stored_event_id, service, environment, release, request_id, trace_id,
    span_id, parent_span_id, tenant, user_id, session_id, route, severity, status_code, error, error_type, duration_us,
    time_to_first_token_us, model, provider, input_tokens, output_tokens, cost_microusd, tool, message, shape, leaves)
SELECT
    began + [0, 0, 1, 30, 80, 130, 700, 720, 900][part] * 1000000 AS ts_ns,
    number + 1 AS sequence,
    kind AS event,
    '{HOLE}' AS stored_event_id,
    if(kind = 'gauge', 'vllm', 'support-bot') AS service,
    'production' AS environment,
    concat('4.', toString(intDiv(began, 259200000000000) % 50), '.0') AS release,
    if(kind = 'gauge', '', concat('req-', lower(hex(dice)))) AS request_id,
    concat(lower(hex(dice)), lower(hex(cityHash64(dice)))) AS trace_id,
    lower(hex(cityHash64(dice, part))) AS span_id,
    if(part = 1, '', lower(hex(cityHash64(dice, 1)))) AS parent_span_id,
    if(kind = 'gauge', '', ['acme', 'acme', 'acme', 'globex', 'globex', 'initech', 'umbrella', 'hooli', 'stark',
        'wayne', 'wonka'][1 + dice % 11]) AS tenant,
    concat(tenant, '-u', toString(dice % 97)) AS user_id,
    concat('s-', lower(hex(dice % 100003))) AS session_id,
    ['support.answer', 'support.answer', 'support.answer', 'support.search', 'support.summary'][1 + dice % 5] AS route,
    multiIf(failed, 'ERROR', part = 8 AND dice % 20 = 0, 'WARN', 'INFO') AS severity,
    if(kind = 'request', if(failed, 502, 200), NULL) AS status_code,
    failed AS error,
    multiIf(NOT failed, '', kind = 'llm', 'upstream_429', kind = 'retrieve', 'TimeoutError', 'upstream') AS error_type,
    multiIf(kind = 'gauge', NULL, kind = 'request', took, kind = 'llm', intDiv(took * 8, 10),
        intDiv(took, 20)) AS duration_us,
    if(kind IN ('request', 'llm'), intDiv(took, 3), NULL) AS time_to_first_token_us,
    multiIf(kind IN ('request', 'llm', 'limit', 'gauge'),
        ['llama-3.3-70b', 'gpt-4.1-mini', 'claude-haiku-4-5', 'gemini-2.5-flash'][1 + dice % 4],
        kind = 'embed', 'text-embedding-3-small', kind = 'rerank', 'bge-reranker-v2-m3', '') AS model,
    if(kind IN ('request', 'llm'), ['vllm', 'openai', 'anthropic', 'gcp.gemini'][1 + dice % 4], '') AS provider,
    if(kind IN ('request', 'llm'), 300 + dice % 500, NULL) AS input_tokens,
    if(kind IN ('request', 'llm'), 20 + dice % 200, NULL) AS output_tokens,
    if(kind IN ('request', 'llm'), 80 + dice % 400, NULL) AS cost_microusd,
    if(kind = 'retrieve', 'retrieve', '') AS tool,
    if(kind = 'request', concat(route, ' in ', toString(intDiv(took, 1000)), ' ms'), '') AS message,
    multiIf({SHAPES}, '') AS shape,
    multiIf(
        kind = 'request', map('input', concat('How do I limit discount code ', toString(dice % 5000), ' to one use?'),
            'finish_reason', 'stop', 'in_flight', toString(1 + dice % 9)),
        kind = 'limit', map('phase', if(part = 2, 'admit', 'settle'), 'allowed', 'true',
            'limits.tenant-requests.used_ratio', concat('0.0', toString(dice % 90)),
            'limits.service-slots.used_ratio', concat('0.1', toString(dice % 70)), 'reservation', request_id),
        kind = 'retrieve', map('input', 'limit a discount code', 'documents', '[{DOCUMENTS}]'),
        kind = 'llm', map('prompt_version', 'answer-v14', 'finish_reason', 'stop'),
        kind = 'gauge', map('name', 'vllm:num_requests_waiting', 'value', '2', 'limit', '16', 'unit', 'requests'),
        map()) AS leaves
FROM (
    SELECT number, toUInt8(1 + number % {{per_request:UInt64}}) AS part, {KINDS}[part] AS kind,
        intDiv(number, {{per_request:UInt64}}) AS asked, cityHash64(asked) AS dice,
        {{start_ns:Int64}} + toInt64((asked + (dice % 1000) / 1000) * {{gap_ns:Float64}}) AS began,
        toUInt64(exp(13.3 + 0.5 * sqrt(-2 * log((1 + cityHash64(dice, 'a') % 99999) / 100000))
            * cos(6.283185307 * (cityHash64(dice, 'b') % 100000) / 100000))) AS took,
        dice % 150 = 0 AND (kind = 'request' OR kind = if(dice % 3 = 0, 'retrieve', 'llm')) AS failed
    FROM numbers({{first:UInt64}}, {{rows:UInt64}}))
SETTINGS max_partitions_per_insert_block = 0"""


def fill(store: ClickHouseStream, millions: float, per_request: int) -> None:
    """Add so many million events, so many of them to a request."""
    rows = round(millions * 1e6) // per_request * per_request
    gap_ns = PERIOD_NS / (rows / per_request)
    parameters = {"start_ns": END_NS - PERIOD_NS, "gap_ns": gap_ns, "per_request": per_request}
    for first in range(0, rows, BLOCK_ROWS):
        block = {"first": first, "rows": min(BLOCK_ROWS, rows - first)}
        store.command(Statement(FILL, parameters | block))


def settle(store: ClickHouseStream) -> None:
    """Wait until every day is rolled up and merged, as it is some minutes after it was filled in by many inserts."""
    roll_up_quiet_days(store, quiet_seconds=-1)
    waiting = Statement("SELECT count() FROM system.mutations WHERE NOT is_done AND database = currentDatabase()")
    while store.rows(waiting)[0][0]:
        time.sleep(0.1)
    store.command(Statement("OPTIMIZE TABLE events FINAL"))


class Questions:
    """Every question of the table, each a function of the round, over one store."""

    def __init__(self, store: ClickHouseStream) -> None:
        self.store = store
        self.clock = ManualClock(END_NS)
        self.settings = Settings()
        hourly = ObjectiveSettings(
            id="hourly", group="latency", measure="latency_us_p95", threshold=1_500_000, window_seconds=3600
        )
        judged = Settings(objective=(hourly,))
        routes = (
            *logging_endpoints(store, self.settings, self.clock),
            *dashboard_endpoints(store, self.settings, self.clock)[:-1],
            dashboard_endpoints(store, judged, self.clock)[-1],
        )
        self._routes: Mapping[str, Endpoint] = {route.path: route for route in routes}
        spread = "SELECT request_id FROM events WHERE event = 'request' ORDER BY cityHash64(sequence) LIMIT 100"
        self._requests = [row[0] for row in store.rows(Statement(spread))]

    def ask(self, path: str, **arguments: str) -> object:
        return self._routes[path].handler(arguments, b"")

    def window(self, length_ns: int, number: int) -> dict[str, str]:
        return {"from": utc(ends(number) - length_ns), "to": utc(ends(number))}

    def all(self) -> dict[str, Callable[[int], object]]:
        """Return the questions in the order of :data:`TARGETS`."""
        hour, day, month = 3600 * NANOSECONDS, 86_400 * NANOSECONDS, PERIOD_NS
        slos = self.settings.slo
        asked: tuple[Callable[[int], object], ...] = (
            self.story,
            lambda n: self.ask("/api/logs", q=FAILED, limit="100", **self.window(month, n)),
            lambda n: self.ask("/api/logs", limit="100", **self.window(month, n)),
            lambda n: self.ask("/api/signals/explain", id="hourly", to=utc(ends(n))),
            lambda n: self.ask("/api/logs/facets", **self.window(hour, n)),
            lambda n: self.ask("/api/logs/facets", **self.window(month, n)),
            lambda n: self.ask("/api/logs/histogram", **self.window(month, n)),
            lambda n: self.ask("/api/signals", **self.window(hour, n)),
            lambda n: self.ask("/api/signals", **self.window(day, n)),
            lambda n: self.ask("/api/signals", **self.window(month, n)),
            lambda n: read_slos(self.store, slos, end_ns=ends(n)),
            lambda n: budget_series(self.store, slos, end_ns=ends(n)),
        )
        return dict(zip(TARGETS, asked, strict=True))

    def story(self, number: int) -> object:
        name = self._requests[number % len(self._requests)]
        return self.ask("/api/requests/{request_id}", request_id=name)


def ends(number: int) -> int:
    """Return the moment of a round: some seconds before the end, so that no two rounds are alike."""
    return END_NS - number * 7 * NANOSECONDS


def medians(store: ClickHouseStream, rounds: int, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return each named question's median wall and processor time in ms, after a first round that does not count.

    The engine runs in this process, so its threads are in the processor time: what a busy machine leaves comparable.
    """
    everything = Questions(store).all()
    questions = {name: everything[name] for name in names}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in questions}
    for number in range(rounds + 1):
        for name, ask in questions.items():
            if len(taken[name]) > 3 and sum(wall for wall, _ in taken[name]) > PATIENCE_MS:
                continue
            store.command(Statement("SYSTEM DROP QUERY CONDITION CACHE"))
            began, used = time.perf_counter(), time.process_time()
            ask(number)
            taken[name].append(((time.perf_counter() - began) * 1000, (time.process_time() - used) * 1000))
    return {
        name: (statistics.median(wall for wall, _ in times[1:]), statistics.median(used for _, used in times[1:]))
        for name, times in taken.items()
    }


def sizes(store: ClickHouseStream) -> str:
    """Return what the store holds, and how much of it are roll-ups and indexes."""
    parameters = {"name": store.database}
    parts = "SELECT sum(rows), sum(bytes_on_disk), count() FROM system.parts"
    held = "SELECT name, sum(rows), sum(bytes_on_disk) FROM system.projection_parts"
    where = " WHERE active AND table = 'events' AND database = {name:String}"
    rows, size, count = store.rows(Statement(parts + where, parameters))[0]
    rolled = store.rows(Statement(f"{held}{where} GROUP BY name ORDER BY name", parameters))
    told = "".join(f"; {name} {lines:,} lines, {part / rows:.1f} B per event" for name, lines, part in rolled)
    return f"{rows:,} events in {count} parts, {size / max(rows, 1):.1f} B per event{told}"


def measured(millions: float, folder: Path, rounds: int, *, only_requests: bool) -> dict[str, tuple[float, float]]:
    """Fill a store where it is empty, tell what it holds, and ask it everything."""
    with ClickHouseStream(str(folder / f"{millions:g}m{'-requests' if only_requests else ''}")) as store:
        if not store.query(limit=1):
            began = time.perf_counter()
            fill(store, millions, 1 if only_requests else PER_REQUEST)
            settle(store)
            print(f"filled {millions:g} M events in {time.perf_counter() - began:.0f} s")
        print(sizes(store))
        return medians(store, rounds, BUDGETS if only_requests else tuple(TARGETS))


def main() -> None:
    """Measure every size and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only-requests", action="store_true", help="millions of requests, asked for budgets alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        found = {
            size: measured(size, folder, arguments.rounds, only_requests=arguments.only_requests)
            for size in arguments.millions
        }
    print("\n| question, ms (processor) |" + "".join(f" {size:g} M |" for size in found) + " growth | target at 5 M |")
    print("|---|" + "---|" * (len(found) + 2))
    smallest, largest = (found[size] for size in (arguments.millions[0], arguments.millions[-1]))
    for name in smallest:
        target = TARGETS[name]
        cells = "".join(f" {wall:.0f} ({used:.0f}) |" for wall, used in (times[name] for times in found.values()))
        growth = largest[name][1] / smallest[name][1]
        print(f"| {name} |{cells} {growth:.1f}x | {f'< {target}' if target else ''} |")


if __name__ == "__main__":
    main()
