"""A Grafana dashboard of our signals and budgets, generated: the JSON is checked, never edited.

Objects
    A row of *panels* is one signal; every query reads a series that ``/metrics`` shows or that the exported rules
    record. Panels are laid out left to right on Grafana's 24 columns.
Limits
    Schema version 39 (Grafana 10 and later). A test reads the page into the models that Grafana generates from its
    schemas, and holds every key, type, choice and unit to them. Alerts are Prometheus rules, not panels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from opsloop.dashboard import tiers
from opsloop.integrations.prometheus_rules import duration
from opsloop.settings import Settings, SloSettings

__all__ = ["grafana_dashboard", "queries"]

COLUMNS: Final = 24
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
SERVICE: Final = 'service=~"$service"'


class _Panel(msgspec.Struct, frozen=True):
    """One panel: its title, unit, queries with their legends, and its width."""

    title: str
    unit: str
    targets: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    threshold: float | None = None
    """Where it turns red."""


def grafana_dashboard(settings: Settings) -> dict[str, Any]:
    """Return the dashboard as plain values, for ``json.dumps``.

    >>> grafana_dashboard(Settings())["title"]
    'opsloop'
    """
    rows = (
        ("Budgets", [panel for slo in settings.slo for panel in _budget_panels(slo)]),
        ("Latency", _latency_panels(settings)),
        ("Traffic and errors", _TRAFFIC),
        ("Saturation, quality and cost", _REST),
    )
    return {
        "uid": "opsloop-signals",
        "title": "opsloop",
        "description": "Written by: opsloop export grafana",
        "tags": ["opsloop", "slo"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "graphTooltip": 1,
        "annotations": {"list": []},
        "templating": {"list": _VARIABLES},
        "panels": list(_laid_out(rows)),
    }


def queries(dashboard: dict[str, Any]) -> list[str]:
    """Return every query of a dashboard, for a check by Prometheus itself."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


_VARIABLES: Final[list[dict[str, Any]]] = [
    {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0},
    {
        "name": "service",
        "type": "query",
        "label": "Service",
        "datasource": SOURCE,
        "query": {"query": "label_values(opsloop_requests_total, service)", "refId": "services"},
        "definition": "label_values(opsloop_requests_total, service)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "hide": 0,
    },
]


def _budget_panels(slo: SloSettings) -> list[_Panel]:
    chosen = f'slo="{slo.id}"'
    found = tiers(target=slo.target, period_days=slo.period_days)
    burns = tuple(
        (f'opsloop_slo_burn{{{chosen}, window="{duration(tier.long_seconds)}"}}', f"{tier.severity} {tier.name}")
        for tier in found
    )
    left = f"opsloop_slo_budget_remaining_ratio{{{chosen}}}"
    return [
        _Panel(f"{slo.id}: budget left", "percentunit", ((left, ""),), kind="stat", width=4, threshold=0.0),
        _Panel(f"{slo.id}: budget over time", "percentunit", ((left, "left"),), width=8, threshold=0.0),
        _Panel(f"{slo.id}: burn", "suffix:x", burns, width=12, threshold=found[0].factor),
    ]


def _latency_panels(settings: Settings) -> list[_Panel]:
    limits = [slo.threshold_us / 1e6 for slo in settings.slo if slo.sli == "latency" and slo.threshold_us]
    limit = min(limits, default=None)
    return [
        _Panel("Latency", "s", _quantiles("opsloop_request_duration_seconds"), threshold=limit),
        _Panel("Time to first token", "s", _quantiles("opsloop_time_to_first_token_seconds")),
        _Panel(
            "Latency, exact over 5 minutes",
            "s",
            (("opsloop_request_duration_quantile_seconds", "{{rank}}"),),
            threshold=limit,
        ),
    ]


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    buckets = f"sum by (le) (rate({metric}_bucket{{{SERVICE}}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {buckets})", f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{SERVICE}}}[$__rate_interval]))"


def _outcome(sign: str, outcome: str) -> str:
    return f'sum(rate(opsloop_requests_total{{{SERVICE}, outcome{sign}"{outcome}"}}[$__rate_interval]))'


_TRAFFIC: Final = (
    _Panel("Requests", "reqps", ((_rate("opsloop_requests_total", "outcome"), "{{outcome}}"),)),
    _Panel(
        "Failed requests",
        "percentunit",
        ((f"{_outcome('=', 'error')} / {_outcome('!=', 'rejected')}", "failed"),),
    ),
    _Panel("Errors by type", "reqps", ((_rate("opsloop_request_errors_total", "error_type"), "{{error_type}}"),)),
)
_REST: Final = (
    _Panel("Saturation", "percentunit", (("opsloop_saturation_ratio", "{{resource}}"),), width=6, threshold=0.8),
    _Panel("Quality", "percentunit", (("opsloop_quality_mean", "mean score"),), width=6),
    _Panel(
        "Tokens",
        "short",
        ((_rate("opsloop_llm_tokens_total", "model, direction"), "{{model}} {{direction}}"),),
        width=6,
    ),
    _Panel(
        "Cost in USD an hour",
        "currencyUSD",
        ((f"3600e-6 * {_rate('opsloop_llm_cost_microusd_total', 'model')}", "{{model}}"),),
        width=6,
    ),
)


def _laid_out(rows: Sequence[tuple[str, Sequence[_Panel]]]) -> Iterator[dict[str, Any]]:
    """Place each row's panels left to right, in lines of 24 columns."""
    number = top = 0
    for title, panels in rows:
        number += 1
        yield _row(title, number, top)
        top, left, deepest = top + 1, 0, 0
        for panel in panels:
            if left + panel.width > COLUMNS:
                top, left, deepest = top + deepest, 0, 0
            number += 1
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield _drawn(panel, number, place)
            left, deepest = left + panel.width, max(deepest, panel.height)
        top += deepest


def _row(title: str, number: int, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _drawn(panel: _Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.threshold is not None:
        below = panel.threshold == 0  # a budget is bad below its threshold, all else above
        steps = [{"color": "red" if below else "green", "value": None}]
        steps.append({"color": "green" if below else "red", "value": panel.threshold})
    style = {"thresholdsStyle": {"mode": "line" if panel.threshold is not None else "off"}, "showPoints": "never"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": style if panel.kind == "timeseries" else {},
            },
            "overrides": [],
        },
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
                "exemplar": True,
            }
            for place, (expr, legend) in enumerate(panel.targets)
        ],
    }


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value"},
}
