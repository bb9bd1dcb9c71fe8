"""Sloth files, in and out: ``prometheus/v1`` and the Kubernetes form of it, with its AlertWindows.

In
    Each SLO becomes a ``[[slo]]``. The period is no part of the file (Sloth takes it on its command line), unless an
    AlertWindows document says it.
Out
    Queries over the exact counters of ``/metrics``. For a period that Sloth does not know (it knows 28 and 30 days)
    :func:`alert_windows` writes the windows file that it asks for.
Lossy, out
    Sloth's budget is a mean of the ratios of slices, ours is event-weighted; its alerts need no evidence; a tier that
    cannot fire is kept by Sloth and lowered by us.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from opsloop.dashboard import tiers
from opsloop.dashboard.burn import DAY_SECONDS
from opsloop.endpoint import duration_seconds
from opsloop.errors import InputError, PayloadError
from opsloop.integrations.document import read_yaml, write_yaml
from opsloop.integrations.prometheus_rules import BAD, TOTAL, WINDOW_BAD, WINDOW_TOTAL, duration
from opsloop.integrations.slo_file import Imported, objective_from, unique
from opsloop.settings import Settings, SloSettings

__all__ = ["alert_windows", "from_sloth", "to_sloth"]

VERSION: Final = "prometheus/v1"
KUBERNETES: Final = "sloth.slok.dev/v1"
KNOWN_PERIODS: Final = (28.0, 30.0)


class _Sli(msgspec.Struct, frozen=True):
    events: dict[str, str] = {}
    raw: dict[str, str] = {}
    plugin: dict[str, Any] = {}


class _Slo(msgspec.Struct, frozen=True):
    name: str
    objective: float
    sli: _Sli
    labels: dict[str, str] = {}
    alerting: dict[str, Any] = {}


class _Spec(msgspec.Struct, frozen=True):
    service: str
    slos: tuple[_Slo, ...]
    labels: dict[str, str] = {}


def from_sloth(text: str, *, name: str = "sloth.yaml", period_days: float = 30.0) -> list[Imported]:
    r"""Return the objectives of a Sloth file. Raises :class:`PayloadError` that names the document and the place.

    >>> text = "version: prometheus/v1\nservice: a\nslos: [{name: up, objective: 99.9, sli: {raw: {}}}]"
    >>> from_sloth(text)[0].slo.target
    0.999
    """
    documents = [_snake(each) for each in read_yaml(text, name=name)]
    for document in documents:
        if document.get("kind") == "AlertWindows":
            period_days = _period(document, name)
    found: list[Imported] = []
    for number, document in enumerate(documents, 1):
        if document.get("kind") == "AlertWindows":
            continue
        where = f"{name}: document {number}"
        found.extend(
            _imported(slo, period_days=period_days, where=f"{where}, slo {slo.name!r}")
            for slo in _spec(document, where).slos
        )
    if not found:
        raise PayloadError(f"{name} holds no SLO", fix=f"hand in a file with version: {VERSION}")
    return unique(found)


def _spec(document: Mapping[str, Any], where: str) -> _Spec:
    kubernetes = document.get("api_version") == KUBERNETES
    if not kubernetes and document.get("version") != VERSION:
        said = document.get("version") or document.get("api_version")
        raise PayloadError(f"{where} is of version {said!r}", fix=f"hand in version: {VERSION}")
    try:
        return msgspec.convert(document.get("spec", {}) if kubernetes else document, _Spec)
    except msgspec.ValidationError as cause:
        raise PayloadError(f"{where}: {cause}", fix="see Sloth's specification") from cause


def _imported(slo: _Slo, *, period_days: float, where: str) -> Imported:
    queries = [*slo.sli.events.values(), *slo.sli.raw.values()]
    notes = []
    if slo.sli.plugin:
        notes.append(f"plugin not run: {slo.sli.plugin.get('id', '?')}")
    if slo.labels:
        notes.append(f"labels of its rules left out: {', '.join(sorted(slo.labels))}")
    notes += [
        f"{alert} is disabled there; here leave its burn out of every [[alert]]"
        for alert in ("page_alert", "ticket_alert")
        if isinstance(told := slo.alerting.get(alert), dict) and told.get("disable")
    ]
    target = Decimal(repr(slo.objective)) / 100
    term = {"period_days": period_days}
    return objective_from(slo.name, target=target, term=term, queries=queries, notes=notes, where=where)


def _period(document: Mapping[str, Any], name: str) -> float:
    try:
        return duration_seconds(document["spec"]["slo_period"]) / DAY_SECONDS
    except (KeyError, TypeError, AttributeError, InputError) as cause:
        raise PayloadError(f"{name}: AlertWindows without a sloPeriod", fix="write sloPeriod: 7d") from cause


def _snake(value: Any) -> Any:
    """Return keys as the plain form writes them: ``errorQuery`` is ``error_query`` there."""
    if isinstance(value, dict):
        return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key)).lower(): _snake(each) for key, each in value.items()}
    return [_snake(each) for each in value] if isinstance(value, list) else value


def to_sloth(settings: Settings) -> str:
    """Return the settings' objectives as a Sloth file, one document for each service; its head says what is lost.

    >>> "objective: 99.5" in to_sloth(Settings())
    True
    """
    services: dict[str, list[SloSettings]] = {}
    for slo in settings.slo:
        services.setdefault(slo.labels.get("service", settings.log.service), []).append(slo)
    documents = [
        {"version": VERSION, "service": service, "slos": [_exported(slo) for slo in slos]}
        for service, slos in services.items()
    ]
    head = "Objectives of opsloop, written by: opsloop export sloth"
    return write_yaml(documents, head=head + "".join(f"\nLossy: {note}" for note in _lost(settings)))


def _exported(slo: SloSettings) -> dict[str, Any]:
    return {
        "name": slo.id,
        "objective": float(Decimal(repr(slo.target)) * 100),
        "description": f"{slo.sli} of opsloop's events",
        "sli": _sli(slo),
        "alerting": {
            "name": "SloBurns",
            "labels": {"slo": slo.id},
            "page_alert": {"labels": {"severity": "page"}},
            "ticket_alert": {"labels": {"severity": "ticket"}},
        },
    }


def _sli(slo: SloSettings) -> dict[str, Any]:
    if slo.sli == "goodput":
        chosen = f'slo="{slo.id}", window="{{{{.window}}}}"'
        query = f"max({WINDOW_BAD}{{{chosen}}}) / (max({WINDOW_TOTAL}{{{chosen}}}) > 0)"
        return {"raw": {"error_ratio_query": query}}
    bad, total = (f'sum(rate({metric}{{slo="{slo.id}"}}[{{{{.window}}}}]))' for metric in (BAD, TOTAL))
    return {"events": {"error_query": bad, "total_query": total}}


def _lost(settings: Settings) -> list[str]:
    notes = [
        "the budget that Sloth shows is a mean of slices' ratios; ours weighs every event alike",
        "Sloth's alerts ask for no evidence, so they page on a failure or two at low traffic",
    ]
    for days in sorted({slo.period_days for slo in settings.slo}):
        if days not in KNOWN_PERIODS:
            period = duration(days * DAY_SECONDS)
            notes.append(f"a period of {period} needs its windows: opsloop export sloth --windows {days:g}")
    notes += [
        f"{slo.id} is of a calendar's {slo.calendar}; Sloth's budget rolls over {slo.period_days:g} days"
        for slo in settings.slo
        if slo.calendar is not None
    ]
    for slo in settings.slo:
        notes += [f"{slo.id}: {tier.note}" for tier in _tiers(slo) if tier.note]
    return notes


def _tiers(slo: SloSettings) -> Any:
    return tiers(target=slo.target, period_days=slo.period_days)


def alert_windows(period_days: float) -> str:
    """Return the AlertWindows file of a period, with our windows and the share of the budget that each tier spends.

    >>> "longWindow: 3d" in alert_windows(30)
    True
    """
    found = tiers(target=0.999, period_days=period_days)
    pairs = [
        {
            "errorBudgetPercent": round(tier.factor * tier.long_seconds / (period_days * DAY_SECONDS) * 100, 6),
            "shortWindow": duration(tier.short_seconds),
            "longWindow": duration(tier.long_seconds),
        }
        for tier in found
    ]
    spec = {
        "sloPeriod": duration(period_days * DAY_SECONDS),
        "page": {"quick": pairs[0], "slow": pairs[1]},
        "ticket": {"quick": pairs[2], "slow": pairs[3]},
    }
    return write_yaml([{"apiVersion": KUBERNETES, "kind": "AlertWindows", "spec": spec}])
