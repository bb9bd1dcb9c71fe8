"""Content in frames: what many values of one attribute say, while the definition is asked once for each frame.

Rule
    The values of one attribute mostly are the same JSON around one text that differs: its *frame*. Of a text the
    definition (:mod:`opsloop.ingest.content`) asks only whether it is empty, so where it passes one on, it passes on
    any other. A frame is found by asking what a value says, and what it says with another text in the same place; from
    then on a value in that frame says what stands between its quotes.
Proof
    The other text is as long as the whole value, so it can only have come from its place. A frame is a list or an
    object, so what it says is not read as JSON once more. What stands between its quotes has to be a JSON string by
    itself. Every other value is left to the definition.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from opsloop.ingest.texts import are_escaped, edges_of

__all__ = ["said_in"]

_DECODE_STRING: Final = msgspec.json.Decoder(str).decode


def said_in(way: Callable[[Any], str], values: pa.Array) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
    """Yield what a way of the definition makes of values, some at a time: the places of some, and what each says.

    >>> from opsloop.ingest.content import ContentReader
    >>> ((way, _),) = ContentReader(["gen_ai.output.messages"]).ways("llm")["output"]
    >>> answers = pa.array(['[{"role": "assistant", "content": "Yes"}]', '[{"role": "assistant", "content": "2 < 3"}]'])
    >>> [(places.tolist(), said.to_pylist()) for places, said in said_in(way, answers)]
    [([1], ['2 < 3']), ([0], ['Yes'])]
    """
    left = np.arange(len(values))
    asked: list[int] = []
    said: list[str] = []
    while len(left):
        place, left = left[0], left[1:]
        value = values[place].as_py()
        asked.append(place)
        said.append(way(value))
        frame = _frame_of(way, value, said[-1]) if _is_power_of_two(len(asked)) else None
        if frame is not None:
            framed, texts = _inside(frame, values.take(pa.array(left)))
            yield left[framed], texts
            left = left[~framed]
    yield np.array(asked, np.int64), pa.array(said, pa.string())


def _is_power_of_two(count: int) -> bool:
    """Return whether to look for a frame: ever more rarely, since where each value has its own they are no use."""
    return not count & (count - 1)


def _inside(frame: tuple[str, str], values: pa.Array) -> tuple[NDArray[np.bool_], pa.Array]:
    """Return which values are in a frame, and what stands between the quotes of these."""
    before, after = frame
    lengths = [len(text.encode()) for text in frame]
    framed = np.asarray(pc.starts_with(values, before)) & np.asarray(pc.ends_with(values, after))
    framed &= np.diff(edges_of(values)) > sum(lengths)
    within = values if framed.all() else values.filter(pa.array(framed))
    inner = pc.binary_slice(within.view(pa.binary()), lengths[0], -lengths[1])
    escaped = are_escaped(inner)
    if escaped.any():
        mask = pa.array(escaped)
        decoded = [_decoded(text) for text in inner.filter(mask).to_pylist()]
        inner = pc.replace_with_mask(inner, mask, pa.array(decoded, pa.binary()))
        framed[framed] = np.asarray(inner.is_valid())
        inner = inner.drop_null()
    return framed, inner.view(pa.string())


def _decoded(inner: bytes) -> bytes | None:
    """Return the text that a string of JSON says between its quotes, if it is one."""
    try:
        return _DECODE_STRING(b'"' + inner + b'"').encode()
    except msgspec.DecodeError:
        return None


def _frame_of(way: Callable[[Any], str], value: str, said: str) -> tuple[str, str] | None:
    """Return what stands around the text that a value says, quotes included, if that is a frame."""
    other = "x" * len(value)
    for written in (json.dumps(said), json.dumps(said, ensure_ascii=False)) if said and value[:1] in {"[", "{"} else ():
        before, found, after = value.rpartition(written)
        if found and way(f'{before}"{other}"{after}') == other:
            return f'{before}"', f'"{after}'
    return None
