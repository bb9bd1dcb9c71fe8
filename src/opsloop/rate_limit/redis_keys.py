"""Where limits and reservations lie in Redis: readable keys, no two meanings under one name, and one slot per tree.

A key reads ``opsloop:{tenant=acme}:limit@rate:acme``. What stands in braces is the hash tag: on a Cluster, keys with
the same tag share a slot, and only keys of one slot can be decided upon in one step. The tag is the *root* of the tree
that a limit belongs to, the broadest part of its scope: with limits per organisation, per organisation and tenant, and
per organisation, tenant and key, all of them lie where their organisation lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from opsloop.errors import ConfigError
from opsloop.rate_limit.context import SCOPES
from opsloop.rate_limit.limit import Key, Limit

__all__ = ["Keys"]

EVERYTHING: Final = "{*}"
"""The tag of what belongs to nobody."""
CACHED: Final = 65_536


class Keys:
    """Names keys under a prefix.

    ``root`` names the part of a context that all limits share, ``""`` puts everything into one slot, and ``None`` takes
    each limit's own broadest part. ``spread`` says that slots matter, as on a Cluster.
    """

    def __init__(self, *, prefix: str = "opsloop", root: str | None = None, spread: bool = False) -> None:
        """Check the root. Raises :class:`ConfigError` for one that no request has."""
        if root and root not in SCOPES:
            raise ConfigError(f"root {root!r} is no part of a request", fix=f"use one of {', '.join(SCOPES)}, or ''")
        self.root = root
        self.spread = spread and root != ""
        self._prefix = prefix
        self.ways: dict[object, Any] = {}
        self.recent: dict[int, tuple[object, Any]] = {}
        """What :mod:`opsloop.rate_limit.redis_plan` remembers of callers under these names."""
        self._known: dict[Key, bytes] = {}

    def check(self, limits: Iterable[Limit]) -> None:
        """Refuse limits that one step could not decide upon together, where slots matter."""
        if not self.spread:
            return
        roots: dict[str, str] = {}
        for limit in limits:
            if self.root is not None and self.root not in limit.scope:
                raise ConfigError(
                    f"limit {limit.id!r} is not counted by {self.root}, so it lies in another slot of the Cluster",
                    fix=f"add {self.root!r} to its scope, lease it as permits, or keep everything in one slot: root=''",
                )
            roots.setdefault(self._root_of(limit), limit.id)
        if len(roots) > 1 or "" in roots:
            told = ", ".join(f"{name!r} by {root or 'nothing'}" for root, name in roots.items())
            raise ConfigError(
                f"limits lie in different slots of the Cluster ({told}), so one step cannot decide upon them",
                fix="give them a common first scope, lease the odd one as permits, or name what they share: root='…'",
            )

    def tag(self, limit: Limit, key: Key) -> str:
        """Return the hash tag of a limit's key."""
        root = self._root_of(limit)
        if not root:
            return EVERYTHING
        values = (key[1],) if len(limit.scope) == 1 else key[1]
        return f"{{{root}={quote(values[limit.scope.index(root)], safe='')}}}"

    def of(self, limit: Limit, key: Key) -> bytes:
        """Return where a limit's state lies.

        Values are percent-encoded, so no tenant can name itself into another one's bucket.
        """
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= CACHED:
                self._known.clear()
            values = (key[1],) if isinstance(key[1], str) else key[1]
            # A rate's numbers are part of its state: when a policy changes them, what is owed is taken over.
            root = limit.root if limit.bucket is None else f"{limit.root.rpartition('@')[0]}@rate"
            parts = [root, *(quote(value, safe="") for value in values), *map(str, key[2:])]
            known = self._known[key] = f"{self._prefix}:{self.tag(limit, key)}:{':'.join(parts)}".encode()
        return known

    def reservation(self, name: str, tag: str) -> bytes:
        """Return where a reservation is remembered: beside its limits."""
        return f"{self._prefix}:{tag}:reservation:{name}".encode()

    def beside(self, limit: Limit, key: Key) -> str:
        """Return the tag of a reservation on a limit, which is the same for all where slots do not matter."""
        return self.tag(limit, key) if self.spread else EVERYTHING

    def qualified(self, name: str, tag: str) -> str:
        """Return a reservation's id as its holder gets it: with its slot, where that has to be found again."""
        return f"{name}@{tag[1:-1]}" if self.spread and name else name

    def located(self, reservation: str) -> tuple[str, str]:
        """Return (name, tag) of a qualified id.

        >>> Keys(root="tenant", spread=True).located("r-1@tenant=acme")
        ('r-1', '{tenant=acme}')
        """
        name, found, tag = reservation.rpartition("@")
        return (name, f"{{{tag}}}") if self.spread and found else (reservation, EVERYTHING)

    def _root_of(self, limit: Limit) -> str:
        if self.root is not None:
            return self.root if self.root in limit.scope else ""
        return next((scope for scope in SCOPES if scope in limit.scope), "")
