"""Content encodings, undone under a limit that holds before and after."""

from __future__ import annotations

import zlib

from opsloop.errors import PayloadError

__all__ = ["TooLargeError", "decompress"]

GZIP_WINDOW = 16 + zlib.MAX_WBITS
_WINDOWS = {"gzip": GZIP_WINDOW, "x-gzip": GZIP_WINDOW, "deflate": zlib.MAX_WBITS}


class TooLargeError(PayloadError):
    """The body is over the limit, before or after decompression."""


def decompress(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Return the body without its ``Content-Encoding``: none, gzip or deflate (zlib framing).

    Raises :class:`TooLargeError` over ``max_bytes``, :class:`PayloadError` for an unknown encoding, for bytes that are
    not what the encoding says, and for a stream that ends early. A bomb is never unfolded past the limit.

    >>> import gzip
    >>> decompress(gzip.compress(b"hello"), "gzip", max_bytes=100)
    b'hello'
    """
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in _WINDOWS:
        raise PayloadError(f"unknown Content-Encoding {encoding!r}", fix="send gzip, deflate or no encoding")
    plain = bytearray()
    rest = body
    try:
        while rest:  # gzip allows several members in a row
            stream = zlib.decompressobj(_WINDOWS[name])
            plain += stream.decompress(rest, max_bytes + 1 - len(plain))
            if len(plain) > max_bytes:
                raise _too_large(max_bytes)
            if not stream.eof:
                raise PayloadError(f"the {name} body ends early", fix="send the whole body again")
            rest = stream.unused_data
    except zlib.error as cause:
        raise PayloadError(f"the body is not {name}: {cause}", fix="match Content-Encoding to the body") from cause
    return bytes(plain)


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is over {max_bytes} bytes", fix="send smaller batches, or raise max_body_bytes")
