"""What was asked, answered and retrieved: the texts of a span under our names ``input``, ``output``, ``documents``.

Rule
    ``input`` is the last thing that the user said, ``output`` what the model answered, as text; an answer that only
    calls tools is written as ``name(arguments)``, one call a line. Where a sender gives the provider's request and
    answer as JSON, the text is taken out of it; JSON of any other shape stays as it came.
    Of a text that is passed on nothing is asked but whether it is empty: :mod:`opsloop.ingest.frames` relies on that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from opsloop.ingest.attributes import Name, of_names, present

__all__ = ["ContentReader", "content_of", "values_of"]


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
NAMES: Final = frozenset(
    {*INPUT, *OUTPUT, *STRUCTURED, *(name if isinstance(name, str) else str(name[0]) for name in FINISH)}
)
"""Every name that content is looked for in, besides those that :data:`INDEXED` matches."""
MAX_SLOTS: Final = 10_000
_DECODE: Final = msgspec.json.Decoder().decode
_DOCUMENT: Final = re.compile(r"retrieval\.documents\.(\d{1,6})\.document\.(id|score|content)")
_MESSAGE: Final = re.compile(
    r"(gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages)\.(\d{1,6})\.(?:message\.)?content"
)
INDEXED: Final = re.compile(f"{_DOCUMENT.pattern}|{_MESSAGE.pattern}")
"""The names with an index in them."""

Way = tuple[Callable[[Any], str], str]
"""What makes a text of an attribute's value, or an empty one, and the attribute's name."""


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
        if isinstance(value, dict):
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
    return of_names(attributes, ContentReader).read(attributes, kind=kind)


class ContentReader:
    """Reads the content of records that all have the same names: which of them may hold it is found once."""

    def __init__(self, names: Iterable[str]) -> None:
        """Find what there is to look at in attributes of these names."""
        self.names = names = list(names)
        indexed = _indexed_names(names)
        asked: list[Way] = [
            *((_asked, name) for name in ("gen_ai.input.messages",) if name in names),
            *((_text_alone, name) for prefix in INDEXED_INPUT for name in indexed.get(prefix, ())),
            *((_spoken_by_user, name) for name in INPUT if name in names),
        ]
        answered: list[Way] = [
            *((_answered, name) for name in ("gen_ai.output.messages",) if name in names),
            *((_text_alone, name) for prefix in INDEXED_OUTPUT for name in indexed.get(prefix, ())),
        ]
        spoken: list[Way] = [(_spoken_by_assistant, name) for name in OUTPUT if name in names]
        finish: list[Way] = [
            (_reason, name) if isinstance(name, str) else (partial(_reason_inside, name[1:]), str(name[0]))
            for name in FINISH
            if (name if isinstance(name, str) else name[0]) in names
        ]
        self._ways = {"input": asked, "output": answered + spoken, "finish_reason": finish}
        self._ways_of_embed = {"input": asked, "output": answered, "finish_reason": finish}
        self.slots = _slots(names)
        """Document by document in order, which attribute holds which of its fields."""
        self.is_listed = "gen_ai.retrieval.documents" in names
        """Whether an attribute may hold all documents, before which ``slots`` do not count."""
        self._answers = any(name in names for name in OUTPUT)

    def ways(self, kind: str) -> Mapping[str, list[Way]]:
        """Return how each text is found: the first way that makes any text of its attribute's value counts."""
        return self._ways_of_embed if kind == "embed" else self._ways

    def read(self, attributes: Mapping[str, Any], *, kind: str = "") -> dict[str, Any]:
        """Return the content of one record, see :func:`content_of`."""
        found: dict[str, Any] = {}
        for field, ways in self.ways(kind).items():
            for way, name in ways:
                if text := way(attributes[name]):
                    found[field] = text
                    break
        documents = self.documents(attributes, kind=kind)
        if documents is not None:
            found["documents"] = documents
        return found

    def documents(self, attributes: Mapping[str, Any], *, kind: str) -> list[dict[str, Any]] | None:
        """Return the retrieved documents in order, or ``None`` when the record tells nothing of any."""
        listed = _decoded(attributes["gen_ai.retrieval.documents"]) if self.is_listed else None
        if isinstance(listed, list):
            return [dict(item) for item in listed if isinstance(item, dict)][:MAX_SLOTS]
        if self.slots:
            return [{field: attributes[name] for field, name in slot.items()} for slot in self.slots]
        return _answered_documents(attributes) if kind == "retrieve" and self._answers else None


