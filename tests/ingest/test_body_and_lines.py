"""Content encodings, JSON lines, and which times are kept."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import EventError, PayloadError
from opsloop.event import Event, decode_event, encode_event
from opsloop.ingest import Batch, accept, decompress, read_json_lines
from opsloop.ingest.body import TooLargeError
from opsloop.settings import ServerSettings, Settings
from tests.strategies import events

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
"""A zstd frame that decoders pass over."""
NOW = 1_767_600_000_000_000_000


@given(body=st.binary(max_size=2000))
def test_encodings_are_undone(body):
    """Gzip and zstd (also in several parts, some to be skipped), deflate and none give the body back."""
    assert decompress(gzip.compress(body), "gzip", max_bytes=10_000) == body
    assert decompress(gzip.compress(body) + gzip.compress(b"tail"), "GZIP", max_bytes=10_000) == body + b"tail"
    assert decompress(zlib.compress(body), "deflate", max_bytes=10_000) == body
    assert decompress(zstd.compress(body), "zstd", max_bytes=10_000) == body
    assert (
        decompress(zstd.compress(body) + SKIPPED + zstd.compress(b"tail"), "zstd", max_bytes=10_000) == body + b"tail"
    )
    assert decompress(body, "", max_bytes=10_000) == body


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"not gzip", "gzip", "the body is not gzip"),
        (gzip.compress(b"x" * 100)[:-9], "gzip", "the gzip body ends early"),
        (b"not zstd", "zstd", "the body is not zstd"),
        (zstd.compress(b"x" * 100)[:-3], "zstd", "the zstd body ends early"),
        (zstd.compress(b"x" * 100) + b"more", "zstd", "the body is not zstd"),
        (SKIPPED * 101, "zstd", "the zstd body has more than 100 parts; compress it in one piece"),
        (gzip.compress(b"") * 101, "gzip", "the gzip body has more than 100 parts; compress it in one piece"),
        (b"x", "br", "unknown Content-Encoding 'br'; send gzip, deflate, zstd or none"),
    ],
)
def test_a_wrong_encoding_is_said(body, encoding, message):
    """What is not what it says, ends early or has an unknown name is refused with a sentence."""
    with pytest.raises(PayloadError) as caught:
        decompress(body, encoding, max_bytes=3000)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", ""])
def test_the_limit_holds_before_and_after(encoding):
    """A bomb is not unfolded past the limit, in one part or in many, and a plain body over it is refused."""
    body = b"0" * 1_000_000
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress, "": bytes}[encoding](body)
    tracemalloc.start()
    with pytest.raises(TooLargeError, match="over 2000 bytes"):
        decompress(packed, encoding, max_bytes=2000)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    if encoding in {"gzip", "zstd"}:
        many = (gzip.compress if encoding == "gzip" else zstd.compress)(b"0" * 30) * 90
        with pytest.raises(TooLargeError, match="over 2600 bytes"):
            decompress(many, encoding, max_bytes=2600)
        assert len(many) < 2600


def test_a_zstd_frame_may_not_ask_for_more_memory_than_a_window():
    """A frame that wants a window of 128 MiB is refused before any is given, as RFC 9659 has it."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    body = packer.compress(b"0" * 1000) + packer.flush()
    with pytest.raises(PayloadError, match="requires too much memory"):
        decompress(body, "zstd", max_bytes=10_000)


@given(batch=st.lists(events, max_size=5))
def test_events_survive_json_lines(batch):
    """What encode_event writes, read_json_lines reads."""
    lines = b"".join(encode_event(event) + b"\n" for event in batch)
    assert read_json_lines(lines).events == batch


def test_other_loggers_lines_are_read():
    """structlog, pino and stdlib JSON lines become log events: level, msg, ISO time and extra keys."""
    line = b'{"level": "warning", "msg": "slow", "timestamp": "2026-01-05T08:00:00Z", "user": {"plan": "pro"}}'
    assert read_json_lines(line).events == [
        Event(ts_ns=NOW, event="log", severity="WARN", message="slow", attributes={"user": {"plan": "pro"}})
    ]


def test_a_bad_line_is_named_and_the_rest_kept():
    """Each bad line says its number, its field and what was expected."""
    lines = b'{"ts_ns": 1, "event": "log"}\n{"ts_ns": 1, "event": "log", "duration_us": "slow"}\nnope\n'
    batch = read_json_lines(lines, first_line=10)
    assert len(batch.events) == 1
    assert batch.reasons == [
        "line 11: duration_us: Expected `int | null`, got `str`; see the event's fields in docs/event.md",
        "line 12: not JSON: JSON is malformed: invalid character (byte 4)",
    ]


@given(body=st.binary(max_size=100))
def test_no_line_raises_anything_else(body):
    """Any bytes give events and rejections, or PayloadError."""
    try:
        read_json_lines(body)
    except PayloadError:
        return


def test_a_line_that_nests_without_end_is_named_and_the_rest_kept():
    """JSON deeper than the parser goes is one bad line, no fault that would make a sender try for ever."""
    batch = read_json_lines(b'{"ts_ns": 1, "message": "kept"}\n' + b'{"a":' * 100_000)
    assert [event.message for event in batch.events] == ["kept"]
    assert batch.reason().startswith("line 2: not JSON: maximum recursion depth exceeded")
    with pytest.raises(EventError, match="not a JSON object: maximum recursion depth exceeded"):
        decode_event(b"[" * 100_000)


def test_times_that_cannot_be_kept_are_counted():
    """Older than its own retention and more than an hour ahead are rejected, each with its reason."""
    inside = Event(ts_ns=NOW, event="log")
    score = Event(ts_ns=NOW - 100 * 86_400 * 10**9, event="score")
    batch = Batch(events=[inside, score, inside.replace(ts_ns=0), inside.replace(ts_ns=NOW + 2 * 3600 * 10**9)])
    kept = accept(batch, now_ns=NOW, settings=Settings(server=ServerSettings(retention_days=30)))
    assert kept.events == [inside, score]
    assert kept.reasons == [
        "an event of 1970-01-01T00:00:00.000Z is older than the 30 days that are kept",
        "an event of 2026-01-05T10:00:00.000Z is more than an hour in the future: check clock and unit",
    ]
