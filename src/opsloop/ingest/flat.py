"""Many spans as a few columns: what each has once, and the attributes of all of them one after the other.

Objects
    :class:`FlatSpans` is what :func:`read_flat` makes of a request's bytes. Whatever is not plainly a right span is
    of no shape, and is left to the decoder (:mod:`opsloop.ingest.wire`).
Rule
    Spans that have the same names with values of the same types are of one *shape*. Shapes are found by a hash and then
    compared byte by byte, so a collision costs time and nothing else.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from opsloop.event import INT64_MAX
from opsloop.ingest.texts import bytes_of
from opsloop.ingest.wire import MOST_BYTES, Body, Fields, Mask, Places, Single, Words, fields_of, lengths_in

__all__ = [
    "FLAG",
    "LEAST_OF_A_SHAPE",
    "LIST",
    "NOTHING",
    "OTHER",
    "REAL",
    "TEXT",
    "WHOLE",
    "FlatSpans",
    "Shape",
    "read_flat",
]

NOTHING, TEXT, WHOLE, REAL, FLAG, LIST, OTHER = range(7)
"""What an attribute's value is; ``OTHER`` is a tree of names, bytes, or written in an unusual way."""
LEAST_OF_A_SHAPE: Final = 10
"""To follow a plan costs as much as to map so many spans in Python."""
_MOST_SHAPES: Final = 8
"""How many shapes are looked for under one hash."""
_TYPES: Final = np.full(256, OTHER, np.uint8)
_TYPES[[0x0A, 0x10, 0x18, 0x21, 0x2A]] = TEXT, FLAG, WHOLE, REAL, LIST
_TRACE_ID, _SPAN_ID, _STATE, _PARENT_ID, _NAME, _KIND, _START, _END, _STATUS = (
    0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x30, 0x39, 0x41, 0x7A,
)  # fmt: skip
"""The tags of a span's fields."""
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
"""An odd number without a pattern in its bits: 2**64 by the golden ratio."""
_FIRST: Final = np.array([2 ** (8 * size) - 1 for size in range(9)], np.uint64)
"""What keeps the first so many bytes of a word."""


class Shape(NamedTuple):
    """The names of some spans' attributes, the types of their values, and which spans have them."""

    names: tuple[str, ...]
    types: tuple[int, ...]
    rows: Places


class FlatSpans(NamedTuple):
    """Spans in the order of their body; ids are hexadecimal, times in nanoseconds."""

    group: Places
    """Which of the request's resources a span is of."""
    trace_id: pa.StringArray
    span_id: pa.StringArray
    parent_span_id: pa.StringArray
    name: pa.StringArray
    message: pa.StringArray
    kind: Places
    status: Places
    start_ns: Words
    end_ns: Words
    starts: Places
    """Where the attributes of each span begin, and where the last one's end."""
    shapes: list[Shape]
    """Of plain spans: with right ids and times, neither events nor links, and nothing that is not told here."""
    types: NDArray[np.uint8]
    texts: pa.StringArray
    """Of each attribute its text, or "" if it is no text."""
    wholes: Places
    reals: NDArray[np.float64]
    listed: Places
    """Which attributes are lists, in order."""
    lists: pa.BinaryArray
    """The protobuf of each of these."""


