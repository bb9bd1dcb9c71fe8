"""Which server a call goes to: the one that is named, the master that Sentinels name, or who holds a Cluster's slot.

A route remembers what it was told and says whom to ask; the drivers ask. The clients of the redis package do the same,
and then sleep for a quarter of a second or try for longer than a request may wait, so here their connections are used
and not their routing.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError

from opsloop.rate_limit.redis_script import Script
from opsloop.rate_limit.redis_url import Address

__all__ = ["HOPS", "Node", "Route"]

Node: TypeAlias = tuple[str, int]
HOPS: Final = 5
"""Servers that are tried for one call, should each of them name another."""
LOST: Final = (ReadOnlyError, ClusterDownError, redis.ConnectionError, redis.TimeoutError, OSError)
"""What a server says, or does, that is not in charge any more."""
READ_ONLY: Final = "READONLY"
"""Stands somewhere in the complaint of a script that was not allowed to write."""


class Route:
    """Where the calls of one address go. Safe between threads: each entry is replaced as a whole."""

    def __init__(self, address: Address) -> None:
        """Know no more than the address."""
        self._address = address
        self._spread = address.kind == "cluster"
        self._fixed: Node | None = (address.nodes or (("", 0),))[0] if address.kind == "server" else None
        self._master: Node | None = None
        self._slots: dict[int, Node] = {}
        self._nodes: tuple[Node, ...] = ()
        self._silent: set[Node] = set()
        self.question: tuple[str, ...] = (
            ("CLUSTER", "SLOTS") if self._spread else ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.name)
        )
        """What has to be asked when nothing is known."""

    def place(self, script: Script) -> int:
        """Return the slot of a call, by which it is sent; 0 for all where slots do not matter."""
        return key_slot(script.place) if self._spread else 0

    def node(self, place: int) -> Node | None:
        """Return who is in charge, as far as that is known."""
        if self._fixed is not None:
            return self._fixed
        return self._slots.get(place) if self._spread else self._master

    def witnesses(self) -> tuple[Node, ...]:
        """Return whom to ask, one after the other until one knows; who did not answer last time comes last."""
        known = dict.fromkeys((*self._nodes, *self._address.nodes))
        return tuple(sorted(known, key=self._silent.__contains__))

    def silent(self, witness: Node) -> None:
        """Note that a witness did not answer."""
        self._silent.add(witness)

    def learn(self, answer: Any, witness: Node) -> None:
        """Take in the answer to :attr:`question`; one that names nobody teaches nothing."""
        self._silent.discard(witness)
        if not self._spread:
            self._master = _node(answer, witness) if answer else None
            return
        slots: dict[int, Node] = {}
        nodes: list[Node] = []
        for first, last, master, *replicas in answer:
            slots.update(dict.fromkeys(range(first, last + 1), _node(master, witness)))
            nodes += [_node(each, witness) for each in (master, *replicas)]
        self._slots = slots
        self._nodes = tuple(dict.fromkeys(nodes))

    def after(self, error: Exception, node: Node) -> tuple[Node | None, bool]:
        """Return where to try next, if that is known, and whether to say ASKING there; raise what is final."""
        if isinstance(error, MovedError):
            self._slots[error.slot_id] = (error.host or node[0], error.port)
            return self._slots[error.slot_id], False
        if isinstance(error, AskError):
            return (error.host or node[0], error.port), True
        if not (isinstance(error, LOST) or READ_ONLY in str(error)):
            raise error
        self.lost(node)
        if self._fixed is not None or isinstance(error, (redis.TimeoutError, TimeoutError)):
            raise error
        return None, False

    def lost(self, node: Node) -> None:
        """Ask again about whatever this one was in charge of."""
        self._master = None
        self._slots = {slot: holder for slot, holder in self._slots.items() if holder != node}
        self._nodes = tuple(other for other in self._nodes if other != node)


def _node(told: Any, witness: Node) -> Node:
    """Read a host and a port; a node that does not know its own host means the one that was asked."""
    host = told[0].decode() if isinstance(told[0], bytes) else told[0]
    return host or witness[0], int(told[1])
