"""Content encodings, undone under a limit that holds before and after."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from opsloop.errors import PayloadError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["ENCODINGS", "TooLargeError", "UnsupportedError", "decompress"]

GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
ZSTD_WINDOW_LOG: Final = 23
"""8 MiB: the largest window that zstd as a content encoding may ask for (RFC 9659)."""
MOST_PARTS: Final = 100
"""gzip and zstd allow several members or frames in a row; each costs a copy of what follows it."""


def _gzip() -> Any:
    return zlib.decompressobj(GZIP_WINDOW)


def _deflate() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS)


def _zstd() -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})


_STREAMS: Final[Mapping[str, Callable[[], Any]]] = {"gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "zstd": _zstd}
ENCODINGS: Final = ("gzip", "deflate", "zstd")
"""What ``Content-Encoding`` may be, besides nothing."""


class TooLargeError(PayloadError):
    """The body is over the limit, before or after decompression."""


class UnsupportedError(PayloadError):
    """The body comes in a content encoding that is not undone here."""


def decompress(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Return the body without its ``Content-Encoding``: none, gzip, deflate (zlib framing) or zstd.

    Raises :class:`TooLargeError` over ``max_bytes``, :class:`UnsupportedError` for an unknown encoding,
    :class:`PayloadError` for bytes that are not what the encoding says and for a stream that ends early. A bomb is
    never unfolded past the limit, whether it hides in one part or in many.

    >>> import gzip
    >>> decompress(gzip.compress(b"hello"), "gzip", max_bytes=100)
    b'hello'
    """
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in _STREAMS:
        raise UnsupportedError(f"unknown Content-Encoding {encoding!r}", fix=f"send {', '.join(ENCODINGS)} or none")
    if not body:
        return body
    plain = bytearray()
    rest = body
    try:
        for _ in range(MOST_PARTS):
            stream = _STREAMS[name]()
            plain += stream.decompress(rest, max_bytes + 1 - len(plain))
            if len(plain) > max_bytes:
                raise _too_large(max_bytes)
            if not stream.eof:
                raise PayloadError(f"the {name} body ends early", fix="send the whole body again")
            rest = stream.unused_data
            if not rest:
                return bytes(plain)
    except (zlib.error, zstd.ZstdError) as cause:
        raise PayloadError(f"the body is not {name}: {cause}", fix="match Content-Encoding to the body") from cause
    raise PayloadError(f"the {name} body has more than {MOST_PARTS} parts", fix="compress it in one piece")


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is over {max_bytes} bytes", fix="send smaller batches, or raise max_body_bytes")
