"""Backtests and the API: the past by the same machine."""

from __future__ import annotations

import pytest

from opsloop.alerting import Book, backtest, decide, load_rules, replay_instants
from opsloop.alerting.api import endpoints
from opsloop.alerting.worker import AlertWorker
from opsloop.clock import ManualClock, utc
from opsloop.errors import ConfigError, InputError, PayloadError
from opsloop.settings import ReceiverSettings
from opsloop.verdict import reading_event
from tests.alerting.readings import SECOND, START, alert, breach, fine, settings_of

MINUTE = 60 * SECOND
RULES = """
[[alert]]
id = "{id}"
when = "{when}"
clear_for_seconds = 0
"""


def history():
    """Latency breaches at minute 1, errors join at 3, both recover at 6; errors alone at 8."""
    return [
        fine("latency", START),
        fine("errors", START),
        breach("latency", START + MINUTE),
        breach("errors", START + 3 * MINUTE),
        fine("latency", START + 6 * MINUTE),
        fine("errors", START + 6 * MINUTE),
        breach("errors", START + 8 * MINUTE),
    ]


def call(room, path, body=b"", **arguments):
    """Call an endpoint by its path."""
    (endpoint,) = [one for one in room if one.path == path]
    return endpoint.handler({"from": str(START - 1), "to": str(START + 10 * MINUTE), **arguments}, body)


def test_a_backtest_counts_the_pages_it_would_have_sent():
    """Over the same history two of two page once, one of two pages twice, and the explanations say when."""
    events = [reading_event(one) for one in history()]
    instants = replay_instants(events, start_ns=START - 1, end_ns=START + 10 * MINUTE, interval_ns=15 * SECOND)
    both = backtest(load_rules(settings_of(alert("BREACH(latency) AND BREACH(errors)"))), instants)
    either = backtest(load_rules(settings_of(alert("BREACH(latency) OR BREACH(errors)"))), instants)
    assert (both.pages, either.pages) == (1, 2)
    assert [utc(one.at_ns) for one in both.explanations if one.outcome == "page"] == ["2026-01-05T09:03:00.000Z"]
    assert both.pages_by_alert == {"unhealthy": 1}
    assert both.evaluations == len(instants)


def test_a_repeat_is_no_second_page():
    """An alert that fires for six hours and is told again after four is one page in two notices."""
    instants = {}
    for at in range(25):
        now = START + at * 15 * MINUTE
        instants[now] = [breach("latency", now), breach("errors", now)]
    report = backtest(load_rules(settings_of(alert())), instants)
    assert (report.pages, [notice.reason for notice in report.notices]) == (
        1,
        ["first notification", "repeat interval elapsed"],
    )


def test_a_backtest_is_the_live_machine():
    """Notices and explanations are those that decide() gives over the same readings."""
    instants = {START + at * MINUTE: [breach("latency", START + at * MINUTE), breach("errors", START + at * MINUTE)]
                for at in range(3)}  # fmt: skip
    rules, book, live = load_rules(settings_of(alert())), Book(), []
    for now, readings in instants.items():
        book, decisions = decide(rules, book, readings, now)
        live.extend(notice for one in decisions for notice in one.notices)
    assert list(backtest(rules, instants).notices) == live


def test_a_reading_stands_until_the_next_or_until_it_is_too_old():
    """Between changes the last reading is used, moved to the instant; after stand_seconds it is gone."""
    events = [reading_event(breach("latency", START))]
    instants = replay_instants(events, start_ns=START, end_ns=START + 4 * MINUTE, interval_ns=MINUTE, stand_seconds=120)
    assert {(now - START) // MINUTE: len(found) for now, found in instants.items()} == {1: 1, 2: 1, 3: 0, 4: 0}
    (moved,) = instants[START + 2 * MINUTE]
    assert (moved.window_start_ns, moved.window_end_ns) == (START + MINUTE, START + 2 * MINUTE)
    assert moved.value == 2.0


def test_the_api_over_a_real_store(clickhouse, tmp_path):
    """State, history, explanation and a backtest of another rule file, after the worker lived through the history."""
    settings = settings_of(alert(), receivers=(ReceiverSettings(id="file", path=str(tmp_path / "n.jsonl")),))
    clock = ManualClock(START - MINUTE)
    worker = AlertWorker(clickhouse, settings, clock, environ={})
    clickhouse.append(reading_event(one) for one in history())
    standing = {}
    for at in range(5):
        clock.set_time(START + at * MINUTE)
        standing |= {one.id: one for one in history() if one.window_end_ns == clock.now_ns()}
        worker.tick([type(one)(**{**{f: getattr(one, f) for f in one.__struct_fields__},
                                  "window_start_ns": clock.now_ns() - MINUTE, "window_end_ns": clock.now_ns()})
                     for one in standing.values()])  # fmt: skip
    room = endpoints(clickhouse, settings, clock)

    found = call(room, "/api/alerts")
    (rule,) = found.rules
    (key,) = rule.keys
    assert (key.phase, key.announced, [vote["id"] for vote in key.votes]) == ("firing", True, ["latency", "errors"])
    assert rule.formula == "AT_LEAST(2, BREACH, (latency, latency-p99, errors, quality))"
    assert [event.attributes["state"] for event in found.transitions] == ["firing"]
    assert [event.attributes["outcome"] for event in found.notices] == ["pending", "sent"]
    assert "memory" not in found.transitions[0].attributes

    why = call(room, "/api/alerts/explain", id="unhealthy")
    assert "unhealthy at 2026-01-05T09:03:00.000Z: page" in why.text
    assert "  delivery    file: sent at 2026-01-05T09:03:00.000Z, written" in why.text
    earlier = call(room, "/api/alerts/explain", id="unhealthy", to=str(START + 2 * MINUTE))
    assert "unhealthy at 2026-01-05T09:01:00.000Z: no page" in earlier.text
    assert earlier.explanations[-1]["line"].startswith("unhealthy is inactive, no page: 1 of 3 signals breach")

    other = RULES.format(id="any", when="BREACH(latency) OR BREACH(errors)").encode()
    assert call(room, "/api/alerts/backtest", other).pages == 2


def test_the_api_says_what_is_wrong(memory, clock):
    """An unknown alert, a body that is no TOML, has no alert, or has a wrong one."""
    room = endpoints(memory, settings_of(alert()), clock)
    with pytest.raises(InputError, match="there is no alert 'x'; use one of: unhealthy"):
        call(room, "/api/alerts/explain", id="x")
    with pytest.raises(PayloadError, match="is not TOML"):
        call(room, "/api/alerts/backtest", b"[[alert")
    with pytest.raises(PayloadError, match=r"has no \[\[alert\]\] table"):
        call(room, "/api/alerts/backtest", b"")
    with pytest.raises(ConfigError, match="unknown signal 'nope'"):
        call(room, "/api/alerts/backtest", RULES.format(id="a", when="BREACH(nope)").encode())
    assert call(room, "/api/alerts/explain", id="unhealthy").text == "unhealthy has not been evaluated yet"
