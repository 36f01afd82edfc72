"""Which images of an evaluation are shown: mistakes, and right ones of many classes."""

from types import SimpleNamespace

import numpy as np
import pytest

from train.reporting.report import evaluated_images
from train.reporting.report.evaluated_images import choose_right, image_parts, image_sections
from train.tasks.predictions import Predictions

SHAPES = ((16, 16, 1), (80, 40, 3), (20, 20, 7))


def evaluation(labels, predicted, shape=(16, 16, 3), dtype=np.uint8, classes=30):
    """Return an evaluation without variables; the confidence falls from image to image."""
    labels, predicted = np.array(labels), np.array(predicted)
    count = len(labels)
    predictions = Predictions(
        record=np.arange(count),
        label=labels,
        predicted=predicted,
        rank=(labels != predicted).astype(int),
        confidence=np.linspace(0.9, 0.5, count),
        outputs=classes,
    )
    images = np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(dtype)
    source = SimpleNamespace(record_name=lambda record: f"{record}.png")
    loader = SimpleNamespace(
        source=source, image_shape=shape, center_crops=lambda records: images[records]
    )
    return SimpleNamespace(predictions=predictions, loader=loader, variables=None, model=None)


def test_right_images_are_of_different_classes_those_of_mistakes_first():
    evaluated = evaluation([*range(20), 19, 0], [*range(20), 18, 5])
    right = evaluated.predictions.right
    chosen = choose_right(evaluated, right, np.array([20, 21]))
    assert len(chosen) == evaluated_images.MAX_EXAMPLES and right[chosen].all()
    assert {18, 19, 0, 5} <= {*chosen.tolist()}  # labels and predictions of the mistakes
    assert len({*evaluated.predictions.label[chosen]}) == len(chosen)


def test_right_images_are_the_most_confident_of_their_class():
    evaluated = evaluation([2, 2, 1, 1, 0], [2, 2, 1, 1, 1])
    right = evaluated.predictions.right
    assert sorted(choose_right(evaluated, right, np.array([4]))) == [0, 2]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", (np.uint8, np.uint16))
def test_any_images_without_maps_are_shown(shape, dtype):
    evaluated = evaluation([0, 1, 1], [0, 1, 0], shape, dtype)
    mistakes = np.array([2])
    captions = lambda indices: [f"caption {i}" for i in indices]  # noqa: E731
    parts = image_parts(evaluated, evaluated.predictions.right, mistakes, captions)
    assert parts["small"] == (max(shape[:2]) < 64) and parts["aspect"] == shape[1] / shape[0]
    assert [cell["caption"] for cell in parts["mistakes"]] == ["caption 2\n2.png"]
    assert len(parts["right"]) == 2 and "heat" not in parts["right"][0]
    page = "".join(image_sections(parts, "predicted class", "k"))
    assert "Grad-CAM" not in page and "Most confident mistakes" in page and "2.png" in page


def test_a_single_image_right_or_wrong():
    for predicted, present, absent in ((0, "right", "mistakes"), (1, "mistakes", "right")):
        evaluated = evaluation([0], [predicted])
        mistakes = np.flatnonzero(~evaluated.predictions.right)
        parts = image_parts(
            evaluated, evaluated.predictions.right, mistakes, lambda i: ["a"] * len(i)
        )
        assert len(parts[present]) == 1 and absent not in parts
