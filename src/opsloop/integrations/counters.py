"""What Prometheus counts: requests, durations, tokens, scores and objectives, added up as events are stored.

Objects
    :class:`SignalCounters` listens to a store and counts every event that was new in it: one that is sent twice counts
    once. Its families are counters and histograms, from 0 at the start of the process, as Prometheus expects.
Rule
    What an event counts for is defined event by event. What the store took as rows is counted column by column, which
    is a tenth of the work, and a property test holds both together. Few rows wait for others, or until somebody asks.
    Buckets end on every threshold that an objective uses, so a rule on one finds its series. Durations are compared in
    whole microseconds. An objective's counters are exact: they are what ``count_slo`` counts.
Limits
    Labels are what operators choose among (service, route, model), never tenants or users; above
    :data:`MOST_LABEL_SETS` combinations further ones are counted as ``_other``. A line that comes more than
    :data:`LATE_SECONDS` late tells nothing of now and is counted as late only. Goodput can change after a request was
    counted, so it has gauges instead.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa

from opsloop.clock import NANOSECONDS, Clock
from opsloop.dashboard.quality import score_of
from opsloop.dashboard.slo import is_good
from opsloop.dashboard.window import rejected
from opsloop.event import INT64_MAX, Event
from opsloop.filter import equals, matches
from opsloop.integrations.exposition import Exemplar, Family, Sample
from opsloop.integrations.grouping import Coded, Numbers, Rows, columns_of
from opsloop.settings import Settings

__all__ = ["BOUNDS_US", "LATE_SECONDS", "LEAST_ROWS", "MOST_LABEL_SETS", "OTHER", "SignalCounters", "bounds_of"]

BOUNDS_US: Final = (
    25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000, 32_000_000,
    64_000_000, 128_000_000,
)  # fmt: skip
"""Where buckets end, besides the thresholds of the settings: a model answers in 25 ms to two minutes."""

MOST_LABEL_SETS: Final = 200
OTHER: Final = "_other"
LATE_SECONDS: Final = 3600.0
LEAST_ROWS: Final = 4096
"""So many rows are counted at once: what a count costs beside its rows is then small."""
GOOD_SCORE: Final = 0.5
"""A score at or above this is counted as good in ``opsloop_scores``; an objective has its own threshold."""

_LATENCY: Final = "opsloop_request_duration_seconds"
_FIRST_TOKEN: Final = "opsloop_time_to_first_token_seconds"  # noqa: S105 - a time, no secret


def bounds_of(settings: Settings) -> tuple[int, ...]:
    """Return the bucket ends in microseconds: the usual ones and every threshold of the settings.

    >>> 1_500_000 in bounds_of(Settings())
    True
    """
    own = {slo.threshold_us for slo in settings.slo if slo.threshold_us is not None}
    own |= {round(each.threshold) for each in settings.objective if "_us_p" in each.measure and each.threshold >= 1}
    return tuple(sorted({*BOUNDS_US, *own}))


class SignalCounters:
    """Counts stored events; give :meth:`add` to a store as its listener. Safe between threads.

    >>> from opsloop.clock import ManualClock
    >>> counters = SignalCounters(Settings(), ManualClock(0))
    >>> counters.add([Event(ts_ns=0, event="request", service="bot", route="/chat", duration_us=400_000)])
    >>> counters.families()[0].samples
    (Sample(value=1, labels={'service': 'bot', 'route': '/chat', 'outcome': 'success'}, suffix='', exemplar=None),)
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Count for the objectives of the settings."""
        self._clock = clock
        self._lock = threading.Lock()
        counted = (slo for slo in settings.slo if slo.sli != "goodput")
        self._slos = tuple((slo, equals(**slo.labels) if slo.labels else None) for slo in counted)
        self._good = {slo.id: [0, 0] for slo, _ in self._slos}
        bounds = bounds_of(settings)
        self._durations = _Histogram(_LATENCY, "Served requests, end to end.", bounds)
        self._first_tokens = _Histogram(_FIRST_TOKEN, "Time to first token of served requests.", bounds)
        self._requests = _Counts("opsloop_requests", "Requests by outcome.", ("service", "route", "outcome"))
        self._errors = _Counts("opsloop_request_errors", "Failed requests by type.", ("service", "error_type"))
        self._calls = _Counts("opsloop_llm_calls", "Model calls by outcome.", ("service", "model", "outcome"))
        self._tokens = _Counts("opsloop_llm_tokens", "Tokens read and written.", ("service", "model", "direction"))
        self._cost = _Counts("opsloop_llm_cost_microusd", "Cost of model calls.", ("service", "model"))
        self._scores = _Counts("opsloop_scores", "Scores by outcome.", ("scorer", "outcome"))
        self._late = 0
        labels = {label.removeprefix(_PREFIX) for slo, _ in self._slos for label in slo.labels}
        self._columns = sorted({column for name in {*_FIELDS, *labels} for column in columns_of(name)})
        self._waiting: list[pa.Table] = []
        """Rows that are not counted yet, with the time of the oldest that was not late when they were stored."""

    def add(self, events: Iterable[Event], *, rows: Sequence[pa.Table] = ()) -> None:
        """Count events that were stored just now, and such as the store took as rows: spans, of which none is a score.

        The events come first: the order tells which labels are beyond the limit and which request is a bucket's latest.
        """
        oldest_ns = self._clock.now_ns() - round(LATE_SECONDS * NANOSECONDS)
        with self._lock:
            for event in events:
                kind = event.event
                if kind not in _COUNTED:
                    continue
                self._count_waiting()
                if event.ts_ns < oldest_ns:
                    self._late += 1
                    continue
                if kind == "request":
                    self._request(event)
                elif kind == "score":
                    self._score(event)
                else:
                    self._call(event)
                if kind in _JUDGED:
                    self._judge(event)
            for table in (table for table in rows if table.num_rows):
                oldest = pa.repeat(pa.scalar(oldest_ns, pa.int64()), table.num_rows)
                self._waiting.append(table.select(self._columns).append_column(_OLDEST, oldest))
            if sum(table.num_rows for table in self._waiting) >= LEAST_ROWS:
                self._count_waiting()

    def _count_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            for rows in Rows.of(pa.concat_tables(waiting, promote_options="permissive")):
                self._add_rows(rows)

    def _add_rows(self, rows: Rows) -> None:
        recent = rows.counts("ts_ns")[0] >= rows.counts(_OLDEST)[0]
        kinds = rows.coded("event")
        self._late += int(np.count_nonzero(kinds.ask(_COUNTED.__contains__) & ~recent))
        for count, some in ((self._request_rows, _REQUESTS), (self._call_rows, _CALLS)):
            at = np.flatnonzero(kinds.ask(some.__contains__) & recent)
            if len(at):
                count(rows, at)

    def families(self) -> list[Family]:
        """Return all families as they stand."""
        with self._lock:
            self._count_waiting()
            objectives = [
                Family(name, "counter", text, tuple(Sample(n[place], {"slo": slo}) for slo, n in self._good.items()))
                for place, (name, text) in enumerate(_OBJECTIVES)
            ]
            late = Family("opsloop_events_late", "counter", "Events too late to be counted.", (Sample(self._late),))
            counts = (self._requests, self._errors, self._calls, self._tokens, self._cost, self._scores)
            histograms = (self._durations, self._first_tokens)
            return [each.family() for each in (*counts, *histograms)] + [*objectives, late]

    def _request(self, event: Event) -> None:
        self._outcome(event, 1)
        if not rejected(event):
            self._durations.add(event, event.duration_us)
            self._first_tokens.add(event, event.time_to_first_token_us)

    def _outcome(self, event: Event, n: int) -> None:
        """Count n requests that ended like this one."""
        outcome = "rejected" if rejected(event) else "error" if event.error else "success"
        self._requests.add((event.service, event.route, outcome), n)
        if outcome == "error":
            self._errors.add((event.service, event.error_type), n)

    def _call(self, event: Event, n: int = 1) -> None:
        """Count n model calls that ended like this one, which has the tokens and the cost of all of them."""
        key = (event.service, event.model)
        self._calls.add((*key, "error" if event.error else "success"), n)
        if event.input_tokens:
            self._tokens.add((*key, "input"), event.input_tokens)
        if event.output_tokens:
            self._tokens.add((*key, "output"), event.output_tokens)
        if event.cost_microusd:
            self._cost.add(key, event.cost_microusd)

    def _request_rows(self, rows: Rows, at: Numbers) -> None:
        times = {name: rows.counts(name) for name in ("duration_us", "time_to_first_token_us")}
        fields = ("service", "route", "error", "error_type")
        alike = rows.alike(at, fields, [there for _, there in times.values()])
        for event, n in zip(alike.values, alike.sizes(), strict=True):
            self._outcome(event, n)
        served = ~alike.ask(rejected)
        for histogram, (took, there) in zip((self._durations, self._first_tokens), times.values(), strict=True):
            some = served & there[at]
            histogram.add_rows(rows, at[some], alike.only(some), took[at[some]])
        self._judge_rows(rows, at[served])

    def _call_rows(self, rows: Rows, at: Numbers) -> None:
        amounts = {name: rows.counts(name)[0] for name in ("input_tokens", "output_tokens", "cost_microusd")}
        alike = rows.alike(at, ("service", "model", "error"), [counts > 0 for counts in amounts.values()])
        sums = zip(*(alike.sums(counts[at]) for counts in amounts.values()), strict=True)
        for event, n, told in zip(alike.values, alike.sizes(), sums, strict=True):
            self._call(event.replace(**dict(zip(amounts, told, strict=True))), n)

    def _score(self, event: Event) -> None:
        pair = score_of(event)
        outcome = "unscored" if pair is None else "good" if pair[0] >= GOOD_SCORE else "poor"
        self._scores.add((str(event.attributes.get("scorer", "")), outcome))

    def _judge(self, event: Event) -> None:
        for slo, where in self._slos:
            if where is not None and not matches(where, event):
                continue
            good = is_good(slo, event)
            if good is not None:
                counts = self._good[slo.id]
                counts[0] += 1
                counts[1] += not good

    def _judge_rows(self, rows: Rows, at: Numbers) -> None:
        """Judge served requests."""
        for slo, _ in self._slos:
            if slo.sli == "availability":
                counted, bad = np.ones(len(at), np.bool_), rows.ask("error", lambda event: event.error)[at]
            elif slo.sli in _TIMES and slo.threshold_us is not None:
                took, there = rows.counts(_TIMES[slo.sli])
                counted, bad = there[at], took[at] > slo.threshold_us
            else:
                continue
            for label, value in slo.labels.items():
                where = equals(**{label: value})
                counted &= rows.ask(label.removeprefix(_PREFIX), partial(matches, where))[at]
            counts = self._good[slo.id]
            counts[0] += int(np.count_nonzero(counted))
            counts[1] += int(np.count_nonzero(counted & bad))


_REQUESTS: Final = frozenset({"request"})
_CALLS: Final = frozenset({"llm", "embed"})
_JUDGED: Final = _REQUESTS | {"score"}
_COUNTED: Final = _JUDGED | _CALLS
_FIELDS: Final = (
    "ts_ns", "event", "service", "route", "model", "request_id", "error", "error_type", "duration_us",
    "time_to_first_token_us", "input_tokens", "output_tokens", "cost_microusd",
)  # fmt: skip
"""What is looked at of rows, besides the labels of objectives."""
_PREFIX: Final = "attributes."
_OLDEST: Final = "oldest_ns"
_TIMES: Final = {"latency": "duration_us", "time_to_first_token": "time_to_first_token_us"}
_OBJECTIVES: Final = (
    ("opsloop_slo_events", "Events that an objective counts."),
    ("opsloop_slo_bad_events", "Of these, the bad ones."),
)


class _Counts:
    """One counter by its labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._counts: Counter[tuple[str, ...]] = Counter()

    def add(self, key: tuple[str, ...], amount: int = 1) -> None:
        if key not in self._counts and len(self._counts) >= MOST_LABEL_SETS:
            key = (OTHER,) * len(key)
        self._counts[key] += amount

    def family(self) -> Family:
        pairs = sorted(self._counts.items())
        samples = tuple(Sample(n, dict(zip(self._labels, key, strict=True))) for key, n in pairs)
        return Family(self._name, "counter", self._text, samples)


