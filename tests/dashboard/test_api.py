"""The endpoints: the whole answer, equal to the plain functions over the same events."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.clock import NANOSECONDS, seeded
from opsloop.dashboard import Window, dashboard, measure, signals
from opsloop.dashboard.api import endpoints
from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.settings import AlertSettings, Settings


def hour(clock, *, failing=True):
    """Build an hour of requests and retrievals that goes wrong in its last five minutes."""
    chance, now_ns = seeded(3), clock.now_ns()
    for second in range(0, 3600, 6):
        ts_ns = now_ns - second * NANOSECONDS
        bad = failing and second < 300 and chance.random() < 0.6
        yield Event(ts_ns=ts_ns, event="retrieve", error=bad)
        yield Event(
            ts_ns=ts_ns,
            event="request",
            error=bad,
            duration_us=chance.randint(100, 900) * (9000 if bad else 900),
            input_tokens=chance.randint(1, 99),
            attributes={"in_flight": chance.randint(1, 30)},
        )


def decoded(value):
    """Return a value as a client of the API sees it."""
    return msgspec.json.decode(msgspec.json.encode(value))


@pytest.fixture
def ask(clickhouse, clock):
    """Ask an endpoint by its path, as the server would, and return the decoded JSON."""

    def ask(path, settings=Settings(), **arguments):  # noqa: B008 - settings are frozen
        (endpoint,) = [each for each in endpoints(clickhouse, settings, clock) if each.path == path]
        return decoded(endpoint.handler(arguments, b""))

    return ask


def test_signals_of_the_last_hour(ask, clickhouse, clock):
    """The answer is the hour's dashboard, its objectives in their own windows, its series one window per step."""
    events, now_ns = list(hour(clock)), clock.now_ns()
    clickhouse.append(events)
    answer = ask("/api/signals")
    start_ns = now_ns - 3600 * NANOSECONDS
    whole = signals(Window.of(events, start_ns=start_ns, end_ns=now_ns), slots=32)
    recent = dashboard(events, end_ns=now_ns, slots=32)
    assert answer["sentence"] == recent.sentence
    assert (answer["breaching"], answer["signals"], answer["needed"]) == (4, 5, 2)
    assert (answer["now_ns"], answer["start_ns"], answer["end_ns"]) == (now_ns, start_ns, now_ns)
    assert answer["readings"] == decoded(recent.readings)
    assert answer["totals"] == {
        "requests": 600,
        "errors": whole.errors.failed,
        "rejected": 0,
        "cost_microusd": None,
        **{
            name: measure(name).read(whole).value
            for name in (
                "latency_us_p50",
                "latency_us_p95",
                "latency_us_p99",
                "time_to_first_token_us_p95",
                "requests_per_second",
                "tokens_per_second",
                "error_ratio",
                "saturation_ratio",
                "quality_mean",
            )
        },
    }
    series = answer["series"]
    assert (series["step_seconds"], series["ts_ns"][0], series["ts_ns"][-1]) == (
        30,
        start_ns + 30 * NANOSECONDS,
        now_ns,
    )
    assert len(series["ts_ns"]) == 120
    for name in ("latency_us_p95", "error_ratio", "tokens_per_second", "saturation_ratio", "rejected_ratio"):
        assert series[name] == [
            measure(name)
            .read(signals(Window.of(events, start_ns=end_ns - 30 * NANOSECONDS, end_ns=end_ns), slots=32))
            .value
            for end_ns in series["ts_ns"]
        ]
    assert series["errors_by_stage"] == {"retrieve": series["error_ratio"]}
    for slo, reading in zip(answer["slos"], recent.slos, strict=True):
        spent = slo.pop("series")
        assert slo == decoded(reading)
        assert len(spent["ts_ns"]) == len(spent["remaining_ratio"]) == 116
        assert spent["remaining_ratio"][-1] == pytest.approx(slo["remaining_ratio"])
    assert answer["objectives"][0] == {
        "id": "latency",
        "group": "latency",
        "measure": "latency_us_p95",
        "threshold": 1_500_000.0,
        "direction": "above",
        "unit": "us",
        "clear": None,
        "clear_for_seconds": 0.0,
    }


def test_an_empty_store_answers_with_what_is_not_known(ask):
    """Without events every number is null, never 0 or NaN, and the sentence says that there is no data."""
    answer = ask("/api/signals", to="now")
    assert answer["sentence"] == "No data. Nothing was measured in 5 m."
    assert {name: value for name, value in answer["totals"].items() if value is not None} == {
        "requests": 0,
        "errors": 0,
        "rejected": 0,
    }
    assert {value for name in ("latency_us_p95", "requests_per_second") for value in answer["series"][name]} == {None}
    assert answer["slos"][0]["series"]["remaining_ratio"] == [None] * 116


def test_the_number_a_page_needs_is_the_alerts_own(ask):
    """The sentence reads how many signals page from the composite of the settings."""
    alert = AlertSettings(id="three", when="AT_LEAST(3, BREACH, (latency, errors, saturation))")
    assert ask("/api/signals", Settings(alert=(alert,)))["needed"] == 3


def test_an_objective_explains_itself(ask, clickhouse, clock):
    """The text has window, formula, value, comparison and verdict, so that a person can do it again."""
    clickhouse.append(hour(clock))
    answer = ask("/api/signals/explain", id="errors")
    assert (answer["kind"], answer["reading"]["n"], answer["objective"]["threshold"]) == ("objective", 50, 0.02)
    assert (
        answer["text"]
        == """\
errors: failed requests, objective at most 2.00%
window: 2026-01-05T08:55:00.000Z (outside) to 2026-01-05T09:00:00.000Z (inside), 5 m
formula: failed / requests that were let in
value: 0.6, n = 50 requests, at least 20 needed
compared: 0.6 > 0.02
severe: above 0.2
BREACH: failed requests of 60.0% over 50 requests in 5 m is above 2.00% (30 of 50)"""
    )


def test_a_budget_explains_itself(ask, clickhouse, clock):
    """Every tier shows both windows as fractions, the edge, the evidence, and what a full outage would do."""
    clickhouse.append(hour(clock))
    answer = ask("/api/signals/explain", id="availability")
    assert answer["text"].splitlines()[:10] == [
        "availability: 99.5% good by availability over 30 d",
        "budget: E = 1 - 0.995 = 0.005",
        "period: 30 / 600 = 0.05; left = 1 - (bad / total) / E = -9",
        "counted: roll-ups of quarter-hours, events where a window cuts one",
        "page 1 h / 5 m: both windows above 14.4 x 0.005 = 0.072",
        "  1 h: 30 / 600 = 0.05, burn 10",
        "  5 m: 30 / 50 = 0.6, burn 120",
        "  evidence: P(X >= 30 | n = 600, p = 0.005) = 2.35e-20, below 0.0001 counts",
        "  a full outage fires it after 4.32 m; 2.00% of the budget is spent at its pace",
        "  OK: burn 10.0x over 1 h, not above 14.4x",
    ]
    assert answer["windows"][0] == {"seconds": 300.0, "bad": 30, "total": 50}
    assert ask("/api/signals/explain", id="burn-availability")["text"] == answer["text"]


def test_an_unknown_id_names_the_known_ones(ask):
    """Asking about something that is not watched says what is."""
    with pytest.raises(InputError, match=r"no objective 'speed'; use one of latency, errors, .*availability, fast"):
        ask("/api/signals/explain", id="speed")
