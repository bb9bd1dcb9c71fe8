"""What was asked, answered and retrieved: the texts of a span under our names ``input``, ``output``, ``documents``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from opsloop.ingest.attributes import matching, present

__all__ = ["content_of"]

INPUT: Final = (
    "input.value",
    "traceloop.entity.input",
    "langfuse.observation.input",
    "ai.prompt",
    "gen_ai.retrieval.query.text",
    "gen_ai.tool.call.arguments",
    "tool_arguments",
    "ai.toolCall.args",
    "mlflow.spanInputs",
    "genkit:input",
    "input",
)
OUTPUT: Final = (
    "output.value",
    "traceloop.entity.output",
    "langfuse.observation.output",
    "ai.response.text",
    "ai.response.object",
    "ai.result.text",
    "final_result",
    "gen_ai.tool.call.result",
    "tool_response",
    "ai.toolCall.result",
    "mlflow.spanOutputs",
    "genkit:output",
    "output",
)
INDEXED_INPUT: Final = ("gen_ai.prompt", "llm.input_messages")
INDEXED_OUTPUT: Final = ("gen_ai.completion", "llm.output_messages")
FINISH: Final = ("gen_ai.response.finish_reasons", "llm.finish_reason", "ai.response.finishReason")
STRUCTURED: Final = frozenset({"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.retrieval.documents"})
"""Names whose values are more than one text."""
MAX_SLOTS: Final = 10_000
_DOCUMENT: Final = re.compile(r"retrieval\.documents\.(\d{1,6})\.document\.(id|score|content)")
_MESSAGE: Final = re.compile(
    r"(gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages)\.(\d{1,6})\.(?:message\.)?content"
)


def content_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``input``, ``output``, ``documents`` and ``finish_reason`` as far as the attributes tell them.

    >>> content_of({"gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "Hi"}]}]'})
    {'output': 'Hi'}
    """
    indexed = _indexed_messages(attributes)
    found: dict[str, Any] = {
        "input": _messages(attributes.get("gen_ai.input.messages"), role="user")
        or _last(indexed, INDEXED_INPUT)
        or _first(attributes, INPUT),
        "output": _messages(attributes.get("gen_ai.output.messages"), role="assistant")
        or _last(indexed, INDEXED_OUTPUT)
        or _first(attributes, OUTPUT),
        "documents": _documents(attributes),
        "finish_reason": _first(attributes, FINISH),
    }
    return {name: value for name, value in found.items() if value not in ("", None)}


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in present(attributes, names):
        value = attributes.get(name)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return ", ".join(value)
        if value not in (None, "", [], {}):
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return ""


def _decoded(value: Any) -> Any:
    """Return a JSON text as what it says; content comes as text on spans and structured on log records."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _messages(value: Any, *, role: str) -> str:
    """Return the text of the last message of a role, or an empty text."""
    messages = _decoded(value)
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role", role) == role:
            parts = message.get("parts", message.get("content", ""))
            text = parts if isinstance(parts, str) else "\n".join(_part_texts(parts))
            if text:
                return text
    return ""


def _part_texts(parts: Any) -> Iterable[str]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and part.get("type") == "text":
            content = part.get("content", part.get("text", ""))
            if isinstance(content, str):
                yield content


def _indexed_messages(attributes: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Return, per flattened list, the message with the highest index: indices are compared, never allocated."""
    last: dict[str, tuple[int, str]] = {}
    for key, match in matching(attributes, _MESSAGE):
        value = attributes[key]
        if isinstance(value, str) and value:
            index = int(match[2])
            if index >= last.get(match[1], (-1, ""))[0]:
                last[match[1]] = (index, value)
    return last


def _last(indexed: Mapping[str, tuple[int, str]], prefixes: Iterable[str]) -> str:
    for prefix in prefixes:
        if prefix in indexed:
            return indexed[prefix][1]
    return ""


def _documents(attributes: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the retrieved documents in order, or ``None`` when the span tells nothing of any."""
    listed = _decoded(attributes.get("gen_ai.retrieval.documents"))
    if isinstance(listed, list):
        return [dict(item) for item in listed if isinstance(item, Mapping)][:MAX_SLOTS]
    slots: dict[int, dict[str, Any]] = {}
    for key, match in matching(attributes, _DOCUMENT):
        if int(match[1]) in slots or len(slots) < MAX_SLOTS:
            slots.setdefault(int(match[1]), {})[match[2]] = attributes[key]
    return [slots[index] for index in sorted(slots)] or None
