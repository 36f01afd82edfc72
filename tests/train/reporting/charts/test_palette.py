"""The colors of pages and charts: readable, and different for people with a color blindness."""

import itertools
import re

import numpy as np
import pytest

from train.reporting.charts.palette import COLORS, DARK, LIGHT

LINES = [f"c{index}" for index in range(COLORS)]
# Machado, Oliveira and Fernandes 2009, severity 1.0, for linear RGB.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
TO_XYZ = [  # IEC 61966-2-1
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]


def linear(color):
    """Return linear RGB of ``#rgb``, ``#rrggbb`` or ``r,g,b``."""
    if color.startswith("#"):
        digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
        values = [int(pair, 16) for pair in re.findall("..", digits)]
    else:
        values = list(map(int, color.split(",")))
    share = np.array(values) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """Return the ratio of WCAG 2.2, "contrast ratio"."""
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    """Return CIELAB (CIE 1976) of linear RGB under D65."""
    white = np.array(TO_XYZ) @ np.ones(3)
    t = np.array(TO_XYZ) @ np.clip(rgb, 0, 1) / white
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one, other, vision):
    """Return how different two colors are to eyes with this vision; 2.3 is barely visible."""
    colors = [lab(np.array(VISIONS[vision]) @ linear(color)) for color in (one, other)]
    return np.linalg.norm(colors[0] - colors[1])


def test_contrast_and_distance_of_known_colors():
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777", "#fff") == pytest.approx(4.48, abs=0.005)  # WebAIM's checker
    # L* of this gray is 50; red and green are far from each other, but not without red cones.
    assert lab(linear("#777777"))[0] == pytest.approx(50.03, abs=0.01)
    assert (
        distance("#c00000", "#6e6300", "usual")
        > 60
        > 25
        > distance("#c00000", "#6e6300", "deuteranopia")
    )


@pytest.mark.parametrize("palette", (LIGHT, DARK), ids=("light", "dark"))
def test_text_is_readable_and_lines_are_visible(palette):
    for back, name in itertools.product(("back", "card"), ("text", "weak", "link")):
        assert contrast(palette[name], palette[back]) >= 4.5, (name, back)
    for back, name in itertools.product(("back", "card"), (*LINES, "heat", "wrong")):
        assert contrast(palette[name], palette[back]) >= 3, (name, back)  # WCAG 1.4.11: graphics


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("palette", (LIGHT, DARK), ids=("light", "dark"))
def test_colors_differ_also_for_the_color_blind(palette, vision):
    pairs = [*itertools.combinations(LINES, 2), ("heat", "wrong")]
    closest = min(pairs, key=lambda pair: distance(*(palette[n] for n in pair), vision))
    assert distance(*(palette[name] for name in closest), vision) >= 15, closest


def test_both_palettes_have_the_same_colors():
    assert LIGHT.keys() == DARK.keys()
