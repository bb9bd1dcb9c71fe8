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
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

__all__ = ["said_in"]

_DECODE_STRING: Final = msgspec.json.Decoder(str).decode


def said_in(way: Callable[[Any], str], values: Iterable[str]) -> list[str]:
    """Return what a way of the definition makes of each value.

    >>> from opsloop.ingest.content import ContentReader
    >>> ((way, _),) = ContentReader(["gen_ai.output.messages"]).ways("llm")["output"]
    >>> said_in(way, ['[{"role": "assistant", "content": "Yes"}]', '[{"role": "assistant", "content": "2 < 3"}]'])
    ['Yes', '2 < 3']
    """
    said: list[str] = []
    frames: list[tuple[str, str]] = []
    openings: tuple[str, ...] = ()
    asked = 0
    for value in values:
        text = _inside(frames, value) if value.startswith(openings) else ""
        if not text:
            text = way(value)
            asked += 1
            if not asked & (asked - 1):  # ever more rarely: where each value has a frame of its own, frames are no use
                frames += _frames_of(way, value, text)
                openings = tuple(before for before, _ in frames)
        said.append(text)
    return said


def _inside(frames: Iterable[tuple[str, str]], value: str) -> str:
    """Return the text between a frame's quotes, or an empty one."""
    for before, after in frames:
        if value.startswith(before) and value.endswith(after):
            try:
                return _DECODE_STRING(value[len(before) - 1 : 1 - len(after)])
            except msgspec.DecodeError:
                continue
    return ""


def _frames_of(way: Callable[[Any], str], value: str, said: str) -> list[tuple[str, str]]:
    """Return what stands around the text that a value says, quotes included, if that is a frame."""
    other = "x" * len(value)
    for written in (json.dumps(said), json.dumps(said, ensure_ascii=False)) if said and value[:1] in {"[", "{"} else ():
        before, found, after = value.rpartition(written)
        if found and way(f'{before}"{other}"{after}') == other:
            return [(f'{before}"', f'"{after}')]
    return []
