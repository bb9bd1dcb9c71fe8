"""Structure: the answer is valid JSON, and of the wanted shape.

The scorer named ``schema`` asks for valid JSON. :func:`json_shape` makes one for a JSON Schema of the few keywords
that model outputs use; an unknown keyword is refused, because a check that is silently skipped is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from opsloop.errors import ConfigError
from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Judgement, Score, scored

__all__ = ["KEYWORDS", "SCHEMA", "json_shape", "shape_fault"]

KEYWORDS: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "minimum", "maximum", "minItems"}
)
_NOTES: Final = frozenset({"$schema", "$id", "title", "description", "default", "examples"})
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_FENCE: Final = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)


def json_shape(shape: Mapping[str, Any], *, name: str = "schema", version: str = "1") -> Judgement:
    """Return a scorer for answers that must be JSON of this shape. Raises :class:`ConfigError` for a bad shape.

    >>> wanted = json_shape({"type": "object", "required": ["intent"]})
    >>> wanted.score(Answer(request_id="req-A", answer='{"intent": "refund"}')).score
    1.0
    """
    _check(shape, "$")

    def judge(answer: Answer, text: str) -> Score:
        del answer
        return _judge(text, shape)

    return Judgement(name, version, judge)


def shape_fault(value: Any, shape: Mapping[str, Any], *, path: str = "$") -> str:
    """Return the first place where a value departs from a shape, and how; an empty text when it fits.

    >>> shape_fault({"items": [1, "two"]}, {"properties": {"items": {"items": {"type": "integer"}}}})
    '$.items[1] is no integer'
    """
    kinds = shape.get("type")
    if kinds is not None:
        wanted = [kinds] if isinstance(kinds, str) else kinds
        if not any(_is(value, kind) for kind in wanted):
            return f"{path} is no {' or '.join(wanted)}"
    if "enum" in shape and value not in shape["enum"]:
        return f"{path} is none of {msgspec.json.encode(shape['enum']).decode()}"
    if isinstance(value, dict):
        return _object_fault(value, shape, path)
    if isinstance(value, list):
        if len(value) < shape.get("minItems", 0):
            return f"{path} has {len(value)} items, fewer than {shape['minItems']}"
        faults = (shape_fault(v, shape.get("items", {}), path=f"{path}[{i}]") for i, v in enumerate(value))
        return next((fault for fault in faults if fault), "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < shape.get("minimum", value):
            return f"{path} is below {shape['minimum']}"
        if value > shape.get("maximum", value):
            return f"{path} is above {shape['maximum']}"
    return ""


def _object_fault(value: dict[str, Any], shape: Mapping[str, Any], path: str) -> str:
    properties = shape.get("properties", {})
    for key in shape.get("required", ()):
        if key not in value:
            return f"{path}.{key} is missing"
    for key, item in value.items():
        if key in properties:
            fault = shape_fault(item, properties[key], path=f"{path}.{key}")
            if fault:
                return fault
        elif shape.get("additionalProperties") is False:
            return f"{path}.{key} is not wanted"
    return ""


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _check(shape: Any, path: str) -> None:
    if not isinstance(shape, Mapping):
        raise ConfigError(f"shape {path} is no object", fix="write a JSON Schema object")
    unknown = set(shape) - KEYWORDS - _NOTES
    kinds = shape.get("type", [])
    unknown |= {str(kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)} - set(_TYPES)
    if unknown:
        message = f"shape {path} uses {', '.join(sorted(unknown))}, which is not checked here"
        raise ConfigError(message, fix=f"use {', '.join(sorted(KEYWORDS))}")
    for key, inner in shape.get("properties", {}).items():
        _check(inner, f"{path}.{key}")
    if "items" in shape:
        _check(shape["items"], f"{path}[]")


def _judge(text: str, shape: Mapping[str, Any]) -> Score:
    fenced = _FENCE.fullmatch(text)
    try:
        value = msgspec.json.decode(fenced[1] if fenced else text)
    except msgspec.DecodeError as cause:
        return scored(0.0, "invalid", f"no valid JSON: {cause}")
    except RecursionError:
        return scored(0.0, "invalid", "JSON nested too deeply")
    fault = shape_fault(value, shape)
    if fault:
        return scored(0.0, "misshapen", fault)
    return scored(1.0, "valid", "valid JSON of the wanted shape" if shape else "valid JSON")


SCHEMA: Final = json_shape({})
