"""transformers and timm load an exported folder, with its preprocessing, and answer as the run."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from flax_resnet import create_model
from flax_resnet.preprocessing import Preprocessing
from flax_resnet.runs import Run
from tests.flax_resnet.peers import peer, randomized
from train.export.formats import WRITERS
from train.export.own_preprocessing import own_preprocessing
from train.export.support import missing_in

CLASSES = tuple("abcd")
MEAN, STD = (0.5, 0.4, 0.6), (0.2, 0.3, 0.25)


@pytest.fixture(scope="module")
def pictures():
    """100 pictures of odd sizes: patches of color that depend on the class, with noise."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (len(CLASSES), 3, 3, 3))
    made = []
    for number in range(100):
        height, width = rng.integers(21, 200, 2)
        colors = patches[number % len(CLASSES)] + rng.integers(-30, 31, (3, 3, 3))
        colors = Image.fromarray(colors.clip(0, 255).astype(np.uint8))
        smooth = np.asarray(colors.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        made.append((smooth + rng.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8))
    return made


def make_run(pictures, name, preprocessing, activation="softmax", **fields):
    """Return a run of random features, with a head for the classes of the pictures."""
    model = create_model(name, num_classes=len(CLASSES), **fields)
    variables = randomized(model)
    run = Run("", 1, "raw", model, variables, CLASSES, preprocessing, {"model.name": name})
    features = run.features(pictures)
    labels = 2 * np.eye(len(CLASSES))[np.arange(len(pictures)) % len(CLASSES)] - 1
    # Ridge regression of the labels, in the dual form: there are more features than pictures.
    center, mean = features.mean(axis=0), labels.mean(axis=0)
    gram = (features - center) @ (features - center).T
    ridge = 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram))
    kernel = (features - center).T @ np.linalg.solve(gram + ridge, labels - mean)
    head = {"kernel": np.float32(kernel), "bias": np.float32(mean - center @ kernel)}
    variables = variables | {"params": variables["params"] | {"head": head}}
    return dataclasses.replace(run, variables=variables, activation=activation)


def probabilities_of(run, format, folder, pictures, monkeypatch):
    """Export the run and return what the code of the model card computes."""
    WRITERS[format](run, str(folder / "model.safetensors"))
    monkeypatch.chdir(folder)
    own = own_preprocessing(run, format, "model.safetensors")
    namespace = {"np": np, "pictures": [Image.fromarray(picture) for picture in pictures]}
    exec(own.setup + own.probabilities, namespace)
    return np.asarray(namespace["probabilities"])


@pytest.mark.peer
@pytest.mark.parametrize(
    "format, name, preprocessing, activation, fields",
    [
        ("huggingface", "resnet18", (73, 64, "bilinear"), "softmax", {"width": 16}),
        ("huggingface", "resnet18", (64, 64, "bicubic"), "sigmoid", {"width": 8}),
        # transformers' own processor of ResNets would squeeze the images to 384 pixels.
        ("huggingface", "resnet18", (439, 384, "bilinear"), "softmax", {"width": 8}),
        (
            *("huggingface", "resnetv2_50x1_bit", (73, 64, "bilinear"), "softmax"),
            {"width": 32, "stage_sizes": (1, 1, 1, 1)},
        ),
        ("timm", "resnet18", (67, 64, "bicubic"), "sigmoid", {}),
        ("timm", "resnet18", ((73, 91), (64, 80), "bilinear"), "softmax", {}),
    ],
)
def test_top1_of_pictures_of_odd_sizes(
    format, name, preprocessing, activation, fields, pictures, tmp_path, monkeypatch
):
    peer({"huggingface": "transformers"}.get(format, format))
    preprocessing = Preprocessing(*preprocessing, MEAN, STD)
    if preprocessing.shorter_side > 100:
        pictures = pictures[:12]
    run = make_run(pictures, name, preprocessing, activation, **fields)
    assert not missing_in(run, format)
    expected = run.predict(pictures)
    top1 = expected.argmax(axis=1)
    np.testing.assert_array_equal(top1, np.arange(len(top1)) % len(CLASSES))
    assert expected.max(axis=1).mean() < 0.9  # not saturated
    found = probabilities_of(run, format, tmp_path, pictures, monkeypatch)
    np.testing.assert_array_equal(found.argmax(axis=1), top1)
    # They differ in resampling: transformers resizes with PyTorch, and its crops and timm's of
    # images that are not square are up to a pixel off.
    assert 0 < abs(found - expected).max() < 0.05
