"""Errors as answers: RFC 9457 problem details in JSON, the same shape everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from opsloop.errors import (
    ConfigError,
    FilterError,
    InputError,
    NotFoundError,
    OpsloopError,
    StoreError,
)
from opsloop.ingest.body import ENCODINGS, TooLargeError, UnsupportedError

__all__ = ["RETRY_SECONDS", "headers_of", "json_response", "problem", "problem_of", "status_of"]

RETRY_SECONDS = "1"
_TITLES = {
    400: "The request is wrong",
    401: "No or no valid token",
    403: "The token has no right to this",
    404: "Not found",
    405: "Method not allowed",
    413: "The body is too large",
    415: "Unknown content type or encoding",
    421: "Not a name of this server",
    500: "A fault of the server",
    503: "Not now",
}


def status_of(error: OpsloopError) -> int:
    """Return the HTTP status of an error: whose fault it is decides."""
    match error:
        case TooLargeError():
            return 413
        case UnsupportedError():
            return 415
        case NotFoundError():
            return 404
        case InputError() | ConfigError():
            return 400
        case StoreError():
            return 503
        case _:
            return 500


def headers_of(status: int) -> dict[str, str]:
    """Return the headers that a refusal carries: when to try again, or which encodings a body may have."""
    match status:
        case 503:
            return {"Retry-After": RETRY_SECONDS}
        case 415:
            return {"Accept-Encoding": ", ".join(ENCODINGS)}
        case _:
            return {}


def problem(
    status: int, detail: str, *, fix: str = "", headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """Return a problem document, with the headers of its status and more."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    if fix:
        body["fix"] = fix
    content = msgspec.json.encode({**body, **members})
    return Response(content, status, {**headers_of(status), **(headers or {})}, "application/problem+json")


def problem_of(error: OpsloopError) -> Response:
    """Return the problem document of an error; a filter's carries the span of the fault."""
    span: dict[str, Any] = {}
    if isinstance(error, FilterError):
        span = {"text": error.text, "start": error.start, "end": error.end}
    return problem(status_of(error), error.message, fix=error.fix, **span)


def json_response(value: Any) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")
