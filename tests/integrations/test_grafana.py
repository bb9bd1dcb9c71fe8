"""The Grafana page against Grafana's own models of a dashboard, which are generated from its schemas."""

from __future__ import annotations

import enum
import json
import types
import typing
import warnings

import pytest

from opsloop.integrations.grafana import grafana_dashboard
from opsloop.settings import DEFAULT_SLOS, ObjectiveSettings, Settings, SloSettings

pytest.importorskip("grafana_foundation_sdk")

with warnings.catch_warnings():  # newer versions prefer a second form of dashboards; all of them read this one
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models import prometheus, stat, timeseries, units

SETTINGS = (
    Settings(),
    Settings(objective=(), slo=()),
    Settings(
        objective=(ObjectiveSettings(id="slow", group="latency", measure="latency_us_p95", threshold=1e6, clear=8e5),),
        slo=(
            *DEFAULT_SLOS,
            SloSettings(id="useful", sli="goodput", target=0.9, period_days=7),
            SloSettings(id="good", sli="quality", target=0.8, calendar="month", time_zone="Europe/Berlin"),
        ),
    ),
)


@pytest.fixture(scope="module", autouse=True)
def _plugins():
    """Let the models know each kind of panel and query."""
    register_default_plugins()


@pytest.fixture(params=SETTINGS, ids=["defaults", "nothing", "all"])
def page(request):
    """A page as Grafana reads it."""
    return json.loads(json.dumps(grafana_dashboard(request.param)))


def missing(ours, theirs, path="$"):
    """Yield the places where the models lost or changed something that we wrote."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{path}.{key} is not in the schema"
            else:
                yield from missing(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from missing(one, other, f"{path}[{place}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def wrong(value, hint, path="$"):
    """Yield the places where a value is not of its declared type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in {typing.Any, object}:
        return
    if origin in {typing.Union, types.UnionType}:
        if all(any(True for _ in wrong(value, part, path)) for part in parts):
            yield f"{path}: {value!r} is no {hint}"
    elif origin is typing.Literal:
        if value not in parts:
            yield f"{path}: {value!r} is none of {parts}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        for place, each in enumerate(value):
            yield from wrong(each, parts[0], f"{path}[{place}]")
    elif origin is dict:
        for key, each in value.items():
            yield from wrong(each, parts[1], f"{path}.{key}")
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in list(hint) and value not in [each.value for each in hint]:
            yield f"{path}: {value!r} is no {hint.__name__}"
    elif not isinstance(value, (int, float) if hint is float else hint) or (hint is int and isinstance(value, bool)):
        yield f"{path}: {value!r} is no {hint}"
    elif type(value).__module__.startswith("grafana_foundation_sdk.models"):
        for name, inner in typing.get_type_hints(type(value)).items():
            yield from wrong(getattr(value, name), inner, f"{path}.{name}")


def test_grafana_knows_everything_that_is_on_the_page(page):
    """Read into Grafana's models and written again, nothing that we wrote is lost, renamed or changed."""
    found = models.Dashboard.from_json(page)
    again = json.loads(JSONEncoder(sort_keys=True).encode(found))
    assert list(missing(page, again)) == []


def test_every_value_has_the_type_that_grafana_declares(page):
    """The whole tree is walked: panels, their options, custom fields and queries, variables, thresholds."""
    found = models.Dashboard.from_json(page)
    assert list(wrong(found, models.Dashboard)) == []
    kinds = {"timeseries": (timeseries.Options, timeseries.FieldConfig), "stat": (stat.Options, dict)}
    panels = [panel for panel in found.panels if isinstance(panel, models.Panel)]
    assert panels
    for panel in panels:
        options, custom = kinds[panel.type_val]
        assert list(wrong(panel.options, options)) == []
        assert isinstance(panel.field_config.defaults.custom, custom)
        if custom is timeseries.FieldConfig:
            assert list(wrong(panel.field_config.defaults.custom, custom)) == []
        assert all(list(wrong(target, prometheus.Dataquery)) == [] for target in panel.targets)


def test_every_unit_is_one_of_grafanas(page):
    """A misspelt unit would stand behind the number instead of formatting it, as the x of a burn is meant to."""
    known = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}
    used = {panel["fieldConfig"]["defaults"]["unit"] for panel in page["panels"] if "fieldConfig" in panel}
    assert used - known <= {"suffix:x"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda page: page["panels"][1].update(titel="?"), "titel is not in the schema"),
        (lambda page: page["panels"][1]["gridPos"].update(x="0"), "$.panels: "),
        (lambda page: page.update(graphTooltip=7), "$.graph_tooltip: 7 is no"),
        (lambda page: page["panels"][1]["options"].update(colorMode="loud"), "'loud' is no BigValueColorMode"),
    ],
)
def test_a_page_that_is_wrong_is_seen(change, says):
    """The check itself: an unknown key, a wrong type, an unknown choice."""
    page = json.loads(json.dumps(grafana_dashboard(Settings())))
    change(page)
    found = models.Dashboard.from_json(page)
    told = list(missing(page, json.loads(JSONEncoder().encode(found)))) + list(wrong(found, models.Dashboard))
    told += [each for panel in found.panels[1:2] for each in wrong(panel.options, stat.Options)]
    assert any(says in each for each in told), told
