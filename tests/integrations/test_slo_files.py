"""Objectives come in from OpenSLO and Sloth files, and go out again; what is lost is said."""

from __future__ import annotations

import re
import tomllib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.cli.commands import run
from opsloop.errors import PayloadError
from opsloop.integrations.document import read_yaml
from opsloop.integrations.openslo import from_openslo, to_openslo
from opsloop.integrations.slo_file import Imported, slo_id, to_toml
from opsloop.integrations.sloth import alert_windows, from_sloth, to_sloth
from opsloop.settings import Settings, SloSettings, load_settings

ids = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True)
targets = st.integers(1, 99_999).map(lambda n: n / 100_000)
labels = st.dictionaries(
    st.from_regex(r"[a-z][a-z_.]{0,10}[a-z]", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    max_size=2,
)
slos = (
    st.builds(
        SloSettings,
        id=ids,
        sli=st.sampled_from(["availability", "quality", "goodput"]),
        target=targets,
        period_days=st.sampled_from([7.0, 28.0, 30.0, 10.5]),
        labels=labels,
        threshold=st.sampled_from([0.5, 0.75]),
        scorer=st.sampled_from(["", "groundedness"]),
        absent_seconds=st.sampled_from([None, 600.0]),
    )
    | st.builds(
        SloSettings,
        id=ids,
        sli=st.sampled_from(["latency", "time_to_first_token"]),
        threshold_us=st.integers(1, 10**9),
        target=targets,
    )
    | st.builds(
        SloSettings,
        id=ids,
        target=targets,
        calendar=st.sampled_from(["week", "month", "quarter"]),
        time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
    )
)
lists = st.lists(slos, min_size=1, max_size=3, unique_by=lambda slo: slo.id).map(tuple)
thirty = settings(max_examples=30, deadline=None)


@thirty
@given(found=lists)
def test_what_we_export_as_openslo_comes_back(found):
    """Through OpenSLO and TOML an objective is the same, whatever its id, target, period and labels."""
    again = from_openslo(to_openslo(Settings(slo=found)))
    assert tuple(each.slo for each in again) == found
    assert [each.notes for each in again] == [()] * len(found)


@thirty
@given(found=lists, notes=st.lists(st.text(max_size=20), max_size=2).map(tuple))
def test_toml_says_the_same(found, notes):
    """The printed tables are TOML that the settings read back, with any text as a comment."""
    text = to_toml([Imported(slo, notes) for slo in found])
    assert msgspec.convert(tomllib.loads(text)["slo"], tuple[SloSettings, ...]) == found


@thirty
@given(found=lists)
def test_what_we_export_for_sloth_comes_back_but_for_what_it_has_no_word_for(found):
    """Ids and targets survive Sloth's percents exactly; the kind of indicator is a guess there, and says so."""
    text = to_sloth(Settings(slo=found))
    again = {each.slo.id: each for each in from_sloth(text, period_days=30)}
    assert {name: each.slo.target for name, each in again.items()} == {slo.id: slo.target for slo in found}
    assert all(each.notes for each in again.values())


@given(name=st.text(max_size=80))
def test_any_name_makes_an_id(name):
    """An id that is made from any text is one that the settings take."""
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", slo_id(name))


SLOTH = """
version: prometheus/v1
service: chat
labels: {team: answers}
slos:
- name: requests
  objective: 99.9
  sli:
    events:
      error_query: sum(rate(http_requests_total{code=~"5.."}[{{.window}}]))
      total_query: sum(rate(http_requests_total[{{.window}}]))
  alerting: {name: Requests, ticket_alert: {disable: true}}
- name: first token
  objective: 95
  labels: {tier: gold}
  sli:
    events:
      error_query: |
        sum(rate(llm_time_to_first_token_seconds_count[{{.window}}]))
        - sum(rate(llm_time_to_first_token_seconds_bucket{le="0.5"}[{{.window}}]))
      total_query: sum(rate(llm_time_to_first_token_seconds_count[{{.window}}]))
- name: requests
  objective: 99
  sli: {plugin: {id: "some/plugin"}}
"""


def test_a_sloth_file_becomes_toml(tmp_path, capsys):
    """Bucket bounds become thresholds, percents become exact shares, and each loss is named."""
    file = tmp_path / "chat.yaml"
    file.write_text(SLOTH)
    assert run(["import", "sloth", str(file), "--days", "28"]) == 0
    text = capsys.readouterr().out
    assert (
        text
        == """\
# guessed availability: check sli and labels
# query not translated: sum(rate(http_requests_total{code=~"5.."}[{{.window}}]))
# query not translated: sum(rate(http_requests_total[{{.window}}]))
# ticket_alert is disabled there; here leave its burn out of every [[alert]]
[[slo]]
id = "requests"
sli = "availability"
target = 0.999
period_days = 28.0

# guessed time_to_first_token from the bucket le="0.5", read as 0.5 s
# query not translated: sum(rate(llm_time_to_first_token_seconds_count[{{.window}}])) - \
sum(rate(llm_time_to_first_token_seconds_bucket{le="0.5"}[{{.window}}]))
# query not translated: sum(rate(llm_time_to_first_token_seconds_count[{{.window}}]))
# labels of its rules left out: tier
[[slo]]
id = "first-token"
sli = "time_to_first_token"
target = 0.95
threshold_us = 500000
period_days = 28.0

# guessed availability: check sli and labels
# plugin not run: some/plugin
# renamed: another objective is called requests
[[slo]]
id = "requests-2"
sli = "availability"
target = 0.99
period_days = 28.0
"""
    )
    config = tmp_path / "opsloop.toml"
    config.write_text(text)
    assert [slo.id for slo in load_settings(config).slo] == ["requests", "first-token", "requests-2"]


def test_sloth_on_kubernetes_and_its_windows_are_read():
    """The resource's camel case means the same, and an AlertWindows document says the period."""
    resource = """
apiVersion: sloth.slok.dev/v1
kind: PrometheusServiceLevel
metadata: {name: chat}
spec:
  service: chat
  slos:
  - name: slow
    objective: 99.5
    sli: {events: {errorQuery: 'a_ms_bucket{le="250"}', totalQuery: a_ms_count}}
    alerting: {pageAlert: {disable: true}}
---
"""
    (found,) = from_sloth(resource + alert_windows(7))
    assert found.slo == SloSettings(id="slow", sli="latency", target=0.995, threshold_us=250_000, period_days=7.0)
    assert found.notes[-1] == "page_alert is disabled there; here leave its burn out of every [[alert]]"


def test_alert_windows_say_what_each_tier_spends():
    """At 30 days the windows are the workbook's; at 7 the first keeps its factor and spends 8.57% of the budget."""
    spent = {}
    for days in (30, 7):
        (document,) = read_yaml(alert_windows(days), name="windows")
        pairs = [document["spec"][kind][pace] for kind in ("page", "ticket") for pace in ("quick", "slow")]
        spent[days] = [(pair["errorBudgetPercent"], pair["shortWindow"], pair["longWindow"]) for pair in pairs]
    assert spent[30] == [(2.0, "5m", "1h"), (5.0, "30m", "6h"), (10.0, "2h", "1d"), (10.0, "6h", "3d")]
    assert spent[7][0] == (8.571429, "5m", "1h")


OPENSLO = """
apiVersion: openslo/v1
kind: SLI
metadata: {name: fast-answers}
spec:
  ratioMetric:
    counter: true
    good: {metricSource: {type: Prometheus, spec: {query: 'answer_seconds_bucket{le="2.5"}'}}}
    total: {metricSource: {type: Prometheus, spec: {query: answer_seconds_count}}}
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: fast, displayName: Fast}
spec:
  service: chat
  indicatorRef: fast-answers
  timeWindow: [{duration: 1M, calendar: {startTime: 2026-01-01 00:00:00, timeZone: UTC}}]
  budgetingMethod: Timeslices
  objectives:
  - {displayName: good, target: 0.95, timeSliceTarget: 0.9, timeSliceWindow: 1m}
  - {displayName: best, targetPercent: 99.5}
  alertPolicies: [{alertPolicyRef: a}, {alertPolicyRef: b}]
"""


def test_an_openslo_file_becomes_objectives():
    """Indicators are found by their name, each objective is one of ours, and each loss is named."""
    lost = (
        'guessed latency from the bucket le="2.5", read as 2.5 s',
        'query not translated: answer_seconds_bucket{le="2.5"}',
        "query not translated: answer_seconds_count",
        "Timeslices are not kept: every event weighs alike",
        "2 alert policies left out: opsloop's four burn tiers hold",
    )
    assert from_openslo(OPENSLO) == [
        Imported(SloSettings(id=name, sli="latency", target=target, threshold_us=2_500_000, calendar="month"), lost)
        for name, target in (("fast-good", 0.95), ("fast-best", 0.995))
    ]


def test_a_calendar_and_an_absence_are_written_as_openslo_says_them():
    """A quarter starts at an aligned local time without rolling, and silence alerts where it is set to."""
    slo = SloSettings(id="up", calendar="quarter", time_zone="Europe/Berlin", absent_seconds=600)
    documents = read_yaml(to_openslo(Settings(slo=(slo,))), name="out")
    (spec,) = (document["spec"] for document in documents if document["kind"] == "SLO")
    calendar = {"startTime": "2024-01-01 00:00:00", "timeZone": "Europe/Berlin"}
    assert spec["timeWindow"] == [{"duration": "1Q", "calendar": calendar, "isRolling": False}]
    policies = [document["spec"] for document in documents if document["kind"] == "AlertPolicy"]
    assert [policy["alertWhenNoData"] for policy in policies] == [True] * 4


BERLIN = {"calendar": "quarter", "time_zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("window", "expected", "note"),
    [
        ("duration: 1w, calendar: {startTime: 2026-01-05 00:00:00, timeZone: UTC}", {"calendar": "week"}, ""),
        ("duration: 1Q, calendar: {startTime: '2025-10-01 00:00:00', timeZone: Europe/Berlin}", BERLIN, ""),
        ("duration: 1M, calendar: {timeZone: UTC}", {"calendar": "month"}, ""),
        ("duration: 1w, calendar: {startTime: 2026-01-04 00:00:00}", {"period_days": 7.0}, "1w from 2026-01-04"),
        ("duration: 1M, calendar: {startTime: 2026-01-01 12:30:00}", {}, "a rolling one of 30 days"),
        ("duration: 1Q, calendar: {startTime: 2026-02-01}", {"period_days": 90.0}, "a rolling one of 90 days"),
        ("duration: 1Y, calendar: {startTime: 2026-01-01}", {"period_days": 365.0}, "a rolling one of 365 days"),
        ("duration: 28d, isRolling: true", {"period_days": 28.0}, ""),
    ],
)
def test_a_calendar_of_openslo_is_kept_where_ours_begins_alike(window, expected, note):
    """A week from Monday, a month and a quarter from the first stay; any other window rolls, and that is said."""
    calendar = "duration: 1M, calendar: {startTime: 2026-01-01 00:00:00, timeZone: UTC}"
    found = from_openslo(OPENSLO.replace(calendar, window))[0]
    assert found.slo == SloSettings(id="fast-good", sli="latency", target=0.95, threshold_us=2_500_000, **expected)
    assert any(note in each for each in found.notes) if note else not any("rolling" in each for each in found.notes)


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (from_openslo, "a: [", "openslo.yaml is not YAML"),
        (from_openslo, "- 1", "openslo.yaml: document 1 is a list, no mapping"),
        (from_openslo, "apiVersion: openslo/v2", "document 1 is of apiVersion 'openslo/v2'"),
        (from_openslo, "apiVersion: openslo/v1\nkind: Service", "openslo.yaml holds no SLO"),
        (from_openslo, OPENSLO.replace("kind: SLI", "kind: X"), "names the indicator 'fast-answers'"),
        (from_openslo, OPENSLO.replace("target: 0.95", "target: 1"), "a target of 100% leaves no budget"),
        (from_openslo, OPENSLO.replace("target: 0.95", "target: a lot"), "`$.spec.objectives[0].target`"),
        (from_openslo, OPENSLO.replace("target: 0.95, ", ""), "neither target nor targetPercent"),
        (from_openslo, OPENSLO.replace("1M", "one month"), "'one month' is no duration"),
        (from_openslo, OPENSLO.replace("timeZone: UTC", "timeZone: Mars"), "'Mars' is no time in a zone"),
        (from_openslo, OPENSLO.replace("2026-01-01 00:00:00", "soon"), "calendar soon 'UTC' is no time in a zone"),
        (from_sloth, "version: other", "document 1 is of version 'other'"),
        (from_sloth, SLOTH.replace("objective: 95", "objective: most"), "`$.slos[1].objective`"),
        (from_sloth, SLOTH.replace("objective: 95", "objective: 0"), "slo 'first token': a target of 0%"),
        (from_sloth, "kind: AlertWindows\nspec: {}", "AlertWindows without a sloPeriod"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(read, text, says):
    """The sentence names the document and what is wrong in it."""
    with pytest.raises(PayloadError, match=re.escape(says)):
        read(text)


def test_openslo_keeps_the_specification():
    """Names are DNS labels, each policy has one condition and is referred to, and each target exists."""
    text = to_openslo(Settings(slo=(SloSettings(id="My.SLO_1", sli="goodput", target=0.9, period_days=10.5),)))
    documents = read_yaml(text, name="out")
    kinds = [document["kind"] for document in documents]
    assert kinds == ["Service", "AlertNotificationTarget", "SLO", *["AlertPolicy"] * 4]
    names = {document["kind"] + "/" + document["metadata"]["name"] for document in documents}
    for document in documents:
        assert document["apiVersion"] == "openslo/v1"
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", document["metadata"]["name"])
        if document["kind"] == "AlertPolicy":
            (condition,) = document["spec"]["conditions"]
            assert re.fullmatch(r"[1-9][0-9]*[mhdwMQY]", condition["spec"]["condition"]["lookbackWindow"])
            assert all(
                f"AlertNotificationTarget/{each['targetRef']}" in names
                for each in document["spec"]["notificationTargets"]
            )
        if document["kind"] == "SLO":
            assert document["spec"]["timeWindow"] == [{"duration": "252h", "isRolling": True}]
            assert all(f"AlertPolicy/{each['alertPolicyRef']}" in names for each in document["spec"]["alertPolicies"])
            assert f"Service/{document['spec']['service']}" in names


@pytest.mark.parametrize("kind", ["prometheus", "alertmanager", "grafana", "openslo", "sloth"])
def test_every_format_is_printed(kind, tmp_path, capsys):
    """The command prints the format of the configured objectives, and nothing else."""
    config = tmp_path / "opsloop.toml"
    config.write_text('[[slo]]\nid = "mine"\ntarget = 0.99\n')
    assert run(["export", kind, "--config", str(config)]) == 0
    said = capsys.readouterr()
    assert "mine" in said.out or kind == "alertmanager"
    assert said.err == ""
    assert read_yaml(said.out, name=kind)
