"""The policies and color jitter against torchvision's, for each magnitude."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.flax_resnet.peers import peer
from train.data.augment import auto_augment
from train.data.augment.pipeline import color_jitter

pytestmark = pytest.mark.peer

HEIGHT, WIDTH = 36, 50
NAMES = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "contrast": "Contrast",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "color": "Color",
    "sharpness": "Sharpness",
}


@pytest.fixture(scope="module")
def transforms():
    return peer("torchvision.transforms")


def photo():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([4 * x + y, 90 + 60 * np.sin(x / 5 + y / 3), 3 * y + 20], -1)
    noise = rng.normal(size=(HEIGHT, WIDTH, 3)) * np.linspace(0, 25, WIDTH)[:, None]
    return np.clip(smooth + noise, 0, 230).astype(np.uint8)


def to_torch(image):
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0)))


@pytest.mark.parametrize("kind", ["trivial", "rand"])
def test_operations_and_strengths_match_torchvision(transforms, kind):
    if kind == "trivial":
        space, policy = auto_augment.WIDE, transforms.TrivialAugmentWide()
        table = policy._augmentation_space(31)
    else:
        space, policy = auto_augment.NARROW, transforms.RandAugment()
        table = policy._augmentation_space(31, (HEIGHT, WIDTH))
    assert set(table) == set(NAMES.values())
    assert set(NAMES) == set(auto_augment.OPERATIONS)
    operate = jax.jit(partial(auto_augment.apply_operation, space))
    image = photo()
    for name, theirs in NAMES.items():
        magnitudes, signed = table[theirs]
        for level in range(0, 31, 3):
            for sign in (-1, 1) if signed else (1,):
                # Rounded, since its 15.999999 pixels would be truncated to 15.
                magnitude = round(float(magnitudes[level]), 4) if magnitudes.ndim else 0.0
                expected = transforms.autoaugment._apply_op(
                    to_torch(image), theirs, sign * magnitude,
                    transforms.InterpolationMode.BILINEAR, None,
                )  # fmt: skip
                expected = np.moveaxis(expected.numpy(), 0, -1).astype(int)
                operation = float(auto_augment.OPERATIONS.index(name))
                got = np.asarray(operate(image, operation, level / 30, float(sign)))
                off = np.abs(got - expected)
                # Blending in torchvision truncates gray levels, and results just below an integer.
                assert off.max() <= (2 if name in ("color", "contrast") else 1), (name, level)
                if name not in ("color", "contrast", "sharpness"):
                    assert (off > 0).mean() < 0.03, (name, level, sign)


def test_policies_have_the_defaults_of_torchvision(transforms):
    theirs = transforms.RandAugment()
    ours = auto_augment.rand_augment(2, 9)
    assert (ours.num_ops, ours.magnitude) == (theirs.num_ops, theirs.magnitude)
    assert theirs.num_magnitude_bins == auto_augment.MAGNITUDES
    assert transforms.TrivialAugmentWide().num_magnitude_bins == auto_augment.MAGNITUDES


@pytest.mark.parametrize("draws", [(0, 0, 0, 0), (0.2, 0.9, 0.6, 0.3), (1, 1, 1, 1)])
def test_color_jitter_matches_torchvision(transforms, draws):
    """On floats, which torchvision does not round between the operations."""
    functional = transforms.functional
    reach = 0.4, 0.5, 0.6, 0.2
    jitter = transforms.ColorJitter(*reach)
    ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    factors = [low + draw * (high - low) for (low, high), draw in zip(ranges, draws, strict=True)]
    expected = to_torch(photo()).float() / 255
    adjust = [getattr(functional, f"adjust_{name}") for name in
              ("brightness", "contrast", "saturation", "hue")]  # fmt: skip
    for function, factor in zip(adjust, factors, strict=True):
        expected = function(expected, factor)
    expected = 255 * np.moveaxis(expected.numpy(), 0, -1)
    got = np.asarray(color_jitter(jnp.asarray(photo()), reach, jnp.float32(draws)))
    np.testing.assert_allclose(got, expected, atol=0.6)
