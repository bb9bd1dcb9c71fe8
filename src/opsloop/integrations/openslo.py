"""OpenSLO v1, in and out.

In
    Every SLO document; each of its objectives becomes a ``[[slo]]``. Indicators are inline or referred to. What we
    wrote ourselves comes back exactly, through annotations.
Out
    A Service, the SLOs with queries over the counters of ``/metrics``, an AlertPolicy for each burn tier, and the
    receivers as AlertNotificationTargets.
Lossy, out
    An AlertPolicy has one condition with one window: it gets the long one, the short one stands in the annotation
    ``opsloop/short-window``. OpenSLO knows no evidence and no ``strictly above``.
Lossy, in
    Timeslices and RatioTimeslices become event-weighted. A calendar's week, month and quarter stay what they are, from
    Monday or the first; one that begins elsewhere, a day or a year becomes rolling. Alert policies are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time
from decimal import Decimal
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from opsloop.dashboard import Tier, tiers
from opsloop.dashboard.burn import DAY_SECONDS
from opsloop.errors import PayloadError
from opsloop.integrations.document import read_yaml, write_yaml
from opsloop.integrations.prometheus_rules import BAD, TOTAL, WINDOW_BAD, WINDOW_TOTAL, duration
from opsloop.integrations.slo_file import Imported, objective_from, unique
from opsloop.settings import Settings, SloSettings

__all__ = ["from_openslo", "shorthand", "to_openslo"]

VERSION: Final = "openslo/v1"
_OURS: Final = "opsloop/"
_SHORT: Final = re.compile(r"([0-9]+)([mhdwMQY])")
_NONE: Final[Mapping[str, str]] = {}
CALENDARS: Final[Mapping[str, str]] = {"1w": "week", "1M": "month", "1Q": "quarter"}
_ALIGNED: Final = "2024-01-01 00:00:00"
"""A Monday, the first of a month and of a quarter."""
_OWN: Final[Mapping[str, str]] = {
    "sli": "sli",
    "threshold-us": "threshold_us",
    "threshold": "threshold",
    "scorer": "scorer",
    "absent-seconds": "absent_seconds",
    "period-days": "period_days",
}
"""Our annotations and the fields that they hold."""
_DAYS: Final[Mapping[str, float]] = {"m": 1 / 1440, "h": 1 / 24, "d": 1, "w": 7, "M": 30, "Q": 90, "Y": 365}


Kind = TypeVar("Kind")


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    annotations: dict[str, str] = {}


class _Source(msgspec.Struct, frozen=True, rename="camel"):
    spec: dict[str, Any] = {}


class _Metric(msgspec.Struct, frozen=True, rename="camel"):
    metric_source: _Source = _Source()


class _Ratio(msgspec.Struct, frozen=True, rename="camel"):
    good: _Metric | None = None
    bad: _Metric | None = None
    total: _Metric | None = None
    raw: _Metric | None = None


class _Indicator(msgspec.Struct, frozen=True, rename="camel"):
    ratio_metric: _Ratio | None = None
    threshold_metric: _Metric | None = None


class _Holder(msgspec.Struct, frozen=True, rename="camel"):
    spec: _Indicator


class _Calendar(msgspec.Struct, frozen=True, rename="camel"):
    start_time: Any = ""
    """Text, or the date and time that YAML read."""
    time_zone: str = "UTC"


class _Window(msgspec.Struct, frozen=True, rename="camel"):
    duration: str
    is_rolling: bool | None = None
    calendar: _Calendar | None = None


class _Term(msgspec.Struct, frozen=True):
    """What a time window means here."""

    values: dict[str, Any]
    """Fields of a ``[[slo]]``."""
    notes: tuple[str, ...] = ()


class _Objective(msgspec.Struct, frozen=True, rename="camel"):
    display_name: str = ""
    op: str = ""
    value: float | None = None
    target: float | None = None
    target_percent: float | None = None
    time_slice_window: str | float | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    objectives: tuple[_Objective, ...]
    indicator: _Holder | None = None
    indicator_ref: str = ""
    time_window: tuple[_Window, ...] = ()
    budgeting_method: str = "Occurrences"
    alert_policies: list[Any] = []


class _Slo(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Meta
    spec: _Spec


class _Sli(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Meta
    spec: _Indicator


def from_openslo(text: str, *, name: str = "openslo.yaml") -> list[Imported]:
    r"""Return the objectives of an OpenSLO file. Raises :class:`PayloadError` that names the document and the place.

    >>> head = "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: up}\n"
    >>> from_openslo(head + "spec: {objectives: [{target: 0.99}], indicator: {spec: {}}}")[0].slo.target
    0.99
    """
    slos: list[tuple[str, _Slo]] = []
    indicators: dict[str, _Indicator] = {}
    for number, document in enumerate(read_yaml(text, name=name), 1):
        where = f"{name}: document {number}"
        if document.get("apiVersion") != VERSION:
            said = document.get("apiVersion")
            raise PayloadError(f"{where} is of apiVersion {said!r}", fix=f"hand in apiVersion: {VERSION}")
        if document.get("kind") == "SLO":
            slos.append((where, _read(document, _Slo, where)))
        elif document.get("kind") == "SLI":
            indicator = _read(document, _Sli, where)
            indicators[indicator.metadata.name] = indicator.spec
    if not slos:
        raise PayloadError(f"{name} holds no SLO", fix="hand in a document of kind: SLO")
    return unique(found for where, slo in slos for found in _objectives(slo, indicators, where))


def _read(document: Mapping[str, Any], kind: type[Kind], where: str) -> Kind:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as cause:
        raise PayloadError(f"{where}: {cause}", fix="see the OpenSLO specification, v1") from cause


def _objectives(slo: _Slo, indicators: Mapping[str, _Indicator], where: str) -> Iterable[Imported]:
    where = f"{where}, SLO {slo.metadata.name!r}"
    indicator = slo.spec.indicator.spec if slo.spec.indicator else indicators.get(slo.spec.indicator_ref)
    if indicator is None:
        missing = slo.spec.indicator_ref
        raise PayloadError(f"{where} names the indicator {missing!r}, which is not in the file", fix="add its SLI")
    term = _period(slo.spec, where)
    notes = list(term.notes)
    if slo.spec.budgeting_method != "Occurrences":
        notes.append(f"{slo.spec.budgeting_method} are not kept: every event weighs alike")
    own = _own(slo.metadata.annotations)
    if slo.spec.alert_policies and not own:
        notes.append(f"{len(slo.spec.alert_policies)} alert policies left out: opsloop's four burn tiers hold")
    many = len(slo.spec.objectives) > 1
    for objective in slo.spec.objectives:
        target = _target(objective, where)
        if own is not None:
            yield Imported(_exact(own, target, term, where))
            continue
        title = f"{slo.metadata.name}-{objective.display_name or target * 100}" if many else slo.metadata.name
        queries = list(_queries(indicator))
        more = list(notes)
        if objective.value is not None:
            more.append(f"threshold {objective.op} {objective.value:g} of a thresholdMetric: set threshold_us")
        yield objective_from(title, target=target, term=term.values, queries=queries, notes=more, where=where)


def _target(objective: _Objective, where: str) -> Decimal:
    if objective.target is not None:
        return Decimal(repr(objective.target))
    if objective.target_percent is not None:
        return Decimal(repr(objective.target_percent)) / 100
    raise PayloadError(f"{where}: an objective has neither target nor targetPercent", fix="add one of them")


def _period(spec: _Spec, where: str) -> _Term:
    """Return the period of the time window, and what is lost of it."""
    if not spec.time_window:
        return _Term({"period_days": 30.0}, ("no timeWindow: 30 days taken",))
    window = spec.time_window[0]
    match = _SHORT.fullmatch(window.duration)
    if match is None:
        message = f"{where}: {window.duration!r} is no duration"
        raise PayloadError(message, fix="write a whole number and m, h, d, w, M, Q or Y")
    days = int(match[1]) * _DAYS[match[2]]
    if window.calendar is not None:
        return _calendar(window, window.calendar, days, where)
    if window.is_rolling is False:
        return _Term({"period_days": days}, (f"the calendar window of {window.duration} has no calendar: rolling",))
    return _Term({"period_days": days}, (f"{window.duration} taken as {days:g} days",) if match[2] in "MQY" else ())


def _calendar(window: _Window, calendar: _Calendar, days: float, where: str) -> _Term:
    """Return the calendar period that begins where the window does, else a rolling one."""
    kind = CALENDARS.get(window.duration)
    try:
        start = datetime.fromisoformat(str(calendar.start_time or _ALIGNED))
        ZoneInfo(calendar.time_zone)
    except (ValueError, OSError, ZoneInfoNotFoundError) as cause:
        message = f"{where}: calendar {calendar.start_time!s} {calendar.time_zone!r} is no time in a zone"
        raise PayloadError(message, fix="write a startTime like 2026-01-01 00:00:00 and an IANA timeZone") from cause
    if kind is None or not _begins(start, kind):
        why = f"the calendar window of {window.duration} from {start}"
        return _Term({"period_days": days}, (f"{why} becomes a rolling one of {days:g} days",))
    return _Term({"calendar": kind, "time_zone": calendar.time_zone})


def _begins(start: datetime, kind: str) -> bool:
    """Tell whether a local time is the first moment of a period of ours."""
    if start.time() != time(0):
        return False
    if kind == "week":
        return start.weekday() == 0
    return start.day == 1 and (kind == "month" or start.month % 3 == 1)


def _queries(indicator: _Indicator) -> Iterable[str]:
    ratio = indicator.ratio_metric or _Ratio()
    for metric in (ratio.good, ratio.bad, ratio.total, ratio.raw, indicator.threshold_metric):
        if metric is not None:
            yield from (str(value) for key, value in metric.metric_source.spec.items() if "query" in key.lower())


def _own(annotations: Mapping[str, str]) -> dict[str, str] | None:
    found = {key.removeprefix(_OURS): value for key, value in annotations.items() if key.startswith(_OURS)}
    return found if "sli" in found else None


def _exact(own: Mapping[str, str], target: Decimal, term: _Term, where: str) -> SloSettings:
    """Return the objective that we wrote."""
    labels = {key.removeprefix("label."): value for key, value in own.items() if key.startswith("label.")}
    values: dict[str, Any] = {"id": own.get("id", ""), "target": float(target), "labels": labels, **term.values}
    values |= {name: own[key] for key, name in _OWN.items() if key in own}
    try:
        return msgspec.convert(values, SloSettings, strict=False)
    except msgspec.ValidationError as cause:
        raise PayloadError(f"{where}: annotations {_OURS}*: {cause}", fix="export it again") from cause


def to_openslo(settings: Settings) -> str:
    """Return the settings' objectives as OpenSLO v1 documents; the head says what is lost.

    >>> "budgetingMethod: Occurrences" in to_openslo(Settings())
    True
    """
    service = settings.log.service
    services = list(dict.fromkeys(slo.labels.get("service", service) for slo in settings.slo))
    targets = [each.id for each in settings.receiver]
    documents = [_document("Service", name, {"description": "Watched by opsloop"}) for name in services]
    documents += [_document("AlertNotificationTarget", each.id, {"target": each.kind}) for each in settings.receiver]
    for slo in settings.slo:
        documents.append(_slo(slo, slo.labels.get("service", service)))
        documents += [_policy(slo, tier, targets) for tier in _tiers(slo)]
    head = "Objectives of opsloop, written by: opsloop export openslo" + "".join(f"\nLossy: {note}" for note in _LOST)
    return write_yaml(documents, head=head)


_LOST: Final = (
    "an alert condition has one window: the short one stands in the annotation opsloop/short-window",
    "an alert condition cannot ask for evidence, so it would page on a failure or two at low traffic",
)


def shorthand(seconds: float) -> str:
    """Return a length of time in OpenSLO's shorthand, one whole number with one unit, rounded up to a minute.

    >>> shorthand(3600), shorthand(86_400 * 30), shorthand(5040), shorthand(310)
    ('1h', '30d', '84m', '6m')
    """
    minutes = -(-round(seconds * 1000) // 60_000)
    for size, unit in ((1440, "d"), (60, "h")):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"


def _document(kind: str, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str] = _NONE) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": _rfc1123(name), "displayName": name}
    if annotations:
        metadata["annotations"] = {_OURS + key: value for key, value in annotations.items()}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)}


def _rfc1123(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63]


def _slo(slo: SloSettings, service: str) -> dict[str, Any]:
    usual = SloSettings(id=slo.id)
    own = {"id": slo.id, "sli": slo.sli}
    own |= {
        key: str(getattr(slo, name))
        for key, name in _OWN.items()
        if name != "period_days" and getattr(slo, name) != getattr(usual, name)
    }
    if slo.calendar is None:
        own["period-days"] = repr(slo.period_days)
    own |= {f"label.{key}": value for key, value in slo.labels.items()}
    indicator = {"metadata": {"name": _rfc1123(f"{slo.id}-events")}, "spec": {"ratioMetric": _ratio(slo)}}
    spec = {
        "description": f"{slo.sli} of opsloop's events",
        "service": _rfc1123(service),
        "indicator": indicator,
        "timeWindow": [_time_window(slo)],
        "budgetingMethod": "Occurrences",
        "objectives": [{"displayName": slo.id, "target": slo.target}],
        "alertPolicies": [{"alertPolicyRef": _policy_name(slo, tier)} for tier in _tiers(slo)],
    }
    return _document("SLO", slo.id, spec, own)


def _time_window(slo: SloSettings) -> dict[str, Any]:
    if slo.calendar is None:
        return {"duration": shorthand(slo.period_days * DAY_SECONDS), "isRolling": True}
    lengths = {kind: length for length, kind in CALENDARS.items()}
    calendar = {"startTime": _ALIGNED, "timeZone": slo.time_zone}
    return {"duration": lengths[slo.calendar], "calendar": calendar, "isRolling": False}


def _ratio(slo: SloSettings) -> dict[str, Any]:
    if slo.sli == "goodput":
        window = slo.calendar or duration(slo.period_days * DAY_SECONDS)
        metrics = tuple(f'max({name}{{slo="{slo.id}", window="{window}"}})' for name in (WINDOW_BAD, WINDOW_TOTAL))
    else:
        metrics = tuple(f'sum({name}{{slo="{slo.id}"}})' for name in (BAD, TOTAL))
    bad, total = ({"metricSource": {"type": "Prometheus", "spec": {"query": query}}} for query in metrics)
    return {"counter": slo.sli != "goodput", "bad": bad, "total": total}


def _tiers(slo: SloSettings) -> Sequence[Tier]:
    return tiers(target=slo.target, period_days=slo.period_days)


def _policy_name(slo: SloSettings, tier: Tier) -> str:
    return _rfc1123(f"{slo.id}-{tier.severity}-{duration(tier.long_seconds)}")


def _policy(slo: SloSettings, tier: Tier, targets: Sequence[str]) -> dict[str, Any]:
    name = _policy_name(slo, tier)
    condition = {
        "kind": "AlertCondition",
        "metadata": {"name": f"{name}-condition"},
        "spec": {
            "description": f"{slo.id} burns its budget above {tier.factor:g}x over {tier.name}",
            "severity": tier.severity,
            "condition": {
                "kind": "burnrate",
                "threshold": tier.factor,
                "lookbackWindow": shorthand(tier.long_seconds),
                "alertAfter": "0m",
            },
        },
    }
    spec = {
        "description": f"{tier.severity} of {slo.id}",
        "alertWhenBreaching": True,
        "alertWhenResolved": True,
        "alertWhenNoData": slo.absent_seconds is not None,
        "conditions": [condition],
        "notificationTargets": [{"targetRef": _rfc1123(each)} for each in targets],
    }
    return _document("AlertPolicy", name, spec, {"short-window": duration(tier.short_seconds)})
