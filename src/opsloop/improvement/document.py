"""Document: YAML that knows on which line everything stands, and reads nothing as something else.

Plain YAML turns ``no`` into false, an ISO time into a date object, and keeps the last of two equal keys. Here times
stay text, only ``true`` and ``false`` are booleans, and a repeated key is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsloop.errors import ConfigError

if TYPE_CHECKING:
    from yaml import Node

__all__ = ["Document", "dump_document", "read_document"]

QUOTE_IT: Final = "in braces, quote a text that holds , : ? or a bracket"
MAX_DEPTH: Final = 32
MAX_PARTS: Final = 100_000
_PATH: Final = re.compile(r"(?P<what>.*) - at `(?P<path>\$[^`]*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_KINDS: Final = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value", "merge")
_TAGS: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)
_BOOLEANS: Final = {"true": True, "false": False}


class Document(msgspec.Struct, frozen=True):
    """A mapping that was read, with the line of each of its parts by path, such as ``$.case.assert[0]``."""

    name: str
    value: dict[str, Any]
    lines: dict[str, int]

    def place(self, path: str) -> str:
        """Return ``file:line`` of a path, or of the nearest part above it that stands in the file."""
        while path not in self.lines and path != "$":
            path = path[: max(path.rfind("."), path.rfind("["))] or "$"
        return f"{self.name}:{self.lines.get(path, 1)}"

    def error(self, message: str) -> ConfigError:
        """Return the error for a validation message that ends in ``- at `$.path```."""
        match = _PATH.fullmatch(message)
        what, path = (match["what"], match["path"]) if match else (message, "$")
        unknown = _UNKNOWN.fullmatch(what)
        if unknown:
            place = self.place(f"{path}.{unknown['key']}")
            return ConfigError(
                f"{place}: unknown key {unknown['key']!r}", fix="start your own keys with x-, at the top"
            )
        named = "" if path == "$" else f"{path.removeprefix('$.')}: "
        return ConfigError(f"{self.place(path)}: {named}{what}", fix="see docs/guard.schema.json")


def read_document(text: str, *, name: str) -> Document:
    """Read one YAML mapping. Raises :class:`ConfigError` with the line of what is wrong."""
    yaml = _yaml()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{name}:{line}: not YAML: {getattr(cause, 'problem', cause)}", fix=QUOTE_IT) from cause
    lines: dict[str, int] = {}
    value = _build(node, "$", name, lines, 0) if node is not None else None
    if not isinstance(value, dict):
        raise ConfigError(f"{name}:1: expected a mapping", fix="start with schema: guard/v1")
    return Document(name, value, lines)


def _build(node: Node, path: str, name: str, lines: dict[str, int], depth: int) -> Any:
    yaml = _yaml()
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if node.tag not in _TAGS:
        raise ConfigError(f"{name}:{line}: the tag {node.tag} is not allowed", fix="remove the tag")
    if depth > MAX_DEPTH or len(lines) > MAX_PARTS:
        raise ConfigError(f"{name}:{line}: too deep or too large", fix="remove the aliases that multiply it")
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, path, name, lines, depth)
    if isinstance(node, yaml.SequenceNode):
        return [_build(part, f"{path}[{i}]", name, lines, depth + 1) for i, part in enumerate(node.value)]
    return _scalar(node)


def _build_mapping(node: Node, path: str, name: str, lines: dict[str, int], depth: int) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not isinstance(key, str) or key == "<<":
            raise ConfigError(f"{name}:{line}: a key is plain text", fix="write out what the merge would copy")
        if key in built:
            raise ConfigError(f"{name}:{line}: the key {key!r} stands twice", fix="keep one of them")
        lines[f"{path}.{key}"] = line
        built[key] = _build(value_node, f"{path}.{key}", name, lines, depth + 1)
    return built


def _scalar(node: Node) -> Any:
    text: str = node.value
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if kind == "int" and re.fullmatch("[-+]?[0-9]+", text):
        return int(text)
    if kind == "float":
        try:
            return float(text)
        except ValueError:
            return text
    return text


def dump_document(value: dict[str, Any]) -> str:
    """Return a mapping as YAML in its own order, every text so that :func:`read_document` reads it back as it was."""
    text: str = _yaml().safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return text


def _yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415 - only who reads a guard file needs YAML
    except ImportError as cause:
        raise ConfigError("guard files need PyYAML", fix="pip install 'opsloop[guards]'") from cause
    return yaml
