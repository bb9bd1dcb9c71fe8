"""The bytes of an OTLP trace request: where its spans are, and where the fields of many spans are, all at once.

Algorithm
    Protobuf can only be read from the front: a field says how long it is, and so where the next begins. So
    :class:`Body` goes over the spans one by one, and :func:`fields_of` takes one step in *all* of them at a time: the
    first field of every span, then the second of every span, and so on. A step is a few operations on arrays.
Rule
    What is read here is exactly valid, but for the texts, whose UTF-8 is checked where they are packed. Whatever is
    not plain (a field that is not known here, one that should come once and comes twice, lengths that do not agree) is
    left to the protobuf decoder, which also says what is wrong: :meth:`Body.rest` is the request without all else.

Source: https://protobuf.dev/programming-guides/encoding/ and opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_BYTES", "Body", "Fields", "Single", "UnknownLayoutError", "fields_of", "lengths_in"]

Places = NDArray[Any]
Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_PADDING: Final = bytes(16)
"""A word may be read from the last byte on."""
_INNER: Final = 0x12
"""The tag of the scopes of a resource, and of the spans of a scope."""
_ATTRIBUTES: Final = 0x4A
_FLAGS: Final = 0x85
"""The first byte of the one tag that has two; the second is 1."""
_SIZED: Final = (0x0A, 0x12, 0x1A, 0x22, 0x2A, _ATTRIBUTES, 0x7A)
_NUMBERS: Final = (0x30, 0x50, 0x60, 0x70)
_FIXED: Final = {0x39: 9, 0x41: 9, _FLAGS: 6}
"""How many bytes a field of a fixed size takes, with its tag."""
_UNKNOWN, _IS_NUMBER, _IS_SIZED, _IS_FIXED = range(4)
_LAYOUT: Final = np.full(256, _UNKNOWN, np.int8)
_LAYOUT[[*_SIZED]], _LAYOUT[[*_NUMBERS]], _LAYOUT[[*_FIXED]] = _IS_SIZED, _IS_NUMBER, _IS_FIXED
_STEPS: Final = np.zeros(256, np.int32)
_STEPS[[*_FIXED]] = [*_FIXED.values()]
_MOST_FIELDS: Final = 500
"""How many fields a span may have here: a step for the sake of a few spans costs as much as the first."""
_MOST_SIZE: Final = 2**30
"""Up to what size of a body places are numbers of 32 bits, and sums of two."""
MOST_BYTES: Final = 3
"""How many bytes a length or a small number may take here: up to two million."""


class UnknownLayoutError(ValueError):
    """A body is not made of resources, scopes and spans as usual; the decoder has to say what it is."""


class _Scope(NamedTuple):
    others: list[bytes]
    """Its fields besides spans."""
    first: int
    last: int


class Body:
    """A request's bytes, and from where to where each of its spans goes.

    Raises :class:`UnknownLayoutError` when that cannot be told.
    """

    def __init__(self, data: bytes) -> None:
        """Find the spans."""
        try:
            self._find(data)
        except IndexError:
            raise UnknownLayoutError("a field goes on behind the end") from None

    def _find(self, data: bytes) -> None:
        if len(data) > _MOST_SIZE:
            raise UnknownLayoutError("a body of that size")
        self.data = data + _PADDING
        self.words: Words = np.ndarray((len(data) + 9,), "<u8", buffer=self.data, strides=(1,))
        """Of each byte the eight that begin with it, as one number."""
        self.pairs: NDArray[np.void] = np.ndarray((len(data) + 1,), "V16", buffer=self.data, strides=(1,))
        """Of each byte the sixteen that begin with it."""
        self.groups: list[tuple[list[bytes], list[_Scope]]] = []
        """Of each resource its fields besides scopes, and its scopes."""
        starts: list[int] = []
        ends: list[int] = []
        sizes = []
        at = 0
        while at < len(data):
            start, end = self._field(at, len(data), tag=0x0A)
            first = len(starts)
            self.groups.append(self._group(start, end, starts, ends))
            sizes.append(len(starts) - first)
            at = end
        self.starts: Places = np.array(starts, np.int32)
        self.ends: Places = np.array(ends, np.int32)
        self.group: Places = np.repeat(np.arange(len(sizes)), sizes)
        """Of each span which resource it is of."""

    def rest(self, left: Collection[int]) -> bytes:
        """Return the request with those spans alone whose ascending positions are given."""
        spans = [_sized(_INNER, self.data[self.starts[place] : self.ends[place]]) for place in left]
        where = np.searchsorted(np.array([*left], np.int64), [(s.first, s.last) for _, of in self.groups for s in of])
        edges = iter(where.tolist())
        groups = []
        for others, scopes in self.groups:
            parts = [*others]
            for scope in scopes:
                first, last = next(edges)
                parts.append(_sized(_INNER, b"".join([*scope.others, *spans[first:last]])))
            groups.append(_sized(0x0A, b"".join(parts)))
        return b"".join(groups)

    def _field(self, at: int, end: int, *, tag: int | None = None) -> tuple[int, int]:
        """Return from where to where the content of a sized field goes."""
        found = self.data[at]
        size, start = _varint(self.data, at + 1)
        if found > 0x7F or found & 7 != 2 or start + size > end or tag not in {None, found}:
            raise UnknownLayoutError(f"the field at byte {at}")
        return start, start + size

    def _group(self, at: int, end: int, starts: list[int], ends: list[int]) -> tuple[list[bytes], list[_Scope]]:
        others, scopes = [], []
        while at < end:
            start, stop = self._field(at, end)
            if self.data[at] == _INNER:
                scopes.append(self._scope(start, stop, starts, ends))
            else:
                others.append(self.data[at:stop])
            at = stop
        return others, scopes

    def _scope(self, at: int, end: int, starts: list[int], ends: list[int]) -> _Scope:
        data, first, others = self.data, len(starts), []
        while at < end:
            field, size, more = at, data[at + 1], data[at + 2]
            if size <= 0x7F:
                start = at + 2
                at = start + size
            elif more <= 0x7F:  # as of nearly every span
                start = at + 3
                at = start + size + (more << 7) - 0x80
            else:
                size, start = _varint(data, at + 1)
                at = start + size
            if data[field] == _INNER:
                starts.append(start)
                ends.append(at)
            else:
                self._field(field, end)
                others.append(data[field:at])
        if at > end:
            raise UnknownLayoutError(f"a field that begins before byte {end} and ends behind it")
        return _Scope(others, first, len(starts))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise UnknownLayoutError(f"the length before byte {at}")


def _sized(tag: int, content: bytes) -> bytes:
    size, head = len(content), bytearray([tag])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + content


def lengths_in(words: NDArray[np.uint32]) -> tuple[Places, Places]:
    """Return the varint that each word begins with, and how many bytes it takes; more than three are told as four."""
    values = words & np.uint32(0x7F)
    longer = (words >> np.uint32(7)) & np.uint32(1)
    sizes = longer + np.uint32(1)
    if longer.any():
        values |= ((words >> np.uint32(1)) & np.uint32(0x3F80)) * longer
        longer &= words >> np.uint32(15)
        if longer.any():
            values |= ((words >> np.uint32(2)) & np.uint32(0x1FC000)) * longer
            sizes += longer + (longer & (words >> np.uint32(23)))
    return values.view(np.int32), sizes.view(np.int32)


class Single(NamedTuple):
    """A field that spans have once: where it ends in each span, 0 if it has none; its length, or its small number."""

    ends: Places
    values: Places


class Fields(NamedTuple):
    """What spans consist of."""

    plain: Mask
    """Which spans have nothing that is not told here."""
    once: dict[int, Single]
    """By tag what a span has once."""
    edges: Places
    """Where the attributes of each span begin among those of all, and where the last one's end."""
    starts: Places
    """From where to where each attribute goes."""
    ends: Places


