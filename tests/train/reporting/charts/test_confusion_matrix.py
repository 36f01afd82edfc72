"""Confusion matrices as SVG, including hostile class names."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from train.reporting.charts import confusion_matrix
from train.reporting.confusions import Confusions, clustered_order, matrix_cells

SVG = "{http://www.w3.org/2000/svg}"
SUBTITLE = "run <1> · test: 60 images, step 440"


def confusions(names, matrix, clustered=False):
    totals, cells = np.sum(matrix, axis=1).tolist(), matrix_cells(matrix)
    order = clustered_order(totals, cells) if clustered else range(len(names))
    return Confusions(names, totals, cells, order)


def parse(text):
    """Return the root of an SVG file, and all its texts without titles."""
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg" and "var(" not in text
    return root, [element.text for element in root.iter(f"{SVG}text")]


def many(classes):
    """Return a matrix with two of three images right, and one class without images."""
    matrix = 2 * np.eye(classes, dtype=int) + np.roll(np.eye(classes, dtype=int), 1, axis=1)
    matrix[5] = 0
    return confusions([f"class {k}" for k in range(classes)], matrix, clustered=True)


def test_numbered_cells_show_share_and_count_in_two_hues():
    matrix = np.array([[31, 2, 0], [0, 1234, 0], [1, 0, 7]])
    names = ["<&\x1b\udcff", "狗", "a class with a very long name"]
    root, texts = parse(confusion_matrix.document(confusions(names, matrix), SUBTITLE))
    cells = [e for e in root.iter(f"{SVG}text") if (e.get("class") or "").startswith("count")]
    shown = [(cell.text, cell.find(f"{SVG}tspan").text) for cell in cells]
    expected = [
        ("93.9 %", "31"),
        ("6.1 %", "2"),
        ("100 %", "1,234"),
        ("12.5 %", "1"),
        ("87.5 %", "7"),
    ]
    assert shown == expected
    # Of right cells the tenth of the share, of wrong ones that of its square root.
    steps = [cell.get("class").split()[1] for cell in cells]
    assert steps == ["r10", "w3", "r10", "w4", "r9"]
    assert [rect.get("class") for rect in root.iter(f"{SVG}rect")][1:6] == steps
    titles = [cell.find(f"{SVG}title").text for cell in cells]
    assert titles[1] == "<&\\x1b\\udcff: 2 images (6.1 %) predicted as 狗"
    assert texts.count("狗") == 2 and texts.count("a class with a very…") == 2
    assert {"Confusion matrix", SUBTITLE, "true class", "predicted class", "images"} <= {*texts}
    assert {"33", "1,234", "8"} <= {*texts} and {"right", "wrong"} <= {*texts}


def test_everything_is_within_the_drawing():
    for size in (1, 2, 10, 20, 40, 300):
        matrix = np.full((size, size), 123456)
        names = ["狗" * 200, *("W" * 30 for _ in range(size - 1))]
        root, _ = parse(confusion_matrix.document(confusions(names, matrix), SUBTITLE))
        width = float(root.get("width"))
        shift = [
            float(g.get("transform")[10:].split()[0])
            for g in root.iter(f"{SVG}g")
            if g.get("transform", "").startswith("translate(")
        ]
        assert max(shift) + size * (48 if size <= 20 else 13) < width


def test_rows_without_images_are_marked():
    matrix = np.array([[3, 1], [0, 0]])
    root, texts = parse(confusion_matrix.document(confusions(["a", "b"], matrix), SUBTITLE))
    [mark] = [element for element in root.iter() if element.get("class") == "empty"]
    row = float(re.match(r"M0 ([\d.]+)h", mark.get("d"))[1])
    rect = next(r for r in root.iter(f"{SVG}rect") if r.get("class"))
    assert row == 1.5 * float(rect.get("height")) and "none" in texts
    root, texts = parse(confusion_matrix.document(confusions(["a", "b"], np.eye(2)), SUBTITLE))
    assert "none" not in texts and not [e for e in root.iter() if e.get("class") == "empty"]


@pytest.mark.parametrize("size", (21, 60, 300))
def test_many_classes_are_squares_in_the_order_of_the_clustering(size):
    found = many(size)
    root, texts = parse(confusion_matrix.document(found, SUBTITLE))
    assert not [e for e in root.iter() if (e.get("class") or "").startswith("count")]
    squares = {}
    for path in root.iter(f"{SVG}path"):
        if re.fullmatch(r"[rw]\d+", path.get("class") or ""):
            for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", path.get("d")):
                squares[int(y), int(x)] = path.get("class")
    place = {index: position for position, index in enumerate(found.order)}
    assert squares == {
        (place[label], place[predicted]): confusion_matrix.cell_class(
            examples / 3, label == predicted
        )
        for label, predicted, examples in found.cells
    }
    assert set(squares.values()) == {"r7", "w6"}  # 2 of 3, and the root of 1 of 3
    names = [text for text in texts if re.fullmatch(r"class \d+", text)]
    assert names == [f"class {k}" for k in found.order] * 2
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert (
        "class 3: 1 image (33.3 %) predicted as class 4" in titles and "class 5: 0 images" in titles
    )


def test_pages_of_many_classes_have_no_names_but_a_window_that_shows_them():
    found = many(300)
    text = confusion_matrix.inline(found, "key")
    root = ElementTree.fromstring(text)
    assert len(list(root.iter("text"))) < 30 and text.count(' id="key"') == 1
    assert "confusion matrix of 300 classes, 897 images, 66.7 % right" in text
    window = confusion_matrix.zoomed(found, "key")
    root = ElementTree.fromstring(window)
    assert [use.get("href") for use in root.iter("use")] == ["#key"]
    assert len(list(root.iter("text"))) == 2 * 300
    assert "class 3: 1 image (33.3 %) predicted as class 4" in window
    assert len(text) + len(window) < 250_000


def test_steps_of_shares():
    steps = [confusion_matrix.cell_class(share, True) for share in (1e-6, 0.1, 0.1001, 0.7, 1)]
    assert steps == ["r1", "r1", "r2", "r7", "r10"]
    steps = [confusion_matrix.cell_class(share, False) for share in (1e-6, 0.01, 0.04, 0.25, 1)]
    assert steps == ["w1", "w1", "w2", "w5", "w10"]
