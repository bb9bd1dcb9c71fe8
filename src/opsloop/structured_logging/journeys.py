"""``journey``: the requests of a session or of a person, each with how it ended; the story of one is a step away."""

from __future__ import annotations

from typing import Final

import msgspec

from opsloop.clock import utc
from opsloop.errors import InputError, NotFoundError
from opsloop.event import Event
from opsloop.filter import And, Compare, Filter, Op, Or
from opsloop.stream import Source
from opsloop.structured_logging.correlation import tell
from opsloop.structured_logging.story import duration_text, label

__all__ = ["MAX_REQUESTS", "Episode", "Journey", "journey"]

MAX_REQUESTS: Final = 200
_EVENTS_PER_REQUEST: Final = 50
"""How many events of each request are read, on average, to find where it failed."""


class Episode(msgspec.Struct, frozen=True):
    """One request on the way."""

    request: Event
    failure: Event | None
    """The first step that failed, as :func:`correlate` tells it."""


class Journey(msgspec.Struct, frozen=True):
    """A session's or a person's requests, the oldest first; :meth:`text` is for a terminal."""

    session_id: str
    user_id: str
    episodes: tuple[Episode, ...]
    failed: int
    more: bool
    """Whether there are older ones."""

    def text(self) -> str:
        """Return a line per request: when, which, how it ended, how long it took, where it failed."""
        whose = f"session {self.session_id}" if self.session_id else f"user {self.user_id}"
        lines = [f"{whose}  {len(self.episodes)}{'+' if self.more else ''} requests, {self.failed} failed", ""]
        for episode in self.episodes:
            request = episode.request
            status = "" if request.status_code is None else str(request.status_code)
            where = label(episode.failure) if episode.failure is not None else ""
            lines.append(
                f"{utc(request.ts_ns)[:19].replace('T', ' ')} {'x' if request.error else ' '} {request.request_id:<20}"
                f" {status:>3} {duration_text(request.duration_us):>9}  {request.route:<16} {where}".rstrip()
            )
        return "\n".join(lines)


def journey(source: Source, *, session_id: str = "", user_id: str = "", limit: int = 50) -> Journey:
    """Return the newest requests of a session or a person, at most ``limit`` and 200.

    Raises :class:`InputError` unless exactly one is named, :class:`NotFoundError` when no request has it.

    >>> from opsloop.stream import MemoryStream
    >>> stream = MemoryStream([Event(ts_ns=1, event="request", request_id="req-1", session_id="s", error=True)])
    >>> journey(stream, session_id="s").failed
    1
    """
    if bool(session_id) == bool(user_id):
        raise InputError("a journey is of one session or one user", fix="give session_id or user_id")
    name, value = ("session_id", session_id) if session_id else ("user_id", user_id)
    most = min(limit, MAX_REQUESTS)
    where = And((Compare("event", Op.EQ, "request"), Compare(name, Op.EQ, value)))
    requests = source.query(where, limit=most + 1, newest_first=True)
    if not requests:
        raise NotFoundError(f"no request has {name} {value!r}", fix="check the id and the store's retention")
    kept = requests[:most][::-1]
    own: dict[str, list[Event]] = {}
    ids = {event.request_id for event in kept if event.request_id}
    any_of: Filter = Or(tuple(Compare("request_id", Op.EQ, each) for each in sorted(ids)))
    for event in source.query(any_of, limit=most * _EVENTS_PER_REQUEST) if ids else []:
        own.setdefault(event.request_id, []).append(event)
    episodes = tuple(
        Episode(request, tell(own.get(request.request_id) or [request], request.request_id).failure) for request in kept
    )
    return Journey(session_id, user_id, episodes, sum(event.error for event in kept), len(requests) > most)
