"""Where Redis is, from one line of text.

========================================  =====================================================
``redis://user:password@host:6379/0``     one server; ``rediss://`` with TLS, ``unix:///path`` on a socket
``redis+sentinel://host:26379,host2/name``  the master that Sentinels know under ``name``
``redis+cluster://host:7000,host2:7001``  a Cluster, found through any of its nodes
========================================  =====================================================

``rediss+sentinel`` and ``rediss+cluster`` are the same with TLS.
"""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from opsloop.errors import ConfigError

__all__ = ["Address", "address"]

Kind = Literal["server", "sentinel", "cluster"]
KINDS: Final[dict[str, Kind]] = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
WRITE: Final = "write redis://host:6379/0, redis+sentinel://host:26379/name or redis+cluster://host:7000"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL. Its representation keeps the password to itself."""

    kind: Kind
    url: str
    """As it was given, for a single server."""
    nodes: tuple[tuple[str, int], ...]
    name: str = ""
    """What the Sentinels call the master."""
    database: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = None

    @property
    def credentials(self) -> dict[str, Any]:
        """What a client has to be given besides the nodes."""
        found: dict[str, Any] = {"username": self.username, "password": self.password}
        return {**found, "ssl": True} if self.tls else found

    def __repr__(self) -> str:
        """Name the place, without credentials."""
        where = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return f"<{self.kind} {where}{'/' + self.name if self.name else ''}>"


def address(url: str) -> Address:
    """Parse a URL; raise :class:`ConfigError` for what names no place.

    >>> address("redis+cluster://:secret@one:7000,two").nodes
    (('one', 7000), ('two', 6379))
    >>> address("redis+sentinel://one/limits/2")
    <sentinel one:26379/limits>
    """
    parts = urlsplit(url)
    kind = KINDS.get(parts.scheme)
    if kind is None:
        raise ConfigError(f"{parts.scheme or 'a URL without a scheme'} is no kind of Redis", fix=WRITE)
    head, _, hosts = parts.netloc.rpartition("@")
    username, _, password = head.partition(":")
    try:
        nodes = tuple(_node(host, PORTS[kind]) for host in hosts.split(",") if host)
        path = [part for part in parts.path.split("/") if part]
        name = path.pop(0) if kind == "sentinel" and path else ""
        database = int(path[0]) if path and parts.scheme != "unix" else 0
    except ValueError as cause:
        raise ConfigError(f"a part of the Redis URL is no number: {cause}", fix=WRITE) from cause
    if parts.scheme != "unix" and not nodes:
        raise ConfigError("the Redis URL names no host", fix=WRITE)
    if kind == "sentinel" and not name:
        raise ConfigError("the Redis URL does not say which master the Sentinels watch", fix=WRITE)
    if kind == "cluster" and database:
        raise ConfigError("a Redis Cluster has no numbered databases", fix="leave the number out")
    return Address(
        kind=kind,
        url=url,
        nodes=nodes,
        name=name,
        database=database,
        tls=parts.scheme.startswith("rediss"),
        username=unquote(username) or None,
        password=unquote(password) or None,
    )


def _node(text: str, port: int) -> tuple[str, int]:
    host, found, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not found:
        return text.strip("[]"), port
    return host.strip("[]"), int(number)
