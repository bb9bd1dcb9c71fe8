"""Who may do what: three token scopes; none needed on loopback until a token is set.

``OPSLOOP_INGEST_TOKEN`` may send, ``OPSLOOP_READ_TOKEN`` may read, ``OPSLOOP_ADMIN_TOKEN`` may do everything. Without
any, the server listens on loopback only and answers only to loopback's names, so that no web page elsewhere can reach
it through the browser. A token comes as a bearer token; to send with, also as the password of basic authentication,
since some SDKs know nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from opsloop.errors import ConfigError
from opsloop.server.problem import problem

__all__ = ["Gatekeeper", "is_loopback"]

VARIABLES = {"ingest": "OPSLOOP_INGEST_TOKEN", "read": "OPSLOOP_READ_TOKEN", "admin": "OPSLOOP_ADMIN_TOKEN"}
LOOPBACK = {"127.0.0.1", "::1", "localhost", "[::1]"}


def is_loopback(host: str) -> bool:
    """Tell whether an address or name is this machine's own."""
    return host in LOOPBACK or host.startswith("127.")


class Gatekeeper:
    """Checks each request's token against the scope that it takes."""

    def __init__(self, environ: Mapping[str, str], *, host: str) -> None:
        """Take the tokens from the environment; refuse to be open beyond loopback without one."""
        self._tokens = {scope: environ[name] for scope, name in VARIABLES.items() if environ.get(name)}
        if not self._tokens and not is_loopback(host):
            raise ConfigError(
                f"{host} can be reached from outside and no token is set",
                fix=f"set {' and '.join(VARIABLES.values())}, or listen on 127.0.0.1",
            )

    def refusal(self, request: Request, scope: str) -> Response | None:
        """Return the answer that refuses a request, or ``None`` when it may pass."""
        if not self._tokens:
            name = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
            origin = request.headers.get("origin", "")
            if name and not is_loopback(name):
                return problem(421, f"this server answers to loopback only, not to {name!r}", fix="use 127.0.0.1")
            if origin and origin.partition("://")[2] != request.headers.get("host", ""):
                return problem(403, f"a page of {origin} may not call this server", fix="open the server's own page")
            return None
        refused = self.refused_token(request.headers.get("authorization", ""), scope)
        return None if refused is None else problem(refused[0], refused[1], fix=refused[2])

    def refused_token(self, authorization: str, scope: str) -> tuple[int, str, str] | None:
        """Return status, reason and fix that refuse an ``Authorization``, or ``None`` when it may pass."""
        if not self._tokens:
            return None
        token = _token(authorization, basic=scope == "ingest")
        if not token:
            return 401, "a bearer token is needed", "send Authorization: Bearer TOKEN"
        known = [name for name, secret in self._tokens.items() if hmac.compare_digest(secret.encode(), token)]
        if not known:
            return 401, "the token is not known", "check the token"
        if scope not in known and "admin" not in known:
            return 403, f"this token is for {known[0]}, the request takes {scope}", "use another token"
        return None


def _token(authorization: str, *, basic: bool) -> bytes:
    """Return the token of an ``Authorization`` header, or nothing."""
    kind, _, credentials = authorization.partition(" ")
    match kind.lower():
        case "bearer":
            return credentials.encode()
        case "basic" if basic:
            try:
                return base64.b64decode(credentials, validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
        case _:
            return b""
