"""What was asked, answered and retrieved: the texts of a span under our names ``input``, ``output``, ``documents``.

Rule
    ``input`` is the last thing that the user said, ``output`` what the model answered, as text; an answer that only
    calls tools is written as ``name(arguments)``, one call a line. Where a sender gives the provider's request and
    answer as JSON, the text is taken out of it; JSON of any other shape stays as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from opsloop.ingest.attributes import Name, matching, of_names, present

__all__ = ["content_of", "values_of"]


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
    "pydantic_ai.all_messages",
    "genkit:input",
    "inputs",
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
    "pydantic_ai.all_messages",
    "genkit:output",
    "output",
)
INDEXED_INPUT: Final = ("gen_ai.prompt", "llm.input_messages")
INDEXED_OUTPUT: Final = ("gen_ai.completion", "llm.output_messages")
FINISH: Final[tuple[Name, ...]] = (
    "gen_ai.response.finish_reasons",
    "llm.finish_reason",
    "ai.response.finishReason",
    "langfuse.observation.metadata.finish_reason",
    ("mlflow.spanOutputs", "choices", 0, "finish_reason"),
)
DOCUMENT_FIELDS: Final[Mapping[str, str]] = {
    "id": "id",
    "score": "score",
    "content": "content",
    "page_content": "content",
    "text": "content",
}
"""What retrievers call the fields of a document, and what we do."""
STRUCTURED: Final = frozenset({"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.retrieval.documents"})
"""Names whose values are more than one text."""
MAX_SLOTS: Final = 10_000
_DOCUMENT: Final = re.compile(r"retrieval\.documents\.(\d{1,6})\.document\.(id|score|content)")
_MESSAGE: Final = re.compile(
    r"(gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages)\.(\d{1,6})\.(?:message\.)?content"
)


def values_of(attributes: Mapping[Any, Any], names: tuple[Name, ...]) -> Iterable[Any]:
    """Return the value of each name that is there, in the names' order; a text in JSON quotes is what it quotes.

    >>> list(values_of({"usage": '{"input": 9}', "model": '"gpt-4o"'}, ("tokens", ("usage", "input"), "model")))
    [9, 'gpt-4o']
    """
    found = present(attributes, names)
    return _values(attributes, found) if found else ()


def _values(attributes: Mapping[Any, Any], names: tuple[Name, ...]) -> Iterator[Any]:
    for name in names:
        value = attributes.get(name)
        if value is not None:
            yield _decoded(value, value) if isinstance(value, str) and value[:1] == '"' == value[-1:] else value
        elif not isinstance(name, str) and name[0] in attributes:
            yield _inside(_decoded(attributes[name[0]]), name[1:])


def _inside(value: Any, path: Iterable[str | int]) -> Any:
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def content_of(attributes: Mapping[str, Any], *, kind: str = "") -> dict[str, Any]:
    """Return ``input``, ``output``, ``documents`` and ``finish_reason`` as far as the attributes tell them.

    >>> content_of({"gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "Hi"}]}]'})
    {'output': 'Hi'}
    """
    indexed = _indexed_messages(attributes)
    documents = _documents(attributes)
    if documents is None and kind == "retrieve":
        documents = _answered_documents(attributes)
    found: dict[str, Any] = {
        "input": _messages(attributes.get("gen_ai.input.messages"), role="user")
        or _last(indexed, INDEXED_INPUT)
        or _spoken(attributes, INPUT, role="user"),
        "output": _messages(attributes.get("gen_ai.output.messages"), role="assistant")
        or _last(indexed, INDEXED_OUTPUT)
        or ("" if kind == "embed" else _spoken(attributes, OUTPUT, role="assistant")),
        "documents": documents,
        "finish_reason": _finish_reason(attributes),
    }
    return {name: value for name, value in found.items() if value not in ("", None)}


def _spoken(attributes: Mapping[str, Any], names: tuple[str, ...], *, role: str) -> str:
    """Return the first text that is not empty: what the role said where the text is a provider's JSON, else all."""
    for value in values_of(attributes, names):
        if value in (None, "", "null", "{}", "[]", [], {}):
            continue
        said = _said(value, role=role)
        if said is None:
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if said:
            return said
    return ""


def _said(value: Any, *, role: str) -> str | None:
    """Return what a role said in messages, or in a provider's request or answer; ``None`` where it is none of these."""
    if isinstance(value, str) and value[:1] not in {"{", "["}:
        return None
    tree = _decoded(value)
    if isinstance(tree, Mapping):
        choices = tree.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
            tree = [choices[0].get("message")]
        elif isinstance(tree.get("messages"), list):
            tree = tree["messages"]
        elif "role" in tree:
            tree = [tree]
        else:
            asked = tree.get("input") if "model" in tree else None  # what is to be embedded
            return asked if isinstance(asked, str) else None
    if not isinstance(tree, list) or not tree:
        return None
    if len(tree) == 1 and isinstance(tree[0], str):
        return tree[0]
    spoken = all(isinstance(item, Mapping) and "role" in item for item in tree)
    return _messages(tree, role=role) if spoken else None


def _finish_reason(attributes: Mapping[str, Any]) -> str:
    for value in values_of(attributes, FINISH):
        reasons = _decoded(value, value) if isinstance(value, str) and value.startswith("[") else value
        if isinstance(reasons, list):
            reasons = ", ".join(item for item in reasons if isinstance(item, str))
        if reasons and isinstance(reasons, str):
            return reasons
    return ""


def _decoded(value: Any, otherwise: Any = None) -> Any:
    """Return a JSON text as what it says; content comes as text on spans and structured on log records."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return otherwise


def _messages(value: Any, *, role: str) -> str:
    """Return the text of the last message of a role, or an empty text."""
    messages = _decoded(value)
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role", role) == role:
            parts = message.get("parts", message.get("content", ""))
            text = parts if isinstance(parts, str) else "\n".join(_part_texts(parts))
            text = text or "\n".join(_calls(parts)) or "\n".join(_calls(message.get("tool_calls")))
            if text:
                return text
    return ""


def _part_texts(parts: Any) -> Iterable[str]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and part.get("type") == "text":
            content = part.get("content", part.get("text", ""))
            if isinstance(content, str):
                yield content


def _calls(parts: Any) -> Iterable[str]:
    """Yield the tool calls of a message, of the conventions or of OpenAI, each as ``name(arguments)``."""
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, Mapping) or part.get("type") not in {"tool_call", "function"}:
            continue
        call = part.get("function", part)
        if isinstance(call, Mapping) and isinstance(call.get("name"), str):
            given = call.get("arguments", "")
            yield f"{call['name']}({given if isinstance(given, str) else msgspec.json.encode(given).decode()})"


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
    slots = of_names(attributes, _slots)
    return [{field: attributes[name] for field, name in slot.items()} for slot in slots] or None


def _slots(attributes: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return, document by document in order, which attribute holds which of its fields."""
    slots: dict[int, dict[str, str]] = {}
    for name, match in matching(attributes, _DOCUMENT):
        if int(match[1]) in slots or len(slots) < MAX_SLOTS:
            slots.setdefault(int(match[1]), {})[match[2]] = name
    return [slots[index] for index in sorted(slots)]


def _answered_documents(attributes: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the documents that a retrieval gives as its plain output: a list of objects, empty for none found."""
    for name in OUTPUT:
        listed = _decoded(attributes.get(name))
        if isinstance(listed, list) and all(isinstance(item, Mapping) for item in listed):
            return [
                {ours: item[theirs] for theirs, ours in DOCUMENT_FIELDS.items() if theirs in item} or dict(item)
                for item in listed[:MAX_SLOTS]
            ]
    return None
