"""Axes with round ticks, curves that keep their peaks, colours that are seen on both pages."""

import re

import numpy as np
import pytest

from fastfcn_jax.evaluation.report import axes, colors, curves, matrix


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (2.34, 3.17, [2.2, 2.4, 2.6, 2.8, 3, 3.2]),
        (0.0, 80_000.0, [0, 20_000, 40_000, 60_000, 80_000]),
        (1e-5, 4.9e-5, [1e-5, 2e-5, 3e-5, 4e-5, 5e-5]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    assert axes.ticks(low, high, 5) == pytest.approx(expected)


def test_labels_of_ticks_are_short():
    numbers = (0.0, 0.25, 1e-5, 2000.0, 20_000.0, 2.5e6, -3.0)
    assert [axes.label(n) for n in numbers] == ["0", "0.25", "1e-05", "2000", "20k", "2.5M", "-3"]


@pytest.mark.parametrize("ys", [(3.0, 3.0), (0.0, 0.0), (99.9, 100.0), (-2.0, 1e-9)])
def test_axes_contain_every_value(ys):
    for percent in (False, True):
        drawn = axes.draw((5.0, 5.0), ys, "step", percent=percent and ys[0] >= 0)
        assert drawn.y.low <= ys[0] <= ys[1] <= drawn.y.high
        assert drawn.x.low < 5 < drawn.x.high
        assert axes.TOP <= drawn.y(ys[1]) <= drawn.y(ys[0]) <= drawn.y.start
    assert axes.draw((0.0, 1.0), (55.0, 99.9), "", percent=True).y.high == 100


def test_a_thinned_curve_keeps_its_peaks_and_its_ends():
    values = np.sin(np.arange(10_000) / 500)
    values[[3333, 7777]] = 9, -9
    points = list(enumerate(values.tolist()))
    kept = curves.thinned(points)
    assert len(kept) <= curves.MOST + 2
    assert {points[0], points[3333], points[7777], points[-1]} <= set(kept)
    assert kept == sorted(kept)


def test_one_curve_is_captioned_and_several_have_a_legend():
    one, two = curves.Curve("a", [(1, 2.0), (3, 4.5)]), curves.Curve("<b>", [(1, 5.0)])
    assert "loss: 4.5 % at the last step" in curves.chart("loss", [one], " %")
    text = curves.chart("loss", [one, two, curves.Curve("empty", [])])
    assert re.findall(r"</i>(.*?)</li>", text) == ["a", "&lt;b&gt;"]
    assert curves.chart("loss", [curves.Curve("empty", [])]) == ""
    assert curves.style(0) != curves.style(curves.COLORS), "a ninth curve is told from the first"


@pytest.mark.parametrize("page", [colors.LIGHT, colors.DARK])
def test_every_colour_is_seen_and_a_visible_one_is_kept(page):
    for color in np.random.default_rng(0).integers(0, 256, (200, 3)).tolist():
        seen = colors.seen_on(page, color)
        assert colors.contrast(seen, page) >= colors.LEAST
        if colors.contrast(color, page) >= colors.LEAST:
            assert seen == tuple(color)
    assert colors.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


def test_the_matrix_has_numbers_up_to_thirty_classes():
    names = [f"class {i}" for i in range(31)]
    counts = np.diag(np.full(31, 1000)) + 3
    few, many = matrix.chart(counts[:30, :30], names[:30]), matrix.chart(counts, names)
    assert few.count(">92</text>") == 30
    assert "class 29</text>" in few
    assert "<image" in many
    assert "</text>" not in many
    rows = matrix.row_shares(np.array([[3, 1], [0, 0]]))
    np.testing.assert_array_equal(rows, [[0.75, 0.25], [0, 0]])
