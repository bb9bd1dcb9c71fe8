"""Arrow texts as the arrays that they are: their bytes, and where each text begins among these."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["QUOTE", "are_escaped", "are_filled", "bytes_of", "edges_of"]

QUOTE: Final = ord('"')

Mask = NDArray[np.bool_]


def edges_of(texts: pa.Array) -> NDArray[np.int32]:
    """Return where each text begins among the bytes of all, and where the last one ends."""
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]


def bytes_of(texts: pa.Array) -> NDArray[np.uint8]:
    """Return the bytes of all texts; one zero if there are none."""
    data: Any = texts.buffers()[2]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)


def are_filled(texts: pa.Array) -> Mask:
    """Return which texts are not empty."""
    return np.diff(edges_of(texts)) > 0


def are_escaped(texts: pa.Array) -> Mask:
    """Return which texts have a character that a string of JSON can only have behind a backslash, or a backslash."""
    edges = edges_of(texts)
    written = bytes_of(texts)[: edges[-1]]
    found = np.flatnonzero((written < ord(" ")) | (written == QUOTE) | (written == ord("\\")))
    if not len(found):
        return np.zeros(len(texts), np.bool_)
    return np.diff(np.searchsorted(found, edges)) > 0
