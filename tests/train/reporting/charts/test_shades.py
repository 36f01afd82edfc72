"""Colors of cells of confusion matrices: readable text, steps and hues that can be told apart."""

import itertools

import pytest

from tests.train.reporting.charts.test_palette import VISIONS, contrast, distance
from train.reporting.charts.palette import DARK, LIGHT
from train.reporting.charts.shades import STEPS, style

PALETTES = pytest.mark.parametrize("palette", (LIGHT, DARK), ids=("light", "dark"))


@PALETTES
def test_text_on_each_cell_is_readable(palette):
    names = [f"{letter}{step}" for letter in "rw" for step in range(1, STEPS + 1)]
    for name in names:
        assert contrast(palette[name], palette[f"{name}t"]) >= 4.5, name
        assert f".{name} {{" in style() and f"text.{name} {{" in style()


@PALETTES
def test_steps_go_from_the_background_to_the_hue(palette):
    for letter in "rw":
        ratios = [
            contrast(palette[f"{letter}{step}"], palette["back"]) for step in range(1, STEPS + 1)
        ]
        assert ratios == sorted(ratios) and ratios[0] > 1.1 and ratios[-1] > 5.9


@PALETTES
@pytest.mark.parametrize("vision", VISIONS)
def test_right_and_wrong_differ_also_for_the_color_blind(palette, vision):
    steps = range(STEPS // 2, STEPS + 1)
    for right, wrong in itertools.product(steps, steps):
        assert distance(palette[f"r{right}"], palette[f"w{wrong}"], vision) > 15
