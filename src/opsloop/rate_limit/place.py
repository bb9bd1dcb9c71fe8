"""Where limits are counted, from one line of text: in this process, or in Redis, with what the store has to know."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from opsloop.clock import Clock
from opsloop.errors import ConfigError
from opsloop.rate_limit.memory import MemoryStore, Store
from opsloop.rate_limit.redis_store import RedisStore

__all__ = ["store_at"]

OPTIONS: Final = {"prefix": str, "root": str, "workers": int, "deadline_seconds": float}


def store_at(url: str, *, clock: Clock | None = None) -> Store:
    """Return the store at a URL, or one in memory for none.

    The URL is one of :class:`~opsloop.rate_limit.RedisStore`, whose ``prefix``, ``root``, ``workers`` and
    ``deadline_seconds`` may follow as a query. Raises :class:`ConfigError` for what names no place.

    >>> type(store_at("")).__name__, type(store_at("redis+cluster://one,two?root=tenant&workers=4")).__name__
    ('MemoryStore', 'RedisStore')
    """
    if not url:
        return MemoryStore(clock=clock)
    parts = urlsplit(url)
    options: dict[str, Any] = {}
    others = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS:
            others.append((name, value))
            continue
        try:
            options[name] = OPTIONS[name](value)
        except ValueError as cause:
            raise ConfigError(f"{name} of the limits is {value!r}", fix="give a number") from cause
    return RedisStore.from_url(urlunsplit(parts._replace(query=urlencode(others))), clock=clock, **options)
