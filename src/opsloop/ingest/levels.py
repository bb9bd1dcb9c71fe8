"""Which ingested gauges say how full something is: what the model servers export, and what the settings add.

Rule
    A gauge fills the signal of saturation once it has a ``limit``. OpenTelemetry and Prometheus have no place for one,
    so it is added here by the metric's name: the settings' ``[[gauge]]`` first, then :data:`KNOWN`. A cache of keys and
    values is meant to be full; it is short only while requests wait for it, so its gauge also names the ``queue`` whose
    gauge counts them (``dashboard/saturation.py`` holds the rule). Counters are no levels and get neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from opsloop.event import Event
from opsloop.settings import GaugeSettings

__all__ = ["KNOWN", "level_names", "with_level"]

VLLM_QUEUE: Final = "vllm:num_requests_waiting_by_reason vllm:num_requests_waiting"
"""The first that is there counts: the second also counts requests that were put off on purpose."""

KNOWN: Final = (
    GaugeSettings(name="vllm:kv_cache_usage_perc", limit=1.0, queue=VLLM_QUEUE),
    GaugeSettings(name="vllm:gpu_cache_usage_perc", limit=1.0, queue=VLLM_QUEUE),  # as older versions call it
    GaugeSettings(name="sglang:token_usage", limit=1.0, queue="sglang:num_queue_reqs"),
    GaugeSettings(name="llamacpp:kv_cache_usage_ratio", limit=1.0, queue="llamacpp:requests_deferred"),
)
"""The caches that model servers report as a share of 1, with the gauge of those who wait."""


def level_names(gauges: Iterable[GaugeSettings] = ()) -> Mapping[str, GaugeSettings]:
    """Return what is known of each gauge by its name, the settings' own before ours.

    Exporters that may not write a colon write ``vllm_kv_cache_usage_perc``; such names are known too.

    >>> level_names()["vllm_kv_cache_usage_perc"].queue
    'vllm_num_requests_waiting_by_reason vllm_num_requests_waiting'
    """
    found = {}
    for known in (*KNOWN, *gauges):
        plain = known.name.replace(":", "_")
        found[plain] = GaugeSettings(name=plain, limit=known.limit, queue=known.queue.replace(":", "_"))
        found[known.name] = known
    return found


def with_level(event: Event, names: Mapping[str, GaugeSettings]) -> Event:
    """Return a gauge with the limit and queue that its name stands for, any other event as it is.

    >>> event = Event(ts_ns=1, event="gauge", attributes={"name": "sglang:token_usage", "value": 0.4})
    >>> with_level(event, level_names()).attributes
    {'name': 'sglang:token_usage', 'value': 0.4, 'limit': 1.0, 'queue': 'sglang:num_queue_reqs'}
    """
    if event.event != "gauge":
        return event
    attributes = event.attributes
    name = attributes.get("name")
    known = names.get(name) if isinstance(name, str) else None
    if known is None or "limit" in attributes or not _is_level(attributes):
        return event
    queue = {"queue": known.queue} if known.queue else {}
    return event.replace(attributes={**attributes, "limit": known.limit, **queue})


def _is_level(attributes: Mapping[str, Any]) -> bool:
    """Tell whether a value is how much there is now, not how much was counted: a gauge, or an up-and-down sum."""
    if attributes.get("type", "gauge") == "gauge":
        return True
    return attributes.get("temporality") == "cumulative" and attributes.get("monotonic") is False