def fields_of(body: Body) -> Fields:
    """Return what the spans of a body consist of."""
    count = len(body.starts)
    plain, counts = np.ones(count, np.bool_), np.zeros(count, np.int64)
    once: dict[int, Single] = {}
    several: list[tuple[NDArray[Any], ...]] = []
    lanes, at, end, seen = np.arange(count), body.starts, body.ends, np.zeros(count, np.int64)
    for _ in range(_MOST_FIELDS):
        live = at < end
        if not live.all():
            counts[lanes] = seen
            lanes, at, end, seen = lanes[live], at[live], end[live], seen[live]
        if not len(lanes):
            break
        words = body.words[at]
        tags = words.astype(np.uint8)
        values, sizes = lengths_in((words >> np.uint64(8)).astype(np.uint32))
        many = tags == _ATTRIBUTES
        if only_many := bool(many.all()):
            stops = at + sizes + values + 1
            bad = (stops > end) | (sizes > MOST_BYTES)
        else:
            layout = _LAYOUT.take(tags)
            fixed = layout == _IS_FIXED
            stops = at + np.where(fixed, _STEPS.take(tags), 1 + sizes + np.where(layout == _IS_SIZED, values, 0))
            bad = (layout == _UNKNOWN) | (stops > end) | (~fixed & (sizes > MOST_BYTES))
            bad |= (tags == _FLAGS) & ((words >> np.uint64(8)).astype(np.uint8) != 1)
        if bad.any():
            plain[lanes[bad]] = False
            counts[lanes] = seen
            good = ~bad
            lanes, end, stops, tags = lanes[good], end[good], stops[good], tags[good]
            values, many, seen = values[good], many[good], seen[good]
        for tag in [_ATTRIBUTES] if only_many else np.flatnonzero(np.bincount(tags)).tolist():
            if tag == _ATTRIBUTES:
                several.append(_those(many, lanes, seen, stops, values))
                seen = seen + many
            else:
                field = once.setdefault(tag, Single(*np.zeros((2, count), np.int32)))
                _note(field, plain, *_those(tags == tag, lanes, stops, values))
        at = stops
    counts[lanes], plain[lanes] = seen, plain[lanes] & (at >= end)
    edges = np.concatenate([[0], np.cumsum(counts)])
    ends, lengths = np.empty((2, edges[-1]), np.int32)
    for own, before, stops, values in several:
        places = edges.take(own) + before
        ends[places], lengths[places] = stops, values
    return Fields(plain, once, edges, ends - lengths, ends)


def _those(mask: Mask, *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return what a mask leaves of arrays: in most steps that is all."""
    return arrays if mask.all() else tuple(array[mask] for array in arrays)


def _note(field: Single, plain: Mask, lanes: Places, stops: Places, values: Places) -> None:
    """Note where spans have a field; whoever has it twice is not plain."""
    plain[lanes[field.ends.take(lanes) > 0]] = False
    field.ends[lanes], field.values[lanes] = stops, values
