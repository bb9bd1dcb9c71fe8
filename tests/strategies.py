"""Hypothesis strategies for events and filters, in one place."""

from __future__ import annotations

from hypothesis import strategies as st

from opsloop.event import KINDS, SEVERITIES, Event
from opsloop.filter import And, Compare, Not, Op, Or

words = st.sampled_from(["", "retrieve", "Retrieve", "gpt-4o", "a%b_c", "x\\y", "größe", "500", "0.5", "*", "it's"])
counts = st.none() | st.integers(0, 3) | st.integers(0, 2**63 - 1)
leaves = words | st.booleans() | st.integers(-5, 5) | st.none() | st.lists(st.integers(0, 3), max_size=2)
attributes = st.dictionaries(
    st.sampled_from(["score", "retry", "gen_ai.system", "größe"]),
    leaves | st.dictionaries(st.sampled_from(["count", "k"]), leaves, max_size=2),
    max_size=3,
)
events = st.builds(
    Event,
    ts_ns=st.integers(1_767_600_000_000_000_000, 1_767_600_000_000_000_020),
    event=st.sampled_from(sorted(KINDS)),
    service=words,
    request_id=words,
    tenant=words,
    severity=st.sampled_from(SEVERITIES),
    status_code=st.none() | st.sampled_from([200, 429, 503]),
    error=st.booleans(),
    duration_us=counts,
    input_tokens=counts,
    model=words,
    tool=words,
    message=words,
    attributes=attributes,
)
text_ops = st.sampled_from([Op.EQ, Op.NE, Op.LT, Op.GE, Op.GLOB, Op.CONTAINS, Op.EXISTS])
order_ops = st.sampled_from([Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE, Op.EXISTS])
comparisons = st.one_of(
    st.builds(Compare, st.sampled_from(["tool", "message", "event", "model"]), text_ops, words),
    st.builds(Compare, st.sampled_from(["duration_us", "input_tokens", "ts_ns"]), order_ops, st.integers(-1, 4)),
    st.builds(Compare, st.just("duration_us"), order_ops, st.sampled_from([0.5, 2.0, "1", "2.5"])),
    st.builds(Compare, st.just("severity"), order_ops, st.sampled_from(["info", "WARN", "error"])),
    st.builds(Compare, st.just("error"), st.sampled_from([Op.EQ, Op.NE]), st.booleans()),
    st.builds(
        Compare,
        st.sampled_from(["score", "retry.count", "attributes.retry", "gen_ai.system", "größe", "never"]),
        text_ops,
        words | st.integers(-5, 5) | st.booleans(),
    ),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda parts: And(tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)
