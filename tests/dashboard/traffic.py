"""Hypothesis strategies for the events that signals and budgets are made from."""

from __future__ import annotations

from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS
from opsloop.event import Event

END_NS = 1_767_603_600 * NANOSECONDS
MINUTE_NS = 60 * NANOSECONDS

BOUNDARIES_NS = (1_767_524_400 * NANOSECONDS, 1_767_225_600 * NANOSECONDS, 1_767_243_600 * NANOSECONDS)
"""Midnight of that week's Monday in Auckland, of 2026 in UTC, of 2026 in New York."""

moments = st.integers(-14, 1).map(lambda back: END_NS + back * MINUTE_NS // 2) | st.sampled_from(
    [END_NS, END_NS - 5 * MINUTE_NS, END_NS - 60 * MINUTE_NS, END_NS - 60 * MINUTE_NS + 1, END_NS - 9999 * MINUTE_NS]
    + [boundary + off for boundary in BOUNDARIES_NS for off in (-1, 0)]
)
names = st.sampled_from(["", "req-A", "req-B", "req-C"])
tenants = st.sampled_from(["", "acme", "globex"])
durations = st.none() | st.integers(0, 5_000_000)
tokens = st.none() | st.integers(0, 4000)
faults = st.sampled_from(["", "timeout", "rate_limited", "upstream_429"])
odd = st.sampled_from(["many", "", "1e999", "-1", "0.5", "1E-3", None, True, 10**400, [], {}])
amounts = st.floats(0, 1) | st.floats(-2, 2e9, allow_nan=False) | st.integers(0, 64) | odd


def fields(**attributes):
    """Return a strategy for attributes of which any may be missing."""
    return st.fixed_dictionaries({}, optional=attributes)


requests = st.builds(
    Event,
    ts_ns=moments,
    event=st.just("request"),
    request_id=names,
    tenant=tenants,
    service=st.sampled_from(["bot", "opsloop"]),
    status_code=st.none() | st.sampled_from([200, 429, 499, 500, 503]),
    error=st.booleans(),
    error_type=faults,
    duration_us=durations,
    time_to_first_token_us=durations,
    input_tokens=tokens,
    output_tokens=tokens,
    cost_microusd=tokens,
    attributes=fields(in_flight=st.integers(0, 40) | amounts),
)
steps = st.builds(
    Event,
    ts_ns=moments,
    event=st.sampled_from(["llm", "embed", "retrieve", "rerank", "tool", "agent", "span", "guardrail", "log"]),
    tenant=tenants,
    tool=st.sampled_from(["", "retrieve", "search"]),
    error=st.booleans(),
    error_type=faults,
    duration_us=durations,
    input_tokens=tokens,
    output_tokens=tokens,
    cost_microusd=tokens,
    attributes=fields(
        finish_reason=st.sampled_from(["stop", "length"]),
        documents=st.sampled_from([[], [{"id": "a"}], "[]", {}, {"a": 1}, None]),
    ),
)
scores = st.builds(
    Event,
    ts_ns=moments,
    event=st.just("score"),
    request_id=names,
    tenant=tenants,
    attributes=fields(
        status=st.sampled_from(["scored", "scored", "unscored"]),
        scorer=st.sampled_from(["grounded", "refusal"]),
        score=amounts,
        probability=st.floats(0.01, 1) | amounts,
    ),
)
levels = st.builds(
    Event,
    ts_ns=moments,
    event=st.just("gauge"),
    tenant=tenants,
    model=st.sampled_from(["", "small"]),
    attributes=fields(
        name=st.sampled_from(["queue", "größe"]),
        value=amounts,
        limit=amounts,
        series=st.sampled_from(["a", "b"]),
        queue=st.sampled_from(["queue", "lost queue", "größe", " ", "", "queue größe", ["queue"], 7]),
    ),
)
caches = st.builds(
    Event,
    ts_ns=moments,
    event=st.just("gauge"),
    attributes=st.sampled_from(
        [
            {"name": "cache", "value": 0.95, "limit": 1.0, "queue": "by_reason waiting"},
            {"name": "cache", "value": 0.9, "limit": 1, "queue": "by_reason waiting"},
            *({"name": name, "value": value} for name in ("by_reason", "waiting") for value in (0, 3)),
        ]
    ),
)
decisions = st.builds(
    Event,
    ts_ns=moments,
    event=st.just("limit"),
    tenant=tenants,
    attributes=fields(
        limits=st.dictionaries(st.sampled_from(["rpm", "a.b", "größe", ""]), fields(used_ratio=amounts), max_size=2)
    )
    | st.just({"limits.used_ratio": 0.5, "limits..used_ratio": 0.6}),
)
breaches = st.builds(Event, ts_ns=moments, event=st.just("breach"))
streams = st.lists(requests | steps | scores | levels | caches | decisions | breaches | requests | scores, max_size=40)
