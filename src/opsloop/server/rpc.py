"""``google.rpc.Status``: how OTLP says over HTTP and gRPC what was wrong and when to try again.

Three messages of a few fields each; writing them out is shorter than another dependency.
"""

from __future__ import annotations

__all__ = ["retry_info", "rpc_status"]

RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"


def retry_info(seconds: int) -> bytes:
    r"""Return a ``RetryInfo``: try again after so many seconds.

    >>> retry_info(1)
    b'\n\x02\x08\x01'
    """
    return _bytes(1, _number(1, seconds))  # a Duration, and its seconds


def rpc_status(message: str, *, code: int = 0, retry_seconds: int | None = None) -> bytes:
    r"""Return a ``Status`` with its message; a gRPC code and a ``RetryInfo`` where they are given.

    >>> rpc_status("no")
    b'\x12\x02no'
    """
    coded = _number(1, code) if code else b""
    if retry_seconds is None:
        return coded + _bytes(2, message.encode())
    detail = _bytes(1, RETRY_INFO) + _bytes(2, retry_info(retry_seconds))
    return coded + _bytes(2, message.encode()) + _bytes(3, detail)


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
