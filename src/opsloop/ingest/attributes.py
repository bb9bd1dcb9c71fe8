"""Attributes that remember their shape: which names they have, and so which of a table's names need no look.

Rule
    The spans of one instrumentation all have the same few names in the same order. So what depends on the names alone
    is found once per shape and kept: of ten names that may hold a model, the one or two that are there. Skipping a
    name that is absent changes nothing, since an absent name never wins; the values are looked at every time.
Limits
    Shapes are remembered up to :data:`MOST_SHAPES`; names with an index in them can make any number of shapes, so the
    memory is emptied then and filled anew. A plain mapping works everywhere too, only slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

__all__ = ["MOST_SHAPES", "Attributes", "Name", "of_names", "present"]

T = TypeVar("T")

Name = str | tuple[str | int, ...]
"""An attribute's name, or a path into an attribute that holds JSON: its name, then keys and positions."""

MOST_SHAPES: Final = 1024


class _Shape(dict[Any, Any]):
    """What follows from one tuple of names: by table the names that are there, and more."""


_SHAPES: dict[tuple[str, ...], _Shape] = {}


class Attributes(dict[str, Any]):
    """The attributes of one record, complete and not to be changed any more.

    >>> present(Attributes({"llm.model_name": "m", "other": 1}), ("gen_ai.request.model", "llm.model_name"))
    ('llm.model_name',)
    """

    __slots__ = ("shape",)

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        """Take the values, and the shape that others with the same names have."""
        super().__init__(values)
        names = tuple(self)
        shape = _SHAPES.get(names)
        if shape is None:
            if len(_SHAPES) >= MOST_SHAPES:
                _SHAPES.clear()
            shape = _SHAPES[names] = _Shape()
        self.shape = shape


def present(attributes: Mapping[Any, Any], names: tuple[Name, ...]) -> tuple[Name, ...]:
    """Return those of ``names`` that the attributes have, in the order of ``names``; of a plain mapping, all names.

    A path is there when its attribute is.
    """
    if not isinstance(attributes, Attributes):
        return names
    found: tuple[Name, ...] | None = attributes.shape.get(names)
    if found is None:
        found = attributes.shape[names] = tuple(
            name for name in names if (name if isinstance(name, str) else name[0]) in attributes
        )
    return found


def of_names(attributes: Mapping[str, Any], make: Callable[[Mapping[str, Any]], T]) -> T:
    """Return what ``make`` makes of the attributes' names; it must not look at their values."""
    if not isinstance(attributes, Attributes):
        return make(attributes)
    if make not in attributes.shape:
        attributes.shape[make] = make(attributes)
    made: T = attributes.shape[make]
    return made
