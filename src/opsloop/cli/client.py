"""How a command gets its answers: from a running server over HTTP, or from the store itself in this process.

Both speak the same endpoints, so a command is written once. A server is found by ``--url`` or ``OPSLOOP_URL``, else by
the lock in the store's folder, which names the address of whoever has it open.
"""

from __future__ import annotations

import http.client
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import msgspec

from opsloop.clock import SystemClock
from opsloop.endpoint import Endpoint
from opsloop.errors import ConfigError, FilterError, InputError, NotFoundError, OpsloopError, StoreError
from opsloop.settings import Settings, environment
from opsloop.store.owner import owner_of

__all__ = ["Api", "HttpApi", "LocalApi", "connect", "server_of"]

TIMEOUT_SECONDS = 60.0
PIECE_BYTES = 65_536
RETRY_SECONDS = 1.0
RETRIES = 10
LOOK_SECONDS = 1.0


class Api(Protocol):
    """What commands ask."""

    where: str
    """What answers, for people."""

    def call(
        self, path: str, arguments: Mapping[str, Any] | None = None, *, method: str = "GET", body: bytes = b""
    ) -> Any:
        """Call an endpoint; arguments that are ``None`` are left out. Raises :class:`OpsloopError`."""
        ...

    def send(self, lines: bytes, *, first_line: int = 1) -> dict[str, Any]:
        """Store JSON lines; return ``accepted``, ``rejected`` and ``reasons``."""
        ...

    def download(self, path: str, arguments: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield the file that an endpoint answers with, in pieces."""
        ...

    def follow(self, query: str, *, limit: int) -> Iterator[tuple[str, Any]]:
        """Yield (kind, value) as it comes: ``event`` with an event, ``gap`` with how many were ``missed``."""
        ...


class HttpApi:
    """Asks a running server."""

    def __init__(self, url: str, *, token: str = "") -> None:
        """Ask the server at ``url``."""
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no server address", fix="write http://host:port")
        self.where = url.rstrip("/")
        self._token = token

    def call(
        self, path: str, arguments: Mapping[str, Any] | None = None, *, method: str = "GET", body: bytes = b""
    ) -> Any:
        """Call an endpoint over HTTP."""
        return self._ask(_target(path, arguments or {}), method, body, "application/json")

    def send(self, lines: bytes, *, first_line: int = 1) -> dict[str, Any]:
        """Post JSON lines; the server numbers from 1, so its reasons are moved to the file's lines."""
        answer: dict[str, Any] = self._ask("/api/events", "POST", lines, "application/x-ndjson")
        answer["reasons"] = [_moved(reason, first_line - 1) for reason in answer["reasons"]]
        return answer

    def download(self, path: str, arguments: Mapping[str, Any]) -> Iterator[bytes]:
        """Read a file in pieces; one that breaks off is an error."""
        with self._open(_target(path, arguments)) as answer:
            try:
                while piece := answer.read(PIECE_BYTES):
                    yield piece
            except (OSError, http.client.HTTPException) as error:
                raise StoreError(f"{self.where} broke off: {error!r}", fix="try again") from None

    def follow(self, query: str, *, limit: int) -> Iterator[tuple[str, Any]]:
        """Read the server's stream; when it breaks off, go on from the last event, as long as the server comes back."""
        last, failures, pause = "", 0, threading.Event()
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            target = f"/api/logs/tail?{urllib.parse.urlencode({'q': query, 'limit': limit})}"
            try:
                with self._open(target, headers=headers) as answer:
                    for last, kind, data in _messages(answer):  # noqa: B007 - what was read last is where to go on
                        failures = 0
                        if kind in {"event", "gap"}:
                            yield kind, msgspec.json.decode(data)
            except StoreError:
                failures += 1
                if not last or failures >= RETRIES:
                    raise
            except (OSError, http.client.HTTPException):
                pass
            pause.wait(RETRY_SECONDS)

    def _ask(self, target: str, method: str, body: bytes, kind: str) -> Any:
        headers = {"Content-Type": kind} if body else {}
        with self._open(target, method=method, body=body, headers=headers) as answer:
            try:
                return msgspec.json.decode(answer.read())
            except msgspec.DecodeError as error:
                raise StoreError(f"{self.where} did not answer in JSON: {error}", fix="check --url") from None

    def _open(
        self, target: str, *, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        sent = dict(headers or {})
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked to be http or https
            f"{self.where}{target}", data=body or (b"" if method == "POST" else None), headers=sent, method=method
        )
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
        except urllib.error.HTTPError as error:
            raise _problem(error) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            fix = "start it with: opsloop up"
            raise StoreError(f"no opsloop server answers at {self.where} ({reason})", fix=fix) from None
        return answer


class LocalApi:
    """Answers from an open store in this process."""

    def __init__(self, database: Any, endpoints: tuple[Endpoint, ...], settings: Settings) -> None:
        """Answer from ``database`` with the rooms' endpoints; without one, for those that need none."""
        self.where = "this process" if database is None else database.location
        self._database = database
        self._settings = settings
        self._handlers: dict[tuple[str, str], Callable[[Mapping[str, str], bytes], Any]] = {
            (endpoint.method, endpoint.path): endpoint.handler for endpoint in endpoints
        }

    def call(
        self, path: str, arguments: Mapping[str, Any] | None = None, *, method: str = "GET", body: bytes = b""
    ) -> Any:
        """Call an endpoint's handler, and read its answer as JSON would carry it."""
        given = {name: str(value) for name, value in (arguments or {}).items() if value is not None}
        return msgspec.json.decode(msgspec.json.encode(self._handlers[method, path](given, body)))

    def download(self, path: str, arguments: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield the file that an endpoint makes."""
        given = {name: str(value) for name, value in arguments.items() if value is not None}
        yield from self._handlers["GET", path](given, b"").chunks

    def follow(self, query: str, *, limit: int) -> Iterator[tuple[str, Any]]:
        """Look every second for what another process has stored."""
        from opsloop.structured_logging.tail import look  # noqa: PLC0415 - as above

        pause = threading.Event()
        seen = yield from look(self._database, query, clock=SystemClock(), limit=limit)
        while True:
            pause.wait(LOOK_SECONDS)
            seen = yield from look(self._database, query, clock=SystemClock(), after=seen)

    def send(self, lines: bytes, *, first_line: int = 1) -> dict[str, Any]:
        """Store JSON lines directly."""
        from opsloop.ingest import accept, read_json_lines  # noqa: PLC0415 - the decoders load when something comes in

        batch = read_json_lines(lines, first_line=first_line, gauges=self._settings.gauge)
        batch = accept(batch, now_ns=SystemClock().now_ns(), settings=self._settings)
        self._database.append(batch.events)
        return {"accepted": len(batch.events), "rejected": batch.rejected, "reasons": batch.reasons}


def connect(settings: Settings, *, url: str = "", create: bool = False) -> AbstractContextManager[Api]:
    """Return whatever answers: the server at ``url``, the server that has the store open, or the store itself.

    With ``create`` a store that is not there yet is made; without, its absence is an error that says so.
    """
    address = server_of(settings, url=url)
    if address:
        return nullcontext(HttpApi(address, token=environment().get("OPSLOOP_TOKEN", "")))
    store = settings.server.store
    if _on_disk(store) and not create and not (Path(store).expanduser() / "clickhouse").is_dir():
        raise StoreError(f"no server runs and there is no store at {store}", fix="start one with: opsloop up --demo")
    return _local(settings)


def server_of(settings: Settings, *, url: str = "") -> str:
    """Return the address of the server that answers, empty when none is named and none has the store open."""
    address = url or environment().get("OPSLOOP_URL", "")
    if not address and _on_disk(settings.server.store):
        owner = owner_of(settings.server.store)
        address = owner.url if owner else ""
    return address


def _on_disk(store: str) -> bool:
    return "://" not in store and store != ":memory:"


@contextmanager
def _local(settings: Settings) -> Iterator[Api]:
    from opsloop.server.catalogue import all_endpoints  # noqa: PLC0415 - the engine loads only when no server runs
    from opsloop.store import ClickHouseStream  # noqa: PLC0415 - as above
    from opsloop.store.damage import warn_of_damage  # noqa: PLC0415 - as above

    with ClickHouseStream(settings.server.store) as database:
        warn_of_damage(database)
        yield LocalApi(database, all_endpoints(database, settings, SystemClock()), settings)


def _target(path: str, arguments: Mapping[str, Any]) -> str:
    """Return a path with the names in it filled and the other arguments as its query."""
    given = {name: str(value) for name, value in arguments.items() if value is not None}
    filled = re.sub(r"{(\w+)}", lambda match: urllib.parse.quote(given.pop(match[1]), safe=""), path)
    return f"{filled}?{urllib.parse.urlencode(given)}" if given else filled


def _messages(lines: Iterable[bytes]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (id, kind, data) of each server-sent event."""
    number, kind, data = "", "", b""
    for line in lines:
        name, _, value = line.rstrip(b"\n").partition(b": ")
        if name == b"id":
            number = value.decode()
        elif name == b"event":
            kind = value.decode()
        elif name == b"data":
            data = value
        elif not line.strip():
            yield number, kind, data
            kind, data = "", b""


def _problem(error: urllib.error.HTTPError) -> OpsloopError:
    """Return a problem document as the error that it was."""
    try:
        members = msgspec.json.decode(error.read())
        detail, fix = members["detail"], members.get("fix", "")
    except (msgspec.DecodeError, KeyError, TypeError):
        return StoreError(f"the server answered {error.code} {error.reason}", fix="check --url")
    if "text" in members:
        span = {"start": members["start"], "end": members["end"]}
        return FilterError(detail, text=members["text"], fix=fix, **span)
    kinds: dict[int, type[OpsloopError]] = {404: NotFoundError, 503: StoreError, 500: StoreError}
    return kinds.get(error.code, InputError)(detail, fix=fix)


def _moved(reason: str, lines: int) -> str:
    return re.sub(r"\bline (\d+):", lambda match: f"line {int(match[1]) + lines}:", reason)
