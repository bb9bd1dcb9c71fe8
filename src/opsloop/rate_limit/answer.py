"""What a model's answer says of its own cost, whole or in pieces as it is streamed: OpenAI's and Anthropic's forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from opsloop.rate_limit.estimate import actual_of

__all__ = ["AnswerReader", "usage_of", "written_in"]

MOST_BYTES: Final = 4 << 20
"""The longest whole answer, or line of a stream, that is read; a longer one passes unread."""
_NAMES: Final = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_WHERE: Final = ("message", "response")
"""Where a stream's event carries the answer that it is about, and with it the usage (Anthropic, OpenAI Responses)."""
_TEXTS: Final = ("content", "reasoning_content", "text", "thinking", "partial_json", "tool_calls")
"""The parts of a piece that are written by the model."""


def usage_of(answer: Any) -> dict[str, Any]:
    """Return the ``usage`` of an answer or of a piece of one, an object or a mapping, as a mapping.

    >>> usage_of({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
    {'prompt_tokens': 9, 'completion_tokens': 4}
    >>> usage_of({"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}})
    {'input_tokens': 25, 'output_tokens': 1}
    """
    usage = _part(answer, "usage")
    if usage is None:
        usage = next((found for name in _WHERE if (found := _part(_part(answer, name), "usage")) is not None), None)
    if isinstance(usage, Mapping):
        return dict(usage)
    told = {name: getattr(usage, name, None) for name in _NAMES}
    return told if actual_of(told) else {}


def written_in(piece: Any) -> int:
    """Return the tokens that a piece of a stream holds: about one for every choice that has a text in it.

    >>> written_in({"choices": [{"delta": {"content": "Hel"}}]}), written_in({"choices": [{"delta": {}}]})
    (1, 0)
    >>> written_in({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "lo"}})
    1
    """
    choices = _part(piece, "choices")
    if choices:
        return sum(_has_text(_part(choice, "delta") or choice) for choice in choices)
    return int(_has_text(_part(piece, "delta")))


class AnswerReader:
    r"""Reads an answer as its bytes pass by: server-sent events piece by piece, JSON when it is whole.

    >>> reader = AnswerReader(stream=True)
    >>> reader.feed(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\nda'), reader.written
    (None, 1)
    >>> reader.feed(b'ta: {"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n'), reader.usage
    (None, {'completion_tokens': 3})
    """

    def __init__(self, *, stream: bool) -> None:
        """Expect server-sent events, or one JSON object."""
        self._stream = stream
        self._rest = b""
        self._skips = False
        self.written = 0
        """Tokens that were streamed so far, as :func:`written_in` counts them."""
        self.usage: dict[str, Any] = {}
        """What the provider told so far; it may tell in parts."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        *lines, rest = (self._rest + data).splitlines(keepends=True) if self._stream else (self._rest + data,)
        if self._stream and rest.endswith((b"\n", b"\r")):
            lines, rest = [*lines, rest], b""
        for line in lines:
            if not self._skips:
                self._event(line)
            self._skips = False
        if len(rest) > MOST_BYTES:
            self._skips, rest = True, b""
        self._rest = rest

    def end(self) -> None:
        """Read what is whole now that nothing follows."""
        rest, self._rest = self._rest, b""
        if self._skips or not rest:
            return
        if self._stream:
            self._event(rest)
        else:
            self._piece(rest)

    def _event(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._piece(line.removeprefix(b"data:"))

    def _piece(self, text: bytes) -> None:
        try:
            piece = msgspec.json.decode(text)
        except msgspec.DecodeError:  # [DONE], or no JSON at all: an answer that tells nothing
            return
        self.written += written_in(piece)
        self.usage.update(usage_of(piece))


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _has_text(delta: Any) -> bool:
    if isinstance(delta, str):
        return bool(delta)
    return any(_part(delta, name) for name in _TEXTS)