def read_flat(body: Body) -> FlatSpans:
    """Return the spans of a request. Raises :class:`pyarrow.ArrowInvalid` for texts that are no UTF-8."""
    fields = fields_of(body)
    plain, once = fields.plain, fields.once
    values = _values(body, fields)
    odd = values.types == OTHER
    if odd.any():
        plain[np.repeat(np.arange(len(plain)), np.diff(fields.edges))[odd]] = False
    message, status = _status(body, once.get(_STATUS), plain)
    if _STATE in once:
        _texts(body, *_places(body, once[_STATE]))  # not kept, but a state that is no UTF-8 is refused
    start_ns, end_ns = (_words(body, once.get(tag)) for tag in (_START, _END))
    plain &= (start_ns > 0) & (start_ns <= end_ns) & (end_ns <= INT64_MAX)
    ids = {
        "trace_id": _identity(body, once.get(_TRACE_ID), plain, words=2),
        "span_id": _identity(body, once.get(_SPAN_ID), plain),
        "parent_span_id": _identity(body, once.get(_PARENT_ID), plain, optional=True),
    }
    listed = np.flatnonzero(values.types == LIST)
    return FlatSpans(
        group=body.group,
        **ids,
        name=_texts(body, *_places(body, once.get(_NAME))),
        message=message,
        kind=once[_KIND].values if _KIND in once else np.zeros(len(plain), np.int32),
        status=status,
        start_ns=start_ns,
        end_ns=end_ns,
        starts=fields.edges,
        shapes=list(_shapes(body, fields, values)),
        types=values.types,
        texts=_texts(body, np.where(values.types == TEXT, values.starts, fields.ends), fields.ends),
        wholes=values.wholes,
        reals=values.reals,
        listed=listed,
        lists=_cut(body, values.starts[listed], fields.ends[listed]),
    )


# ---- what a span has once --------------------------------------------------------------------------------------------


def _places(body: Body, field: Single | None) -> tuple[Places, Places]:
    """Return of each span from where to where it has a field; from its first byte to there if it has none."""
    if field is None:
        return body.starts, body.starts
    ends = np.where(field.ends > 0, field.ends, body.starts)
    return ends - field.values, ends


def _cut(body: Body, starts: Places, ends: Places) -> pa.BinaryArray:
    """Return the bytes between some places, which ascend; what is between them is left out."""
    count = len(starts)
    places = np.empty(2 * count + 1, np.int32)
    places[:-1:2], places[1::2], places[-1] = starts, ends, ends[-1] if count else 0
    every = pa.Array.from_buffers(pa.binary(), 2 * count, [None, pa.py_buffer(places), pa.py_buffer(body.data)])
    return every.take(pa.array(np.arange(0, 2 * count, 2)))


def _texts(body: Body, starts: Places, ends: Places) -> pa.StringArray:
    """Return the texts between some places, which ascend."""
    texts = _cut(body, starts, ends).view(pa.string())
    if bytes_of(texts).max() > 0x7F:
        texts.validate(full=True)
    return texts


