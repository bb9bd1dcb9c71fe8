"""OTLP metrics, protobuf and JSON, as ``gauge`` events: one event per data point.

Rule
    A gauge's or sum's number is ``value``; a sum says its ``temporality`` and whether it is ``monotonic``. Histograms,
    exponential histograms and summaries keep their counts as they came and have no ``value``: a distribution is no
    level. The identity of an event is a digest of all that its point says, so a body that is sent again is stored once,
    in whichever encoding, and two points that differ in anything are two events.
Refused
    A point that is no measurement is rejected alone and by its metric's name: NaN or infinity, no recorded value, no
    time, buckets that do not fit their bounds or their count, a sum without a temporality.
Limits
    Exemplars and descriptions are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from opsloop.errors import PayloadError
from opsloop.event import INT64_MAX, Event
from opsloop.ingest.batch import Batch
from opsloop.ingest.levels import level_names, with_level
from opsloop.ingest.mapping import (
    MODEL,
    PROVIDER,
    REQUEST,
    ROUTE,
    SESSION,
    TENANT,
    USER,
    _identity,
    _served,
    _text,
    origin_of,
)
from opsloop.ingest.otlp import _json_attributes, _json_records, _list, _parse, _proto_attributes, _Raw
from opsloop.settings import GaugeSettings

__all__ = ["read_metrics"]

TYPES: Final[Mapping[str, str]] = {
    "gauge": "gauge",
    "sum": "sum",
    "histogram": "histogram",
    "exponentialHistogram": "exponential_histogram",
    "summary": "summary",
}
"""What OTLP/JSON calls each form of data, and what ``type`` says."""
TEMPORALITIES: Final = {1: "delta", 2: "cumulative"}
NO_RECORDED_VALUE: Final = 1
"""The flag of a point that marks the end of a series and carries nothing."""
SERVED_MODEL: Final = (*MODEL, "model_name", "model")
INSTANCE: Final = ("service.instance.id", "k8s.pod.name", "host.name")
PROMOTED: Final = frozenset((*SERVED_MODEL, *PROVIDER, *REQUEST, *ROUTE, *SESSION, *TENANT, *USER))
COUNTED_PART: Final = {
    "vllm:num_requests_waiting_by_reason": ("reason", "capacity"),
    "vllm_num_requests_waiting_by_reason": ("reason", "capacity"),
}
"""Labels that are no part of a series: the requests that wait for capacity are *the* queue of their server."""

_ENCODE: Final = msgspec.json.Encoder(order="deterministic").encode


def read_metrics(body: bytes, *, json: bool, gauges: Sequence[GaugeSettings] = ()) -> Batch:
    """Return the events of an ``ExportMetricsServiceRequest``; ``gauges`` are the settings' limits by metric name.

    A point that is no measurement is rejected alone. Raises :class:`PayloadError` for a body that does not decode.

    >>> points = b'[{"timeUnixNano": "5", "asInt": "3"}, {"timeUnixNano": "6", "asDouble": "NaN"}]'
    >>> metric = b'{"name": "queue", "gauge": {"dataPoints": ' + points + b"}}"
    >>> batch = read_metrics(b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [' + metric + b"]}]}]}", json=True)
    >>> batch.events[0].message, batch.reason()
    ('queue 3', "metric 'queue': asDouble is NaN or infinite, which is no measurement")
    """
    metrics = _json_records(body, "resourceMetrics", "scopeMetrics", "metrics") if json else _proto_metrics(body)
    labels = _json_labels if json else _proto_labels
    names = level_names(gauges)
    batch = Batch()
    source: _Source | None = None
    for raw in metrics:
        if source is None or source.resource is not raw.resource:
            source = _source(raw.resource)
        batch.extend(with_level(event, names) for event in _metric(raw, source, labels, batch))
    return batch


class _Source(NamedTuple):
    """What all points of a resource share, worked out once."""

    resource: dict[str, Any]
    origin: dict[str, Any]
    instance: dict[str, Any]
    encoded: bytes


def _source(resource: dict[str, Any]) -> _Source:
    instance = _text(resource, INSTANCE)
    return _Source(resource, origin_of(resource, {}), {"instance": instance} if instance else {}, _ENCODE(resource))


def _metric(raw: _Raw, source: _Source, labels: Callable[[Any], dict[str, Any]], batch: Batch) -> Iterator[Event]:
    """Yield the events of a metric's points; what cannot be one is rejected."""
    fields = raw.fields
    name, unit = str(fields.get("name", "")), str(fields.get("unit", ""))
    kind = next((each for each in TYPES if isinstance(fields.get(each), Mapping)), None)
    if not name or kind is None:
        lacks = "a name" if not name else "a gauge, sum, histogram, exponential histogram or summary"
        batch.reject(f"metric {name!r} lacks {lacks}; were spans or logs sent to the metrics path?")
        return
    data = fields[kind]
    described: dict[str, Any] = {"name": name, "type": TYPES[kind], **({"unit": unit} if unit else {})}
    points: list[dict[str, Any]] = []
    try:
        points = _list(data, "dataPoints")
        described |= _aggregation(kind, data)
    except (ValueError, PayloadError) as error:
        batch.reject(f"metric {name!r}: {error}", records=max(1, len(points)))
        return
    for point in points:
        try:
            values = _values(_READ[kind], point)
            yield _event(source, raw.scope, point, described=described, labels=labels(point), values=values)
        except (ValueError, PayloadError) as error:
            batch.reject(f"metric {name!r}: {error}")


def _aggregation(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sum's or histogram's numbers count from, and whether they only grow."""
    if kind in {"gauge", "summary"}:
        return {}
    temporality = data.get("aggregationTemporality", 0)
    if not isinstance(temporality, int) or temporality not in TEMPORALITIES:
        raise ValueError(f"aggregationTemporality is {temporality!r}; 1 is delta, 2 is cumulative")
    said: dict[str, Any] = {"temporality": TEMPORALITIES[temporality]}
    return {**said, "monotonic": data.get("isMonotonic") is True} if kind == "sum" else said


def _values(read: Callable[[Mapping[str, Any]], dict[str, Any]], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a point. Raises :class:`ValueError` where it says itself that there are none."""
    if _whole(point, "flags") & NO_RECORDED_VALUE:
        raise ValueError("a point carries the flag that nothing was recorded")
    return read(point)


def _event(
    source: _Source,
    scope: str,
    point: Mapping[str, Any],
    *,
    described: dict[str, Any],
    labels: dict[str, Any],
    values: dict[str, Any],
) -> Event:
    """Return the event of a point. Raises :class:`ValueError` for one without a time."""
    ts_ns = _whole(point, "timeUnixNano")
    if not ts_ns:
        raise ValueError("timeUnixNano of a point is missing")
    start_ns = _whole(point, "startTimeUnixNano")
    part = COUNTED_PART.get(described["name"])
    series = {key: value for key, value in labels.items() if (key, value) != part}
    digest = _digest(source, [scope, described, ts_ns, start_ns, labels, values])
    return Event(
        ts_ns=ts_ns,
        event="gauge",
        event_id=f"metric:{digest}",
        **source.origin,
        **_promoted(labels),
        message=_said(described, values),
        attributes={
            **described,
            **values,
            **({"start_ts_ns": start_ns} if start_ns else {}),
            **({"labels": labels} if labels else {}),
            **source.instance,
            "series": _digest(source, series)[:16],
        },
    )


def _promoted(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that labels fill; most points have none of their names, and are not asked for each."""
    if PROMOTED.isdisjoint(labels):
        return {}
    return {**_identity(labels, ""), **_served(labels), "model": _text(labels, SERVED_MODEL)}


def _digest(source: _Source, content: Any) -> str:
    return blake2b(source.encoded + _ENCODE(content), digest_size=16).hexdigest()


def _said(described: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Return a point as a line for people."""
    unit = described.get("unit", "")
    unit = "" if unit in {"", "1"} or unit.startswith("{") else f" {unit}"
    if "value" in values:
        return f"{described['name']} {values['value']}{unit}"
    added = f", sum {values['sum']}{unit}" if "sum" in values else ""
    return f"{described['name']} {values['count']} values{added}"


def _json_labels(point: dict[str, Any]) -> dict[str, Any]:
    return _json_attributes(point, "a data point")


def _proto_labels(point: dict[str, Any]) -> dict[str, Any]:
    return _proto_attributes(point["attributes"])


# ---- the numbers of each type ------------------------------------------------------------------------------------


def _number(point: Mapping[str, Any]) -> dict[str, Any]:
    if point.get("asInt") is not None:
        return {"value": _integer(point["asInt"], "asInt", least=-INT64_MAX - 1)}
    if point.get("asDouble") is not None:
        return {"value": _finite(point["asDouble"], "asDouble")}
    raise ValueError("a point has neither asInt nor asDouble")


def _histogram(point: Mapping[str, Any]) -> dict[str, Any]:
    bounds, buckets = _reals(point, "explicitBounds"), _wholes(point, "bucketCounts")
    if len(buckets) != len(bounds) + 1 and (buckets or bounds):
        raise ValueError(f"{len(bounds)} explicitBounds need {len(bounds) + 1} bucketCounts, got {len(buckets)}")
    if any(left >= right for left, right in pairwise(bounds)):
        raise ValueError("explicitBounds do not increase")
    counted = _counted(point, sum(buckets) if buckets else None)
    return {**counted, "bounds": bounds, "buckets": buckets} if buckets else counted


def _exponential(point: Mapping[str, Any]) -> dict[str, Any]:
    zero = _whole(point, "zeroCount")
    sides = {side: _side(point, side) for side in ("positive", "negative")}
    inside = zero + sum(sum(each["buckets"]) for each in sides.values())
    return {
        **_counted(point, inside),
        "scale": _whole(point, "scale", least=-(2**31)),
        "zero_count": zero,
        "zero_threshold": _real(point, "zeroThreshold"),
        **{side: found for side, found in sides.items() if found["buckets"]},
    }


def _side(point: Mapping[str, Any], side: str) -> dict[str, Any]:
    found = point.get(side) or {}
    if not isinstance(found, Mapping):
        raise PayloadError(f"{side} is no object")
    return {"offset": _whole(found, "offset", least=-(2**31)), "buckets": _wholes(found, "bucketCounts")}


def _summary(point: Mapping[str, Any]) -> dict[str, Any]:
    quantiles = []
    for each in _list(dict(point), "quantileValues"):
        quantile = _real(each, "quantile")
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile {quantile} is not in [0, 1]")
        quantiles.append({"quantile": quantile, "value": _real(each, "value")})
    return {"count": _whole(point, "count"), "sum": _real(point, "sum"), "quantiles": quantiles}


def _counted(point: Mapping[str, Any], inside: int | None) -> dict[str, Any]:
    """Return count, sum, min and max of a distribution, as far as they are there."""
    count = _whole(point, "count")
    if inside is not None and inside != count:
        raise ValueError(f"count is {count}, the buckets hold {inside}")
    given = {name: _real(point, name) for name in ("sum", "min", "max") if point.get(name) is not None}
    return {"count": count, **given}


_READ: Final = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponentialHistogram": _exponential,
    "summary": _summary,
}


def _real(fields: Mapping[str, Any], name: str) -> float:
    return _finite(fields.get(name) or 0.0, name)


def _finite(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is no number: {value!r}") from None
    if not isfinite(number):
        raise ValueError(f"{name} is NaN or infinite, which is no measurement")
    return number


def _whole(fields: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    return _integer(fields.get(name) or 0, name, least=least)


def _integer(value: Any, name: str, *, least: int = 0) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is no integer: {value!r}") from None
    if number != value and isinstance(value, float):
        raise ValueError(f"{name} is no integer: {value!r}")
    if not least <= number <= INT64_MAX:
        raise ValueError(f"{name} is out of range: {number}")
    return number


def _items(fields: Mapping[str, Any], name: str) -> Iterable[Any]:
    items = fields.get(name) or ()
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise PayloadError(f"{name} is no list")
    return items


def _reals(fields: Mapping[str, Any], name: str) -> list[float]:
    return [_finite(item, name) for item in _items(fields, name)]


def _wholes(fields: Mapping[str, Any], name: str) -> list[int]:
    return [_integer(item, name) for item in _items(fields, name)]


# ---- protobuf ----------------------------------------------------------------------------------------------------


def _proto_metrics(body: bytes) -> Iterator[_Raw]:
    """Yield each metric as OTLP/JSON shapes it; a point's attributes are decoded with the point."""
    request = _parse(ExportMetricsServiceRequest(), body, "/v1/metrics")
    for group in request.resource_metrics:
        resource = _proto_attributes(group.resource.attributes)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                yield _Raw(resource, scope.scope.name, _proto_metric(metric))


def _proto_metric(metric: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": metric.name, "unit": metric.unit}
    form = metric.WhichOneof("data")
    if form is None:
        return found
    data = getattr(metric, form)
    kind = "exponentialHistogram" if form == "exponential_histogram" else form
    return {
        **found,
        kind: {
            "dataPoints": [_proto_point(kind, point) for point in data.data_points],
            "aggregationTemporality": getattr(data, "aggregation_temporality", 0),
            "isMonotonic": getattr(data, "is_monotonic", False),
        },
    }


def _proto_point(kind: str, point: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "timeUnixNano": point.time_unix_nano,
        "startTimeUnixNano": point.start_time_unix_nano,
        "flags": point.flags,
        "attributes": point.attributes,
    }
    if kind in {"gauge", "sum"}:
        form = point.WhichOneof("value")
        return found if form is None else {**found, "asInt" if form == "as_int" else "asDouble": getattr(point, form)}
    found["count"] = point.count
    if kind == "summary":
        values = [{"quantile": each.quantile, "value": each.value} for each in point.quantile_values]
        return {**found, "sum": point.sum, "quantileValues": values}
    found |= {name: getattr(point, name) for name in ("sum", "min", "max") if point.HasField(name)}
    if kind == "histogram":
        return {**found, "bucketCounts": list(point.bucket_counts), "explicitBounds": list(point.explicit_bounds)}
    return {
        **found,
        "scale": point.scale,
        "zeroCount": point.zero_count,
        "zeroThreshold": point.zero_threshold,
        **{side: _proto_side(getattr(point, side)) for side in ("positive", "negative")},
    }


def _proto_side(side: Any) -> dict[str, Any]:
    return {"offset": side.offset, "bucketCounts": list(side.bucket_counts)}
