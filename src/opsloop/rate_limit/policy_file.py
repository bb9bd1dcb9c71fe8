"""A policy file: ``[[limit]]`` tables in TOML, refused with the line of what is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from opsloop.errors import ConfigError
from opsloop.rate_limit.policy import Policy, policy_from_settings
from opsloop.settings import LimitSettings

__all__ = ["load_policy", "read_policy"]

HEADER: Final = re.compile(r"^\s*\[\[\s*limit\s*\]\]")
NESTED: Final = re.compile(r"^\s*\[\[\s*limit\s*\.\s*(?P<name>override|ceiling)\s*\]\]")
PLACE: Final = re.compile(
    r"at `\$\[(?P<index>\d+)\](?:\.(?P<list>override|ceiling)\[(?P<number>\d+)\])?(?:\.(?P<key>\w+))?"
)
CASE: Final = re.compile(r"(?P<list>override|ceiling) (?P<number>\d+)\b")
SEE: Final = "see docs/rate_limit.md"


def load_policy(path: str | Path) -> Policy:
    """Read and compile the ``[[limit]]`` tables of a file; raise :class:`ConfigError` with file, line and remedy.

    The file may be a whole settings file: its other tables are not looked at. Without any limit everything is admitted.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as cause:
        raise ConfigError(f"cannot read {file}: {cause.strerror}", fix="check the path") from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(f"{file} is not UTF-8", fix="save it as UTF-8") from cause
    return read_policy(text, name=str(file))


def read_policy(text: str, *, name: str = "policy") -> Policy:
    r"""Compile the ``[[limit]]`` tables of a text; ``name`` stands in front of the line in a message.

    >>> read_policy('[[limit]]\nid = "rpm"\nlever = "rate"\namount = 60').limits[0].spelled()
    '60 requests per minute'
    >>> read_policy('[[limit]]\nid = "rpm"\nlever = "rate"\namount = 0')
    Traceback (most recent call last):
    opsloop.errors.ConfigError: policy:4: Expected `int` >= 1 - at `$[0].amount`; see docs/rate_limit.md
    """
    try:
        tables = tomllib.loads(text).get("limit", [])
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"{name} is not TOML: {cause}", fix="mend the line it names") from cause
    try:
        limits = msgspec.convert(tables, tuple[LimitSettings, ...])
    except msgspec.ValidationError as cause:
        raise ConfigError(f"{name}{_place(text, str(cause))}: {cause}", fix=SEE) from cause
    seen: dict[str, int] = {}
    for index, limit in enumerate(limits):
        where = f"{name}{_line(text, index)}"
        if limit.id in seen:
            first = _line(text, seen[limit.id]).removeprefix(":")
            message = f"{where}: limit {limit.id!r} is there already, in line {first}"
            raise ConfigError(message, fix="give each its own id")
        seen[limit.id] = index
        try:
            policy_from_settings([limit])
        except ConfigError as cause:
            case = CASE.search(cause.message)
            place = _line(text, index, **_nested(case)) if case else _key_line(text, index, str(cause))
            raise ConfigError(f"{name}{place}: {cause.message}", fix=cause.fix) from cause
    return policy_from_settings(limits)


def _nested(found: re.Match[str], *, counted_from: int = 1) -> dict[str, Any]:
    return {"nested": found["list"], "number": int(found["number"]) - counted_from}


def _place(text: str, message: str) -> str:
    """Return ``:line`` of the value that msgspec's path names, as near as the text tells."""
    found = PLACE.search(message)
    if found is None:
        return ""
    nested: Mapping[str, Any] = _nested(found, counted_from=0) if found["list"] else {}
    return _line(text, int(found["index"]), key=found["key"] or "", **nested)


def _key_line(text: str, index: int, message: str) -> str:
    """Return ``:line`` of the first key of a table that a message names, else of the table."""
    for word in re.findall(r"\w+", message.partition(": ")[2]):
        place = _line(text, index, key=word)
        if word not in {"id", "limit"} and place != _line(text, index):
            return place
    return _line(text, index)


def _line(text: str, index: int, *, key: str = "", nested: str = "", number: int = 0) -> str:
    """Return ``:line`` of a table's header, or of a key in it; nothing where tables are not written with headers."""
    table, case, header = -1, -1, ""
    for line_number, line in enumerate(text.splitlines(), start=1):
        if HEADER.match(line):
            table, case = table + 1, -1
        inner = NESTED.match(line)
        if inner and inner["name"] == nested:
            case += 1
        inside = table == index and (not nested or case == number)
        if not inside:
            if header:
                break
            continue
        if not header:
            header = f":{line_number}"
        if not key:
            break
        if re.match(rf"\s*{re.escape(key)}\s*=", line):
            return f":{line_number}"
    return header