def _asked(value: Any) -> str:
    return _messages(value, role="user")


def _answered(value: Any) -> str:
    return _messages(value, role="assistant")


def _text_alone(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _spoken_by_user(value: Any) -> str:
    return _spoken(value, role="user")


def _spoken_by_assistant(value: Any) -> str:
    return _spoken(value, role="assistant")


def _spoken(value: Any, *, role: str) -> str:
    """Return what the role said where the value is a provider's JSON, else all of it."""
    value = _unquoted(value)
    if value in (None, "", "null", "{}", "[]", [], {}):
        return ""
    said = _said(value, role=role)
    if said is None:
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return said


def _said(value: Any, *, role: str) -> str | None:
    """Return what a role said in messages, or in a provider's request or answer; ``None`` where it is none of these."""
    if isinstance(value, str) and value[:1] not in {"{", "["}:
        return None
    tree = _decoded(value)
    if isinstance(tree, dict):
        choices = tree.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
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
    spoken = all(isinstance(item, dict) and "role" in item for item in tree)
    return _messages(tree, role=role) if spoken else None


def _reason(value: Any) -> str:
    return _reasons(_unquoted(value))


def _reason_inside(path: Iterable[str | int], value: Any) -> str:
    return _reasons(_inside(_decoded(value), path))


def _reasons(value: Any) -> str:
    """Return why the model stopped, of several answers one after the other."""
    reasons = _decoded(value, value) if isinstance(value, str) and value.startswith("[") else value
    if isinstance(reasons, list):
        reasons = ", ".join([item for item in reasons if isinstance(item, str)])
    return reasons if isinstance(reasons, str) else ""


def _unquoted(value: Any) -> Any:
    return _decoded(value, value) if isinstance(value, str) and value[:1] == '"' == value[-1:] else value


def _decoded(value: Any, otherwise: Any = None) -> Any:
    """Return a JSON text as what it says; content comes as text on spans and structured on log records."""
    if not isinstance(value, str):
        return value
    try:
        return _DECODE(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return otherwise


def _messages(value: Any, *, role: str) -> str:
    """Return the text of the last message of a role, or an empty text."""
    messages = _decoded(value)
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role", role) == role:
            parts = message.get("parts", message.get("content", ""))
            text = parts if isinstance(parts, str) else _part_texts(parts)
            text = text or "\n".join(_calls(parts)) or "\n".join(_calls(message.get("tool_calls")))
            if text:
                return text
    return ""


def _part_texts(parts: Any) -> str:
    """Return the texts among the parts of a message, a line each."""
    if not isinstance(parts, list):
        return ""
    spoken = [part for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    texts = [part["content"] if "content" in part else part.get("text", "") for part in spoken]
    return "\n".join([text for text in texts if isinstance(text, str)])


def _calls(parts: Any) -> Iterable[str]:
    """Yield the tool calls of a message, of the conventions or of OpenAI, each as ``name(arguments)``."""
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict) or part.get("type") not in {"tool_call", "function"}:
            continue
        call = part.get("function", part)
        if isinstance(call, dict) and isinstance(call.get("name"), str):
            given = call.get("arguments", "")
            yield f"{call['name']}({given if isinstance(given, str) else msgspec.json.encode(given).decode()})"


def _indexed_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Return, per flattened list, the names of its messages, the last message first: indices are only compared."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for place, name in enumerate(names):
        if match := _MESSAGE.fullmatch(name):
            found.setdefault(match[1], []).append((int(match[2]), place, name))
    return {prefix: [name for *_, name in sorted(those, reverse=True)] for prefix, those in found.items()}


def _slots(names: Iterable[str]) -> list[dict[str, str]]:
    """Return, document by document in order, which attribute holds which of its fields."""
    slots: dict[int, dict[str, str]] = {}
    for name in names:
        match = _DOCUMENT.fullmatch(name)
        if match and (int(match[1]) in slots or len(slots) < MAX_SLOTS):
            slots.setdefault(int(match[1]), {})[match[2]] = name
    return [slots[index] for index in sorted(slots)]


def _answered_documents(attributes: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the documents that a retrieval gives as its plain output: a list of objects, empty for none found."""
    for name in OUTPUT:
        listed = _decoded(attributes.get(name))
        if isinstance(listed, list) and all(isinstance(item, dict) for item in listed):
            return [
                {ours: item[theirs] for theirs, ours in DOCUMENT_FIELDS.items() if theirs in item} or dict(item)
                for item in listed[:MAX_SLOTS]
            ]
    return None
