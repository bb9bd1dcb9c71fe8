"""A picture as PNG, for what shows no SVG: mail, chat, a report in a word processor.

The SVG is the picture; this only paints it, with resvg, in the light colours, and twice as large for sharp screens. It
needs no network and no browser. It needs a font on the machine and says so where there is none, or the numbers would be
missing from the picture without a word. Which font "sans-serif" is, the painter does not always know: then it is told
the first of :data:`FAMILIES` that is there.
"""

from __future__ import annotations

from typing import Any, Final

from opsloop.errors import ConfigError

__all__ = ["FAMILIES", "png"]

FAMILIES: Final = ("", "DejaVu Sans", "Liberation Sans", "Noto Sans", "Ubuntu", "Cantarell", "Arial", "Helvetica")
"""What to take for sans-serif, the preferred first; "" is what the painter takes by itself."""
_LETTER: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16">'
    '<text y="12" font-family="sans-serif" font-size="12">{}</text></svg>'
)


def png(picture: str, *, zoom: float = 2.0) -> bytes:
    """Return an SVG document as PNG, ``zoom`` times its size.

    Raises :class:`ConfigError` without the painter or without any font.
    """
    paint = _painter()
    for family in FAMILIES:
        font = {"sans_serif_family": family} if family else {}
        if paint(svg_string=_LETTER.format("0"), **font) != paint(svg_string=_LETTER.format(""), **font):
            return bytes(paint(svg_string=picture, zoom=zoom, **font))
    raise ConfigError("there is no font to write with", fix="install one, such as the package fonts-dejavu-core")


def _painter() -> Any:
    try:
        import resvg_py  # noqa: PLC0415 - only who asks for a PNG needs it
    except ImportError as cause:
        raise ConfigError("a PNG needs resvg-py", fix='pip install "opsloop[png]"') from cause
    return resvg_py.svg_to_bytes
