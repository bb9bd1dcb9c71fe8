"""The measures: what an objective can be about, each with its unit and its reading of the signals."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from opsloop.dashboard.errors import Errors, ratio
from opsloop.dashboard.latency import Latencies, Latency, rough
from opsloop.dashboard.signals import Signals
from opsloop.errors import ConfigError

__all__ = ["MEASURES", "Measure", "Measured", "measure"]


class Measured(msgspec.Struct, frozen=True):
    """A value, how many events it rests on, and a remark that belongs into its reason."""

    value: float | None
    n: int
    remark: str = ""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be measured in a window."""

    title: str
    """What it is called before its value: ``p95 latency``."""
    unit: str
    """``us``, ``ratio``, ``1/s``, ``score``, ``microusd``, ``tokens``."""
    counted: str
    """What its n counts: ``requests``."""
    formula: str
    """How it is worked out, for a person to do the same."""
    read: Callable[[Signals], Measured]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of event that it may count."""
        return _EVENTS[self.counted]


def measure(name: str) -> Measure:
    """Return the measure of that name. Raises :class:`ConfigError` that names near ones.

    >>> measure("error_ratio").unit
    'ratio'
    """
    if name not in MEASURES:
        near = difflib.get_close_matches(name, MEASURES, n=3)
        fix = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(sorted(MEASURES))}"
        raise ConfigError(f"there is no measure {name!r}", fix=fix)
    return MEASURES[name]


_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "requests": ("request",),
    "retrievals": ("retrieve", "tool"),
    "model calls": ("llm", "embed"),
    "metered calls": ("llm", "embed", "request"),
    "tool calls": ("tool",),
    "scores": ("score",),
    "observations": ("gauge", "limit", "request"),
    "events": ("request",),
}

_KINDS: Final[tuple[tuple[str, str, str, Callable[[Latencies], Latency]], ...]] = (
    ("latency", "latency", "requests", lambda found: found.served),
    ("success_latency", "latency of successes", "requests", lambda found: found.success),
    ("error_latency", "latency of failures", "requests", lambda found: found.error),
    ("time_to_first_token", "time to first token", "requests", lambda found: found.first_token),
    ("retrieval_latency", "retrieval latency", "retrievals", lambda found: found.retrieve),
    ("llm_latency", "model latency", "model calls", lambda found: found.llm),
)


def _latency(title: str, counted: str, pick: Callable[[Latencies], Latency], *, percent: int) -> Measure:
    def read(signals: Signals) -> Measured:
        found = pick(signals.latency)
        value: float | None = getattr(found, f"p{percent}")
        few = rough(found.n, percent / 100) and value is not None
        return Measured(value, found.n, f"rough: few of {found.n} lie beyond a p{percent}" if few else "")

    formula = f"value at rank {percent / 100:g} (n - 1) of the sorted durations, linear between neighbours"
    return Measure(title=f"p{percent} {title}", unit="us", counted=counted, formula=formula, read=read)


def _ratio(title: str, counted: str, formula: str, parts: Callable[[Errors], tuple[int, int]]) -> Measure:
    def read(signals: Signals) -> Measured:
        part, whole = parts(signals.errors)
        return Measured(ratio(part, whole), whole, f"{part} of {whole}" if whole else "")

    return Measure(title=title, unit="ratio", counted=counted, formula=formula, read=read)


def _rate(title: str, pick: Callable[[Signals], int | None]) -> Measure:
    def read(signals: Signals) -> Measured:
        found = signals.traffic
        return Measured(found.per_second(pick(signals)), found.metered)

    formula = "tokens of model calls (of request lines where there are no calls) / seconds of the window"
    return Measure(title=title, unit="1/s", counted="metered calls", formula=formula, read=read)


def _requests_per_second(signals: Signals) -> Measured:
    found = signals.traffic  # no request at all is a fact only where something else was received
    return Measured(found.requests_per_second, found.requests or found.events)


def _saturation(signals: Signals) -> Measured:
    found = signals.saturation
    return Measured(found.ratio, found.n, found.resource)


def _quality(signals: Signals) -> Measured:
    return Measured(signals.quality.mean, signals.quality.scored)


def _unscored(signals: Signals) -> Measured:
    rows = signals.quality.scored + signals.quality.unscored
    return Measured(ratio(signals.quality.unscored, rows), rows)


def _cost(signals: Signals) -> Measured:
    found = signals.cost
    return Measured(found.microusd_per_request, found.requests if found.microusd is not None else 0)


MEASURES: Final[Mapping[str, Measure]] = {
    **{
        f"{name}_us_p{percent}": _latency(title, counted, pick, percent=percent)
        for name, title, counted, pick in _KINDS
        for percent in (50, 90, 95, 99)
    },
    "requests_per_second": Measure(
        title="request rate",
        unit="1/s",
        counted="events",
        formula="requests / seconds of the window; unknown when nothing at all was received",
        read=_requests_per_second,
    ),
    "tokens_per_second": _rate("token rate", lambda signals: signals.traffic.tokens),
    "input_tokens_per_second": _rate("rate of tokens read", lambda signals: signals.traffic.input_tokens),
    "output_tokens_per_second": _rate("rate of tokens written", lambda signals: signals.traffic.output_tokens),
    "error_ratio": _ratio(
        "failed requests", "requests", "failed / requests that were let in", lambda found: (found.failed, found.served)
    ),
    "server_error_ratio": _ratio(
        "5xx answers", "requests", "5xx / requests that were let in", lambda found: (found.server_errors, found.served)
    ),
    "rejected_ratio": _ratio(
        "rejected requests",
        "requests",
        "429s of our own limiter / all requests",
        lambda found: (found.rejected, found.requests),
    ),
    "upstream_429_ratio": _ratio(
        "429s of the provider",
        "model calls",
        "model calls refused with a 429 / model calls",
        lambda found: (found.upstream_429, found.calls),
    ),
    "llm_error_ratio": _ratio(
        "failed model calls", "model calls", "failed / model calls", lambda found: (found.failed_calls, found.calls)
    ),
    "truncated_ratio": _ratio(
        "truncated answers",
        "model calls",
        "finish_reason length / model calls with a finish_reason",
        lambda found: (found.truncated, found.finished),
    ),
    "tool_error_ratio": _ratio(
        "failed tool calls", "tool calls", "failed / tool calls", lambda found: (found.failed_tools, found.tools)
    ),
    "retrieval_error_ratio": _ratio(
        "failed retrievals",
        "retrievals",
        "failed / retrievals",
        lambda found: (found.failed_retrievals, found.retrievals),
    ),
    "empty_retrieval_ratio": _ratio(
        "empty retrievals",
        "retrievals",
        "found nothing / retrievals that did not fail and list their documents",
        lambda found: (found.empty, found.listed),
    ),
    "saturation_ratio": Measure(
        title="fullest resource",
        unit="ratio",
        counted="observations",
        formula=(
            "largest used / limit: latest of a gauge (with a queue: 0 unless it is above 0.9 and somebody waits),"
            " p95 of a limit's used_ratio and of in_flight over slots"
        ),
        read=_saturation,
    ),
    "quality_mean": Measure(
        title="mean score",
        unit="score",
        counted="scores",
        formula="sum(score / probability) / sum(1 / probability) over scored rows",
        read=_quality,
    ),
    "unscored_ratio": Measure(
        title="unscored answers",
        unit="ratio",
        counted="scores",
        formula="unscored / scored and unscored rows",
        read=_unscored,
    ),
    "cost_microusd_per_request": Measure(
        title="cost per request",
        unit="microusd",
        counted="requests",
        formula="cost of model calls (of request lines where there are no calls) / requests that were let in",
        read=_cost,
    ),
}
"""Every measure by name: what ``measure`` in an ``[[objective]]`` can be."""
