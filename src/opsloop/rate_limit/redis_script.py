"""What goes to Redis and what comes back: one script call for each operation, as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final, Literal, Protocol, TypeVar, cast

import msgspec

from opsloop.errors import StoreError

__all__ = [
    "ASKING",
    "SOURCES",
    "Answer",
    "Carrier",
    "Closed",
    "Script",
    "ScriptName",
    "bulk",
    "merged",
    "read",
    "split",
    "stream",
    "together",
    "wire",
    "wire_source",
]

T = TypeVar("T")


class Carrier(Protocol):
    """What a driver makes of a script: the call that it has to make."""

    @property
    def script(self) -> Script:
        """The script to run."""
        ...


C = TypeVar("C", bound=Carrier)
ScriptName = Literal["admit", "close"]
ARGUMENTS: Final[Mapping[ScriptName, int]] = {"admit": 3, "close": 1}
"""What each script is told about one request."""
LUA: Final = resources.files("opsloop.rate_limit")
SOURCES: Final[dict[ScriptName, str]] = {
    name: LUA.joinpath("count.lua").read_text("utf-8") + LUA.joinpath(f"{name}.lua").read_text("utf-8")
    for name in ("admit", "close")
}
SHAS: Final[Mapping[ScriptName, str]] = {
    name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for name, source in SOURCES.items()
}
"""Under these names a server keeps the scripts."""
ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"
"""Goes before a call to a node that is just being given its slot."""
MERGED: Final = 32
"""Requests in one call, which no other client of the server can interrupt."""
SHORT: Final = 16
"""An array with fewer values has a head of one byte in msgpack, a longer one of three."""


class Script(msgspec.Struct, frozen=True, gc=False):
    """One call of a script, for a driver to make; the reply is what the script returned."""

    name: ScriptName
    place: bytes
    """One of its keys: all of them lie where it does."""
    key_count: int
    keys: bytes
    """As they go over the wire."""
    arguments: bytes
    """As they go over the wire."""
    undo: Callable[[bytes], Script] | None = None
    """What takes an admission back, by its reply, when nobody waits for it. Without one it has to run anyway."""
    requests: int = 1
    """How many it deals with."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What an admission answered: the server's time and, in the order of the keys, levels and waits."""

    now_us: int
    levels: tuple[int, ...] = ()
    waits: tuple[int, ...] = ()
    rests: tuple[int, ...] = ()
    """After a refusal, for each set of slots the time to its last lease's end."""
    slices: tuple[int, ...] = ()
    """After a yes, for each rolling quota the number of the slice that was charged."""


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """What the end or the renewal of a reservation answered."""

    now_us: int
    levels: tuple[int, ...]
    """What is left in each count that it changed; -1 where its period or slice is over for good."""
    done: int
    """Slots given back or renewed."""


def together(calls: Iterable[C], *, key: Callable[[C], object]) -> list[list[C]]:
    """Return which calls can be one: those of one script and ``key`` by the dozen, admissions last.

    >>> class Call(msgspec.Struct):
    ...     script: Script
    >>> one, other = Call(Script("admit", b"key", 0, b"", b"")), Call(Script("close", b"key", 0, b"", b""))
    >>> together([one, other, one], key=lambda call: 0) == [[other], [one, one]]
    True
    """
    kinds: dict[ScriptName, dict[object, list[C]]] = {"close": {}, "admit": {}}
    for call in calls:
        kinds[call.script.name].setdefault(key(call), []).append(call)
    groups = [group for kind in kinds.values() for group in kind.values()]
    return [group[at : at + MERGED] for group in groups for at in range(0, len(group), MERGED)]


def merged(scripts: Sequence[Script]) -> Script:
    """Return one call for several of one kind; the server deals with one after the other."""
    return Script(
        scripts[0].name,
        scripts[0].place,
        sum([script.key_count for script in scripts]),
        b"".join([script.keys for script in scripts]),
        b"".join([script.arguments for script in scripts]),
        requests=len(scripts),
    )


def split(reply: bytes, count: int) -> list[bytes]:
    """Return the replies in the reply to a merged call."""
    if count == 1:
        return [reply]
    replies = []
    start = 0
    for _ in range(count):
        end = start + 4 + int.from_bytes(reply[start : start + 4], "little")
        replies.append(reply[start + 4 : end])
        start = end
    return replies


def read(reply: bytes, form: type[T]) -> T:
    """Read what follows a reply's letter. Raises :class:`StoreError` for what no script of ours says."""
    try:
        return cast("T", _DECODERS[form].decode(reply[1:]))
    except msgspec.DecodeError as cause:
        raise StoreError("Redis answered what no script of ours says", fix="is the server really Redis?") from cause


def wire(script: Script) -> bytes:
    r"""Return a call by the script's name as it goes over the wire (RESP): its head is one of a few.

    >>> wire(Script("close", b"key", 1, bulk(b"key"), bulk(b"argument")))[-30:]
    b'$1\r\n1\r\n$3\r\nkey\r\n$8\r\nargument\r\n'
    """
    shape = (script.name, script.key_count, script.requests)
    head = _HEADS.get(shape)
    if head is None:
        head = _HEADS[shape] = _head(script, b"EVALSHA", SHAS[script.name])
    return head + script.keys + script.arguments


def wire_source(script: Script) -> bytes:
    """Return the call with the script's text, for a server that does not know it; it knows it from then on."""
    return _head(script, b"EVAL", SOURCES[script.name]) + script.keys + script.arguments


def bulk(part: bytes) -> bytes:
    r"""Return a part of a command as it goes over the wire.

    >>> bulk(b"key")
    b'$3\r\nkey\r\n'
    """
    return b"$%d\r\n%b\r\n" % (len(part), part)


def stream(values: Sequence[object]) -> bytes:
    r"""Return values as msgpack one after the other, which a script takes apart without a table for each list of them.

    >>> stream((1, True, "name"))
    b'\x01\xc3\xa4name'
    """
    packed = _encode(values)
    return packed[1 if len(values) < SHORT else 3 :]


def _head(script: Script, command: bytes, text: str) -> bytes:
    """Return the part of a call that stands before its keys."""
    count = 3 + script.key_count + script.requests * ARGUMENTS[script.name]
    return b"*%d\r\n" % count + b"".join(map(bulk, (command, text.encode(), b"%d" % script.key_count)))


_encode = msgspec.msgpack.Encoder().encode
_DECODERS: Final[dict[type, msgspec.msgpack.Decoder[Any]]] = {
    form: msgspec.msgpack.Decoder(form) for form in (Answer, Closed)
}
_HEADS: Final[dict[tuple[ScriptName, int, int], bytes]] = {}
