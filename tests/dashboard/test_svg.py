"""A panel as a picture."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.svg import BOTTOM, HEIGHT, LEFT, PANELS, RIGHT, TOP, WIDTH, ceiling, panel_svg
from opsloop.errors import InputError

SVG = "{http://www.w3.org/2000/svg}"
values = st.none() | st.floats(0, 1e9) | st.sampled_from([0.0, 5e-324, 1e-9])


def answer(names, columns, *, objectives=()):
    """Return what /api/signals would have answered, as far as a picture looks at it."""
    count = max(map(len, columns), default=0)
    times = [n * 60 * NANOSECONDS for n in range(count)]
    return {"series": {"ts_ns": times, **dict(zip(names, columns, strict=True))}, "objectives": list(objectives)}


def points(picture):
    """Return the points of every line."""
    lines = [line.get("points").split() for line in picture.iter(f"{SVG}polyline")]
    return [[tuple(map(float, point.split(","))) for point in line] for line in lines]


@settings(max_examples=60, deadline=None)
@given(panel=st.sampled_from(sorted(PANELS)), data=st.data(), threshold=st.floats(1e-6, 1e9))
def test_every_picture_is_xml_and_stays_inside_its_frame(panel, data, threshold):
    """Whatever was measured, the picture parses, knows no NaN, and no point leaves the plot."""
    names = PANELS[panel]
    count = data.draw(st.integers(0, 30))
    columns = [data.draw(st.lists(values, min_size=count, max_size=count)) for _ in names]
    objective = {"id": "<&\"'>", "measure": names[0], "threshold": threshold, "direction": "above"}
    text = panel_svg(answer(names, columns, objectives=[objective]), panel)
    picture = ET.fromstring(text)
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)
    drawn = [point for line in points(picture) for point in line]
    drawn += [(float(dot.get("cx")), float(dot.get("cy"))) for dot in picture.iter(f"{SVG}circle")]
    assert len(drawn) == sum(value is not None for column in columns for value in column)
    for x, y in drawn:
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM


def test_what_was_not_measured_is_a_gap():
    """Two stretches are two lines, a value alone is a dot, and nothing at all is said in words."""
    text = panel_svg(answer(["requests_per_second"], [[1.0, 2.0, None, 1.0, None, 2.0, 2.0]]), "traffic")
    picture = ET.fromstring(text)
    assert [len(line) for line in points(picture)] == [2, 2]
    assert len(list(picture.iter(f"{SVG}circle"))) == 1
    assert picture.get("aria-label") == "traffic: request rate 2.00 /s"
    empty = panel_svg(answer(["requests_per_second"], [[None, None]]), "traffic")
    assert "nothing was measured" in empty
    assert "request rate -" in empty


def test_an_objective_lies_where_its_threshold_is():
    """Half of the axis is half of the height, and the value stands beside the line."""
    objective = {"id": "errors", "measure": "error_ratio", "threshold": 0.01, "direction": "above"}
    found = answer(PANELS["errors"], [[0.02, 0.015], [None, None]], objectives=[objective])
    picture = ET.fromstring(panel_svg(found, "errors"))
    (line,) = [each for each in picture.iter(f"{SVG}line") if each.get("class") == "o"]
    assert float(line.get("y1")) == (TOP + HEIGHT - BOTTOM) / 2
    assert "errors 1.00%" in [each.text for each in picture.iter(f"{SVG}text")]


@given(st.lists(st.floats(0, 1e12), min_size=1))
def test_an_axis_ends_above_everything_and_not_far(found):
    """Its end is not below any value, and at most two and a half times the largest."""
    end = ceiling(found)
    assert end >= max(found)
    if max(found) > 1e-300:
        assert end <= max(found) * 2.5 or max(found) == 0


def test_an_unknown_panel_is_refused():
    """The sentence lists those that exist."""
    with pytest.raises(InputError, match="no panel 'disk'; use one of latency, first_token"):
        panel_svg({}, "disk")
