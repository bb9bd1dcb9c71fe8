"""A panel as PNG: decoded again, it is the picture that the SVG describes."""

from __future__ import annotations

import struct
import sys
import zlib

import pytest

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import png as module
from opsloop.dashboard.svg import BOTTOM, HEIGHT, LEFT, PANELS, RIGHT, TOP, WIDTH, panel_svg
from opsloop.errors import ConfigError

pytest.importorskip("resvg_py")

WHITE, BLUE, RED = (255, 255, 255), (0x2F, 0x6F, 0xB0), (0xB3, 0x26, 0x1E)
ANSWER = {
    "series": {
        "ts_ns": [n * 60 * NANOSECONDS for n in range(5)],
        "error_ratio": [0.01, 0.01, None, 0.01, 0.01],
        "rejected_ratio": [None] * 5,
    },
    "objectives": [{"id": "errors", "measure": "error_ratio", "threshold": 0.015}],
}


def decoded(data):
    """Return width, height and the rows of (red, green, blue) of a PNG with 8 bits and alpha, if its sums are right."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + body),)
        chunks[name] = chunks.get(name, b"") + body
        at += 12 + length
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour) == (8, 6)
    raw, size = zlib.decompress(chunks[b"IDAT"]), width * 4
    rows, above = [], bytearray(size)
    for y in range(height):
        kind, line = raw[y * (size + 1)], bytearray(raw[y * (size + 1) + 1 : (y + 1) * (size + 1)])
        for x in range(size):
            left, up, corner = (line[x - 4], above[x], above[x - 4]) if x >= 4 else (0, above[x], 0)
            line[x] = (line[x] + (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]) & 255
        rows.append([tuple(line[x : x + 3]) for x in range(0, size, 4)])
        assert set(line[3::4]) == {255}
        above = line
    return width, height, rows


def paeth(left, up, corner):
    """Return the neighbour that is nearest to left + up - corner: filter 4 of PNG."""
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))


def test_the_png_is_the_picture_of_the_svg():
    """Twice as large, opaque, with the line, the gap, the limit and the letters where the SVG has them."""
    width, height, rows = decoded(module.png(panel_svg(ANSWER, "errors")))
    assert (width, height) == (2 * WIDTH, 2 * HEIGHT)
    step = (WIDTH - LEFT - RIGHT) / 4
    middle = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * 0.5  # 1% of an axis that ends at 2%
    limit = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * 0.75

    def column(x):
        return {rows[y][round(2 * x)] for y in range(round(2 * middle) - 3, round(2 * middle) + 4)}

    assert BLUE in column(LEFT + step / 2)
    assert BLUE in column(LEFT + 3.5 * step)
    assert BLUE not in column(LEFT + 1.5 * step)
    dashes = [rows[round(2 * limit)][x] == RED for x in range(2 * LEFT, 2 * (WIDTH - RIGHT))]
    assert 0.4 < sum(dashes) / len(dashes) < 0.7
    title = [pixel for row in rows[10:40] for pixel in row[2 * LEFT : 2 * LEFT + 120]]
    assert 0.02 < sum(pixel != WHITE for pixel in title) / len(title) < 0.5
    assert rows[4][4] == rows[-4][-4] == WHITE


@pytest.mark.parametrize("panel", sorted(PANELS))
def test_every_panel_can_be_painted(panel):
    """Also one of nothing: it has its words."""
    answer = {"series": {"ts_ns": [], **{name: [] for name in PANELS[panel]}}, "objectives": []}
    data = module.png(panel_svg(answer, panel), zoom=1)
    assert struct.unpack(">II", data[16:24]) == (WIDTH, HEIGHT)
    assert len(data) > 1000


@pytest.mark.parametrize("family", module.FAMILIES[1:])
def test_a_font_is_found_that_the_painter_does_not_take_by_itself(monkeypatch, family):
    """Where "sans-serif" means nothing to the painter, it is told the first usual family that it can write with."""
    told = []

    def paint(*, svg_string, sans_serif_family="", **options):
        told.append((svg_string, sans_serif_family, options))
        return svg_string.encode() if sans_serif_family == family else b"no letters"

    monkeypatch.setattr(module, "_painter", lambda: paint)
    picture = panel_svg(ANSWER, "errors")
    assert module.png(picture, zoom=3) == picture.encode()
    assert told[-1] == (picture, family, {"zoom": 3})


def test_without_the_painter_or_a_font_it_says_what_to_install(monkeypatch):
    """A missing library and a machine without fonts are told apart; no picture loses its numbers in silence."""
    monkeypatch.setattr(module, "_painter", lambda: lambda **_: b"the same whatever is written")
    with pytest.raises(ConfigError, match="no font to write with"):
        module.png(panel_svg(ANSWER, "errors"))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ConfigError, match=r"needs resvg-py; pip install .opsloop\[png\]"):
        module.png(panel_svg(ANSWER, "errors"))
