"""The event: JSON in and out, checked."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from opsloop.errors import EventError
from opsloop.event import FIELDS, Event, decode_event, encode_event, event_from_mapping, flatten
from tests.strategies import attributes, events


@given(event=events)
def test_an_event_survives_json(event):
    """Encoding and decoding gives the same event, for any event."""
    assert decode_event(encode_event(event)) == event


def test_fields_at_their_default_are_left_out():
    """A small event is a small line."""
    assert encode_event(Event(ts_ns=1, event="log", error=True)) == b'{"ts_ns":1,"event":"log","error":true}'


def test_foreign_keys_become_attributes():
    """Any JSON object with a time can come in; nothing of it is lost."""
    event = event_from_mapping(
        {"event": "log", "time": "1970-01-01T00:00:00.000000007Z", "a": 1, "attributes": {"b": 2}}
    )
    assert event == Event(ts_ns=7, event="log", attributes={"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object: Input data was truncated; send one JSON object per line"),
        ("[1]", "expected a JSON object, got list; send one JSON object per event"),
        ('{"event":"log"}', "Object missing required field `ts_ns`; see the event's fields in docs/event.md"),
        (
            '{"ts_ns":1,"event":"log","error":"yes"}',
            "error: Expected `bool`, got `str`; see the event's fields in docs/event.md",
        ),
        (
            '{"ts_ns":1,"event":"log","duration_us":-1}',
            "duration_us: Expected `int` >= 0; see the event's fields in docs/event.md",
        ),
        (
            '{"ts_ns":1,"event":""}',
            "event: Expected `str` of length >= 1; see the event's fields in docs/event.md",
        ),
        (
            '{"event":"log","ts":"soon"}',
            "ts: Invalid isoformat string: 'soon'; send ISO 8601 with a zone, or ts_ns as an integer",
        ),
        (
            '{"ts_ns":1,"event":"log","attributes":3,"x":1}',
            "attributes: expected an object; send attributes as {name: value}",
        ),
    ],
)
def test_a_wrong_event_names_its_field(line, message):
    """The error says which field, what was expected, and where to look."""
    with pytest.raises(EventError) as caught:
        decode_event(line)
    assert str(caught.value) == message


def test_nan_cannot_enter():
    """A number that is none is refused with its path, however deep."""
    with pytest.raises(EventError, match=r"attributes\.a\.1\.b: NaN and infinity are not values"):
        event_from_mapping({"ts_ns": 1, "event": "log", "a": [0, {"b": float("nan")}]})


@given(tree=attributes)
def test_leaves_are_text_under_dotted_paths(tree):
    """Flattening keeps every scalar once and never invents a value."""
    leaves = flatten(tree)
    for path, text in leaves.items():
        assert isinstance(text, str), path
    for key, value in tree.items():
        if isinstance(value, str):
            assert leaves[key] == value
        elif not isinstance(value, dict):
            assert msgspec.json.decode(leaves[key]) == value


def test_the_columns_are_the_contract():
    """The promoted columns are these, in this order; adding one raises the schema version."""
    assert FIELDS == (
        "ts_ns", "event", "event_id", "service", "environment", "release", "request_id", "trace_id", "span_id",
        "parent_span_id", "tenant", "user_id", "session_id", "route", "severity", "status_code", "error", "error_type",
        "duration_us", "time_to_first_token_us", "model", "provider", "input_tokens", "output_tokens", "cost_microusd",
        "tool", "message", "attributes",
    )  # fmt: skip