class _Histogram:
    """Durations by service and route, in buckets that end on every threshold; each shows its latest request."""

    def __init__(self, name: str, text: str, bounds_us: Sequence[int]) -> None:
        self._name, self._text, self._bounds = name, text, tuple(bounds_us)
        self._found: dict[tuple[str, str], _Buckets] = {}

    def add(self, event: Event, took_us: int | None) -> None:
        if took_us is not None:
            found = self._buckets_of((event.service, event.route))
            found.add(bisect_left(self._bounds, took_us), took_us, event)

    def add_rows(self, rows: Rows, at: Numbers, alike: Coded, took_us: Numbers) -> None:
        """Count the rows at some places, of which are given the groups and the durations."""
        found = [self._buckets_of((event.service, event.route)) for event in alike.values]
        width = len(self._bounds) + 1
        cells = alike.numbers * width + np.searchsorted(np.minimum(self._bounds, INT64_MAX), took_us)
        for cell, n in enumerate(np.bincount(cells).tolist()):
            if n:
                found[cell // width].counts[cell % width] += n
        for buckets, sum_us in zip(found, alike.sums(took_us), strict=True):
            buckets.sum_us += sum_us
        named = np.flatnonzero(rows.filled("request_id")[at])
        latest = np.full(len(found) * width, -1)
        np.maximum.at(latest, cells[named], named)
        shown = np.sort(latest[latest >= 0])  # in order, since groups may share the buckets of OTHER
        told = (each.tolist() for each in (cells[shown], took_us[shown], rows.counts("ts_ns")[0][at[shown]]))
        for cell, took, ts_ns, request_id in zip(*told, rows.texts("request_id", at[shown]), strict=True):
            found[cell // width].exemplars[cell % width] = (request_id, took, ts_ns)

    def _buckets_of(self, key: tuple[str, str]) -> _Buckets:
        if key not in self._found and len(self._found) >= MOST_LABEL_SETS:
            key = (OTHER, OTHER)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = _Buckets(len(self._bounds) + 1)
        return found

    def family(self) -> Family:
        ends = [repr(bound / 1e6) for bound in self._bounds] + ["+Inf"]
        samples: list[Sample] = []
        for (service, route), found in sorted(self._found.items()):
            labels = {"service": service, "route": route}
            total = 0
            for end, n, exemplar in zip(ends, found.counts, found.exemplars, strict=True):
                total += n
                samples.append(Sample(total, {**labels, "le": end}, "_bucket", _exemplar(exemplar)))
            samples += [Sample(total, labels, "_count"), Sample(found.sum_us / 1e6, labels, "_sum")]
        return Family(self._name, "histogram", self._text, tuple(samples))


class _Buckets:
    """The buckets of one label set."""

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.exemplars: list[tuple[str, int, int] | None] = [None] * buckets
        """The id, the duration and the time of the latest request."""
        self.sum_us = 0

    def add(self, bucket: int, took_us: int, event: Event) -> None:
        self.counts[bucket] += 1
        self.sum_us += took_us
        if event.request_id:
            self.exemplars[bucket] = (event.request_id, took_us, event.ts_ns)


def _exemplar(latest: tuple[str, int, int] | None) -> Exemplar | None:
    if latest is None:
        return None
    request_id, took_us, ts_ns = latest
    return Exemplar({"request_id": request_id}, took_us / 1e6, ts_ns)
