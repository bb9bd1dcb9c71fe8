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
    "bulks",
    "merged",
    "read",
    "split",
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


class Script(msgspec.Struct, frozen=True, gc=False):
    """One call of a script, for a driver to make; the reply is what the script returned."""

    name: ScriptName
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]
    undo: Callable[[bytes], Script] | None = None
    """What takes an admission back, by its reply, when nobody waits for it. Without one it has to run anyway."""
    packed: bytes = b""
    """The keys as they go over the wire, where they were packed before."""


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
    >>> one, other = Call(Script("admit", (b"key",), (b"", b""))), Call(Script("close", (b"key",), (b"",)))
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
        tuple([key for script in scripts for key in script.keys]),
        tuple([argument for script in scripts for argument in script.arguments]),
        packed=b"".join([script.packed or bulks(script.keys) for script in scripts]),
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
    r"""Return a call by the script's name as it goes over the wire (RESP): its shape is always the same.

    >>> wire(Script("close", (b"key",), (b"argument",)))[-23:]
    b'$3\r\nkey\r\n$8\r\nargument\r\n'
    """
    keys, arguments = script.keys, script.arguments
    shape = (script.name, len(keys), len(arguments))
    head = _HEADS.get(shape)
    if head is None:
        count = str(len(keys))
        text = f"*{3 + len(keys) + len(arguments)}\r\n$7\r\nEVALSHA\r\n$40\r\n{SHAS[script.name]}\r\n"
        head = _HEADS[shape] = f"{text}${len(count)}\r\n{count}\r\n".encode()
    return head + (script.packed or bulks(keys)) + bulks(arguments)


def wire_source(script: Script) -> bytes:
    """Return the call with the script's text, for a server that does not know it; it knows it from then on."""
    keys, arguments = script.keys, script.arguments
    parts = (b"EVAL", SOURCES[script.name].encode(), b"%d" % len(keys), *keys, *arguments)
    return b"*%d\r\n%b" % (len(parts), bulks(parts))


def bulks(parts: Iterable[bytes]) -> bytes:
    r"""Return parts of a command as they go over the wire.

    >>> bulks((b"key", b""))
    b'$3\r\nkey\r\n$0\r\n\r\n'
    """
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


_DECODERS: Final[dict[type, msgspec.msgpack.Decoder[Any]]] = {
    form: msgspec.msgpack.Decoder(form) for form in (Answer, Closed)
}
_HEADS: Final[dict[tuple[ScriptName, int, int], bytes]] = {}
