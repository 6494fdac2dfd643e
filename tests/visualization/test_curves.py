"""Curves as SVG."""

import re

import pytest

from visualization import curves
from visualization.curves import Series


def test_a_curve_stops_where_there_is_no_number():
    points = [(0, 1.0), (1, None), (2, 3.0), (3, 4.0)]
    drawn = curves.chart("Loss", [Series("run", points)], x="step")
    assert re.findall("[ML]", re.search(' d="(.*)"', drawn)[1]) == ["M", "M", "L"]
    falls = curves.chart("Rate", [Series("", [(0, 0.1), (1, 0.01), (2, 0)])], x="step",
                         logarithmic=True, steps=True)  # fmt: skip
    assert re.findall("[ML]", re.search(' d="(.*)"', falls)[1]) == ["M", "L", "L"]
    assert curves.chart("Loss", [Series("run", [(0, None)])], x="step") == ""


def test_points_are_left_out_but_not_the_last():
    few = curves.thinned([(n, float(n)) for n in range(5001)], 100)
    assert len(few) <= 100 and few[0] == (0, 0.0) and few[-1] == (5000, 5000.0)


@pytest.mark.parametrize("value", [0.00125, 0.0013, 0.8, 3e-5, 0.1])
def test_a_constant_rate_can_be_read(value):
    drawn = curves.chart("Rate", [Series("", [(0, value), (9, value)])], x="epoch",
                         logarithmic=True)  # fmt: skip
    ticks = re.findall(r'<text class="end" x="58.0"[^>]*>([^<]+)<', drawn)
    assert len({float(tick) for tick in ticks}) >= 2
    assert f"it ends at {value:.4g}" in drawn