def _identity(
    body: Body, field: Single | None, plain: Mask, *, words: int = 1, optional: bool = False
) -> pa.StringArray:
    """Return ids of one word or two in hexadecimal; whoever has another, or one of zeros, is not plain."""
    starts, ends = _places(body, field)
    found = [body.words[starts + 8 * number] for number in range(words)]
    filled = (ends - starts == 8 * words) & ((found[0] | found[-1]) > 0)
    plain &= filled | (optional & (ends == starts))
    every = np.stack(found, axis=1)
    digits = hexlify((every if filled.all() else every[filled]).data)
    edges = np.concatenate([[0], np.cumsum(filled * 16 * words)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(edges), pa.py_buffer(digits))


def _words(body: Body, field: Single | None) -> Words:
    if field is None:
        return np.zeros(len(body.starts), np.uint64)
    return np.where(field.ends > 0, body.words[field.ends - 8], 0)


def _status(body: Body, field: Single | None, plain: Mask) -> tuple[pa.StringArray, Places]:
    """Return the message and the code of each span's status: a text, if there is one, and one byte, if it is not 0."""
    codes = np.zeros(len(plain), np.int64)
    if field is None:
        return pa.repeat(pa.scalar(""), len(plain)), codes
    starts, ends = _places(body, field)
    words = body.words[starts]
    told = (starts < ends) & (words.astype(np.uint8) == 0x12)  # the tag of the message
    lengths, sizes = lengths_in((words >> np.uint64(8)).astype(np.uint32))
    first = np.where(told, starts + 1 + sizes, starts)
    last = np.where(told, first + lengths, starts)
    coded = ends - last == 2  # its tag and itself
    words = body.words[np.minimum(last, ends)]
    coded &= (words & np.uint64(0x80FF)) == 0x18  # the tag of the code, and no second byte
    codes[coded] = (words[coded] >> np.uint64(8)) & np.uint64(0x7F)
    good = (coded | (last == ends)) & ~(told & (sizes > MOST_BYTES))
    plain &= good
    return _texts(body, np.where(good, first, ends), np.where(good, last, ends)), codes


# ---- attributes ------------------------------------------------------------------------------------------------------


class _Names(NamedTuple):
    """The names of attributes: from where to where, and what tells most of them apart."""

    starts: Places
    ends: Places
    first: Words
    """The type of the value, the length of the name and its first six bytes."""
    last: Words
    """Its last eight bytes, if it has more than six."""


class _Values(NamedTuple):
    names: _Names
    types: NDArray[np.uint8]
    starts: Places
    """Where a text or a list begins; it ends with its attribute."""
    wholes: Places
    reals: NDArray[np.float64]


def _values(body: Body, pairs: Fields) -> _Values:
    """Return what attributes say: a name, then the value, which ends where the attribute does."""
    at, end = pairs.starts, pairs.ends
    head = body.words[at]
    size = (head.astype(np.uint32) >> np.uint32(8)).astype(np.uint8)
    name_end = at + size + 2
    odd = (head.astype(np.uint16) & 0x80FF != 0x0A) | (name_end > end)  # the tag of a name, and a size of one byte
    name_end = np.minimum(name_end, end)
    left = end - name_end
    word = body.words[name_end]
    # A value of up to 127 bytes is behind its tag and one byte of length, and a text in it behind the same once more.
    fits = word.astype(np.uint16) == ((left - 2) << 8) + 0x12
    inner = name_end + 2
    word >>= np.uint64(16)
    if len(long := np.flatnonzero(left > 0x81)):  # of these, lengths have several bytes
        words = body.words[name_end[long]]
        length, taken = lengths_in((words >> np.uint64(8)).astype(np.uint32))
        inner[long] = start = name_end[long] + taken + 1
        fits[long] = (words.astype(np.uint8) == 0x12) & (start + length == end[long]) & (taken <= MOST_BYTES)
        word[long] = words = words >> ((taken + 1) << 3).view(np.uint32)
    types = _TYPES.take(word.astype(np.uint8))
    starts = inner + 2
    filled = (word.astype(np.uint16) >> 8) == left - 4
    if len(long):
        length, taken = lengths_in((words >> np.uint64(8)).astype(np.uint32))
        starts[long] = start = start + taken + 1
        filled[long] = (start + length == end[long]) & (taken <= MOST_BYTES)
    types[(left == 0) | (left == 2)] = NOTHING
    odd |= (left > 0) & ~fits | ((types == TEXT) | (types == LIST)) & ~filled
    types[odd] = OTHER
    wholes, reals = np.zeros(len(types), np.int64), np.zeros(len(types))
    places = np.flatnonzero(types == REAL)
    types[places[end[places] - inner[places] != 9]] = OTHER  # its tag and eight bytes
    places = np.flatnonzero(types == REAL)
    reals[places] = body.words[inner[places] + 1].view(np.float64)
    places = np.flatnonzero((types == WHOLE) | (types == FLAG))
    wholes[places], right = _varints(body, inner[places] + 1, end[places])
    right &= (types[places] == WHOLE) | ((wholes[places] >= 0) & (wholes[places] <= 1))
    types[places[~right]] = OTHER
    last, short = body.words[name_end - 8], np.flatnonzero(size < 6)
    head[short] &= _FIRST.take(size[short] + 2)
    last[short] = 0  # the first has all of it
    first = head + types
    return _Values(_Names(at + 2, name_end, first, last), types, starts, wholes, reals)


def _varints(body: Body, starts: Places, ends: Places) -> tuple[Places, Mask]:
    """Return the numbers of up to ten bytes between some places, seven bits a byte, and which of them are such."""
    sizes = ends - starts
    right = (sizes > 0) & (sizes <= 10)
    sizes = np.where(right, sizes, 1)
    low = np.minimum(sizes, 8)
    words = body.words[starts] & _FIRST[low]
    more = np.zeros(len(words), np.uint64)
    if (longer := np.flatnonzero(sizes > low)).size:
        more[longer] = body.words[starts[longer] + 8] & _FIRST[sizes[longer] - 8]
    goes_on = np.uint64(0x8080808080808080)
    right &= (words & goes_on) == (goes_on & _FIRST[np.where(sizes > low, low, low - 1)])
    right &= (more & goes_on == goes_on & _FIRST[np.maximum(sizes - 9, 0)]) & (more >> np.uint64(8) <= 1)
    for shift, keep in ((1, 0x007F007F007F007F), (2, 0x00003FFF00003FFF), (4, 0x000000000FFFFFFF)):
        lower, upper = words & np.uint64(keep), words & np.uint64(keep << 8 * shift)
        words = lower | upper >> np.uint64(shift)
    words |= (more & np.uint64(0x7F)) << np.uint64(56) | (more >> np.uint64(8)) << np.uint64(63)
    return words.view(np.int64), right


def _shapes(body: Body, fields: Fields, values: _Values) -> Iterator[Shape]:
    """Yield each shape that enough plain spans have."""
    edges, names = fields.edges, values.names
    sizes = np.diff(edges)
    hashes = np.zeros(len(sizes), np.uint64)
    if len(some := np.flatnonzero(sizes)):
        mixed = ((names.first * _MIX) ^ names.last) * _MIX
        first = edges[some]
        sums = np.add.reduceat(mixed, first)
        mixed *= np.arange(len(mixed), dtype=np.uint64)
        hashes[some] = np.add.reduceat(mixed, first) - first.view(np.uint64) * sums + sums  # each by its place, from 1
    plain = np.flatnonzero(fields.plain)
    order = plain[np.argsort(hashes[plain], kind="stable")]
    for under_one in np.split(order, np.flatnonzero(np.diff(hashes[order])) + 1):
        rows = under_one
        for _ in range(_MOST_SHAPES):  # whoever differs from the first may be of another shape
            if len(rows) < LEAST_OF_A_SHAPE:
                break
            own = slice(edges[rows[0]], edges[rows[0] + 1])
            alike = sizes[rows] == own.stop - own.start
            alike[alike] = _alike(body, names, edges[rows[alike]], own)
            if np.count_nonzero(alike) >= LEAST_OF_A_SHAPE:
                texts = [body.data[start:end] for start, end in zip(names.starts[own], names.ends[own], strict=True)]
                yield Shape(tuple(map(bytes.decode, texts)), tuple(values.types[own].tolist()), rows[alike])
            rows = rows[~alike]


def _alike(body: Body, names: _Names, starts: Places, own: slice) -> Mask:
    """Return which spans, by where their attributes begin, have the very names and types of one of them."""
    every = starts + np.arange(own.stop - own.start)[:, None]
    alike: Mask = np.ones(len(starts), np.bool_)
    for words in (names.first, names.last):
        alike &= (words.take(every) == words[own][:, None]).all(axis=0)
    # Six bytes and eight are compared already; what is between them, sixteen at a time: the first of them may be the
    # length of the name, which is compared, too.
    between = [
        (place, min(offset, size - 16))
        for place, size in enumerate((names.ends[own] - names.starts[own]).tolist())
        for offset in range(6, size - 8, 16)
    ]
    if between:
        places, offsets = np.array(between, np.int32).T
        wanted = body.pairs[names.starts[own][places] + offsets].view(np.uint64).reshape(-1, 1, 2)
        found = body.pairs[names.starts.take(every[places]) + offsets[:, None]].view(np.uint64)
        found = found.reshape(len(places), -1, 2)
        for half in (0, 1):
            alike &= (found[:, :, half] == wanted[:, :, half]).all(axis=0)
    return alike
