"""What is written for other tools: they take it, and it reads only what we show."""

from __future__ import annotations

import itertools
import json
import re
import subprocess

import pytest

from opsloop.clock import ManualClock
from opsloop.event import Event
from opsloop.integrations.alertmanager import alertmanager_config, alertmanager_values, not_exported
from opsloop.integrations.counters import SignalCounters
from opsloop.integrations.document import read_yaml
from opsloop.integrations.grafana import grafana_dashboard, queries
from opsloop.integrations.prometheus import SignalGauges
from opsloop.integrations.prometheus_rules import prometheus_rules, rule_groups
from opsloop.settings import DEFAULT_SLOS, AlertSettings, ReceiverSettings, Settings, SloSettings
from tests.dashboard.traffic import END_NS
from tests.integrations.promtool import needs_amtool, needs_promtool

RECEIVERS = (
    ReceiverSettings(id="notices", path="notices.jsonl"),
    ReceiverSettings(id="pager", kind="pagerduty", secret_env="PAGERDUTY_KEY"),
    ReceiverSettings(id="chat", kind="slack", secret_env="SLACK_URL"),
    ReceiverSettings(id="room", kind="slack", url="https://chat.example/hook"),
    ReceiverSettings(id="hook", kind="webhook", url="https://hook.example/", secret_env="HOOK_TOKEN"),
    ReceiverSettings(id="hidden", kind="webhook", secret_env="HOOK_URL"),
    ReceiverSettings(id="peer", kind="alertmanager", url="https://peer.example/"),
)
ALERTS = (
    AlertSettings(id="down", when="BREACH(errors)", notify=("pager", "chat")),
    AlertSettings(id="slow", when="BREACH(latency)", severity="ticket", notify=("hook", "peer", "hidden", "room")),
)
SETTINGS = Settings(
    receiver=RECEIVERS,
    alert=ALERTS,
    slo=(
        *DEFAULT_SLOS,
        SloSettings(id="useful", sli="goodput", target=0.9, period_days=7),
        SloSettings(id="monthly", target=0.99, calendar="month", time_zone="Europe/Berlin"),
    ),
)


@needs_amtool
@pytest.mark.parametrize("settings", [SETTINGS, Settings()], ids=["every receiver", "the defaults"])
def test_amtool_takes_the_configuration(settings, tmp_path):
    """Every kind of receiver makes a configuration that Alertmanager loads."""
    file = tmp_path / "alertmanager.yml"
    file.write_text(alertmanager_config(settings))
    done = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inhibit rules" in done.stdout


def test_pages_and_tickets_go_where_the_alerts_say():
    """Each severity is routed to the receivers that alerts of it name; a page inhibits the ticket beside it."""
    values = alertmanager_values(SETTINGS)
    assert [(route["receiver"], route["matchers"]) for route in values["route"]["routes"]] == [
        ("pager", ['severity="page"']),
        ("chat", ['severity="page"']),
        ("hook", ['severity="ticket"']),
        ("peer", ['severity="ticket"']),
        ("hidden", ['severity="ticket"']),
        ("room", ['severity="ticket"']),
    ]
    assert values["inhibit_rules"] == [
        {"source_matchers": ['severity="page"'], "target_matchers": ['severity="ticket"'], "equal": ["service", "slo"]}
    ]
    assert not_exported(SETTINGS) == [
        "receiver notices is of kind file, which Alertmanager has not: it sends nothing",
        "receiver hook gets Alertmanager's object, version 4, in place of ours",
        "receiver hidden has a secret address, which must be written by hand: it sends nothing",
        "alert down votes over several signals, which Prometheus rules and routes cannot: opsloop keeps it",
        "alert slow votes over several signals, which Prometheus rules and routes cannot: opsloop keeps it",
    ]


def shown(clickhouse):
    """Return the name of every series that a scrape shows once all kinds of events were seen."""
    events = [
        Event(
            ts_ns=END_NS,
            event="request",
            error=True,
            error_type="timeout",
            duration_us=5,
            time_to_first_token_us=2,
            attributes={"in_flight": 3},
        ),
        Event(ts_ns=END_NS, event="llm", model="m", input_tokens=1, output_tokens=1, cost_microusd=1),
        Event(ts_ns=END_NS, event="score", attributes={"status": "scored", "score": 1.0, "scorer": "s"}),
    ]
    clickhouse.append(events)
    counters = SignalCounters(SETTINGS, ManualClock(END_NS))
    counters.add(events)
    families = counters.families() + SignalGauges(clickhouse, SETTINGS, ManualClock(END_NS)).families()
    return {
        family.name + (sample.suffix or ("_total" if family.kind == "counter" else ""))
        for family in families
        for sample in family.samples
    }


def test_nothing_reads_a_series_that_is_not_shown(clickhouse):
    """Every metric in the rules and on the Grafana page is one that a scrape shows."""
    rules = [rule["expr"] for group in rule_groups(SETTINGS.slo, service="bot") for rule in group["rules"]]
    named = set(re.findall(r"\bopsloop_\w+", " ".join([*rules, *queries(grafana_dashboard(SETTINGS))])))
    assert len(named) > 10
    assert named <= shown(clickhouse)


def test_a_calendar_budget_has_the_same_series_at_every_scrape(clickhouse):
    """Its window is called after it, whatever time has passed, and the exported rules read that name."""
    clickhouse.append([Event(ts_ns=END_NS, event="request", error=True)])
    windows = [
        {
            sample.labels["window"]
            for family in SignalGauges(clickhouse, SETTINGS, ManualClock(END_NS + later)).families()
            if family.name == "opsloop_slo_window_events"
            for sample in family.samples
            if sample.labels["slo"] == "monthly"
        }
        for later in (0, 1, 12_345_678_912_345)
    ]
    assert windows == [{"5m", "30m", "1h", "2h", "6h", "1d", "3d", "month"}] * 3
    (group,) = rule_groups(SETTINGS.slo[-1:], service="bot")
    exprs = {rule["record"]: rule["expr"] for rule in group["rules"] if "record" in rule}
    assert exprs["slo:period_burn_rate:ratio"] == 'max(opsloop_slo_burn{slo="monthly", window="month"})'
    assert exprs["slo:period_error_budget_remaining:ratio"] == (
        'max(opsloop_slo_budget_remaining_ratio{slo="monthly"})'
    )
    assert not [name for name in exprs if "30d" in name]


@needs_promtool
def test_prometheus_parses_every_query_of_the_grafana_page(tmp_path):
    """Each query of the dashboard, and each rule, is valid PromQL once Grafana has filled in its variables."""
    filled = [query.replace("$__rate_interval", "1m") for query in queries(grafana_dashboard(SETTINGS))]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]
    groups = [{"name": "panels", "rules": rules}, *rule_groups(SETTINGS.slo, service="bot")]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": groups}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_grafana_page_is_whole():
    """Ids differ, panels lie inside 24 columns and never on one another, and every query has a source and a legend."""
    page = grafana_dashboard(SETTINGS)
    assert json.loads(json.dumps(page)) == page
    panels = page["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${source}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for one, other in itertools.combinations((panel["gridPos"] for panel in panels), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    titles = [panel["title"] for panel in panels]
    for slo in SETTINGS.slo:
        assert f"{slo.id}: burn" in titles


def test_rules_are_the_same_on_every_run():
    """A file in git changes only when the settings do."""
    assert prometheus_rules(SETTINGS) == prometheus_rules(SETTINGS)
    (document,) = read_yaml(prometheus_rules(SETTINGS), name="rules")
    assert document["groups"] == rule_groups(SETTINGS.slo, service="app")
