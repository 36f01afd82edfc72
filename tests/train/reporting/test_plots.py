"""Grids of images and explanations as PNG files."""

import cv2
import numpy as np
import pytest

from train.reporting import plots
from train.reporting.fonts.typesetter import Typesetter
from train.reporting.loggers.tensorboard import confusion_table
from train.reporting.plots import Pictures


def decode(png):
    """Return the RGB image of a PNG."""
    return cv2.imdecode(np.frombuffer(png, np.uint8), 1)[..., ::-1]


def positions(sheet, color):
    """Return the boxes ``(top, left, bottom, right)`` of filled rectangles of one color."""
    mask = (sheet == color).all(axis=2).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    return [(t, left, t + h, left + w) for left, t, w, h, area in stats[1:] if area > 100]


@pytest.fixture
def drawn(monkeypatch):
    """The lines that are drawn, as ``(x, y, text)``."""
    lines = []
    original = Typesetter.draw

    def draw(self, image, x, baseline, line, color):
        lines.append((x, baseline, line))
        original(self, image, x, baseline, line, color)

    monkeypatch.setattr(Typesetter, "draw", draw)
    return lines


def test_grid_shows_title_images_captions_and_names(drawn):
    images = np.zeros((5, 10, 20, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    captions = ["true: cat\npredicted: dog", *"abcd"]
    names = [f"folder/{number}.png" for number in range(5)]
    title = "run · mistakes · 5 of 7 among 10 images of 'test' · step 3"
    sheet = decode(plots.grid_png(Pictures(images, captions, names, title), columns=3))
    boxes = positions(sheet, (255, 0, 0))
    assert len(boxes) == 5
    heights, widths = zip(*[(b - t, r - left) for t, left, b, r in boxes], strict=True)
    assert {w / h for w, h in zip(widths, heights, strict=True)} == {2.0}
    assert set(widths) == {180} and set(heights) == {90}  # small pixels stay equally large
    texts = [text for _, _, text in drawn]
    assert texts[0] == title and drawn[0][1] < min(top for top, *_ in boxes)
    place = {text: (x, y) for x, y, text in drawn}
    for (top, left, bottom, _), lines, name in zip(boxes, captions, names, strict=True):
        for line in lines.split("\n"):
            assert place[line][0] == left and top - 40 < place[line][1] < top
        assert place[name][0] == left and bottom < place[name][1] < bottom + 20
    assert place["predicted: dog"][1] == place["a"][1]  # captions end at their images
    assert sheet.shape[1] > 3 * 180 and sheet[-1].min() == 255


def test_grid_of_one_image_fits_its_title():
    title = "a run with a long name · training images as the network sees them · 1 of 1"
    images = np.zeros((1, 224, 224, 3), np.uint8)
    alone = decode(plots.grid_png(Pictures(images, ["a"], [], title)))
    [(_, left, _, right)] = positions(alone, (0, 0, 0))
    assert right - left > 100 and alone.shape[1] < 800
    assert (alone[:, -8:] == 255).all() and (alone[:, :8] == 255).all()  # nothing is cut


@pytest.mark.parametrize(
    "caption", ["", "\n\n", "a\x1b[2J\u202e\udcff", "x" * 2000, "$\\frac$ 狗 \U0001f436"]
)
@pytest.mark.filterwarnings("ignore::train.reporting.fonts.choice.GlyphWarning")
def test_any_caption_can_be_drawn(caption):
    pictures = Pictures(np.zeros((2, 8, 8, 3), np.uint8), [caption] * 2, [caption] * 2, caption)
    assert decode(plots.grid_png(pictures)).shape[1] < 1300


def test_explanation_shows_input_map_and_scale(drawn, tmp_path):
    square = np.full((32, 32, 3), 200, np.uint8)
    heat = np.zeros((32, 32))
    heat[:16, :16] = 1
    path = tmp_path / "a.png"
    plots.draw_explanation(str(path), square, heat, "cat.jpg", ["cat 98.0 %", "run, step 3"], "cat")
    sheet = decode(path.read_bytes())
    first, second = sorted(positions(sheet, (200, 200, 200)), key=lambda box: box[1])[:2]
    assert first[:1] == second[:1] and second[1] > first[3]
    red = (np.array([255, 0, 0]) * 0.65 + 0.35 * 200).round()
    [(top, left, bottom, right)] = positions(sheet, red)
    assert (top, left) == second[:2] and right - left == bottom - top == (first[3] - first[1]) / 2
    texts = [text for _, _, text in drawn]
    assert texts == [
        *("cat.jpg", "cat 98.0 %", "run, step 3", "network input", "Grad-CAM of cat", "1", "0")
    ]


def test_confusions_of_tensorboard_are_a_table():
    matrix = np.array([[3, 1], [0, 2]])
    lines = confusion_table(matrix, ["<a>|b", "狗"]).split("\n")
    assert lines == [
        "| label ↓, predicted → | &lt;a&gt;&#124;b | 狗 |",
        "| --- | --- | --- |",
        "| &lt;a&gt;&#124;b | 3 | 1 |",
        "| 狗 | 0 | 2 |",
    ]
    matrix = np.eye(40, dtype=int) * 10
    matrix[3, 4], matrix[7, 1] = 5, 30
    lines = confusion_table(matrix, [f"c{i}" for i in range(40)]).split("\n")
    assert lines[2:] == ["| c7 | c1 | 30 | 75.0 % |", "| c3 | c4 | 5 | 33.3 % |"]
