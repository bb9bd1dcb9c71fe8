"""Who asks and for how much: the two things that a decision is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from opsloop.errors import InputError

__all__ = ["PARTS", "SCOPES", "UNITS", "Amounts", "Context", "amount_of", "checked_amounts"]

SCOPES: Final = ("organisation", "tenant", "key", "model", "route")
"""What a limit can be counted by: the fields of a :class:`Context` that name a caller or what is called."""

PARTS: Final = (*SCOPES, "priority")
"""What a limit, an override or a ceiling can choose requests by."""

UNITS: Final = ("requests", "input_tokens", "output_tokens", "tokens", "cost_microusd")
"""What a limit can count."""
_KNOWN: Final = frozenset(UNITS)

Amounts = Mapping[str, int]
"""An estimate or an actual cost: units by name, such as ``{"input_tokens": 900, "output_tokens": 256}``."""


class Context(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who asks for what. A part that is not known is empty; all unknown ones of a scope share one bucket."""

    organisation: str = ""
    tenant: str = ""
    key: str = ""
    """The API key's id or hash. Never the secret itself: it is written into events."""
    model: str = ""
    route: str = ""
    request_id: str = ""
    priority: str = ""
    """The class of the request, such as ``batch``: what a ceiling chooses by. Nothing is counted by it."""


def amount_of(unit: str, amounts: Amounts | None) -> int | None:
    """Return how many of ``unit`` are meant, or ``None`` when nothing is said about it.

    ``tokens`` that are not given are the sum of the input and output tokens that are.

    >>> amount_of("tokens", {"input_tokens": 900, "output_tokens": 100}), amount_of("requests", None)
    (1000, None)
    """
    if not amounts:
        return None
    if unit in amounts:
        return amounts[unit]
    if unit == "tokens" and ("input_tokens" in amounts or "output_tokens" in amounts):
        return amounts.get("input_tokens", 0) + amounts.get("output_tokens", 0)
    return None


def checked_amounts(amounts: Mapping[str, Any], *, name: str) -> Amounts:
    """Return amounts whose units are known and whose numbers are whole and not negative; raise ``InputError`` if not.

    >>> checked_amounts({"tokens": 12}, name="estimate")
    {'tokens': 12}
    """
    for unit, amount in amounts.items():
        if unit in _KNOWN and type(amount) is int and amount >= 0:
            continue
        if unit not in UNITS:
            raise InputError(f"{name} has the unknown unit {unit!r}", fix=f"use one of {', '.join(UNITS)}")
        if not isinstance(amount, int) or isinstance(amount, bool) or amount < 0:
            raise InputError(f"{name}: {unit} is {amount!r}", fix="give a whole number, 0 or more")
    return amounts
