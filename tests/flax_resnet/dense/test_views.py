"""Averages over scaled and mirrored pictures, beside PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from flax_resnet.dense.views import SAME, average_probabilities, make_views

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 13, 18, 3)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 3, 5)).astype(np.float32)


def network(images):
    """Return logits that depend on the neighbors of a pixel."""
    return jax.lax.conv_general_dilated(
        images, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def averaged(views):
    size = IMAGES.shape[1:3]
    return average_probabilities(
        [view.undo(network(view.of(jnp.asarray(IMAGES))), size) for view in views]
    )


def torch_average(scales, flips):
    """Return the mean probabilities as other libraries compute them."""
    images = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
    kernel = torch.from_numpy(KERNEL.transpose(3, 2, 0, 1).copy())
    found = []
    for scale in scales:
        size = [round(side * scale) for side in images.shape[2:]]
        scaled = F.interpolate(images, size, mode="bilinear", align_corners=False)
        for flip in flips:
            logits = F.conv2d(scaled.flip(3) if flip else scaled, kernel, padding=1)
            logits = logits.flip(3) if flip else logits
            logits = F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
            found.append(logits.softmax(1))
    return torch.stack(found).mean(0).numpy().transpose(0, 2, 3, 1)


def test_the_average_over_scales_and_mirror_images_is_pytorchs():
    scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    expected = torch_average(scales, (False, True))
    np.testing.assert_allclose(np.exp(averaged(make_views(scales, flip=True))), expected, atol=1e-5)
    assert np.abs(expected - torch_average(scales, (False,))).max() > 0.01


def test_probabilities_are_averaged_not_logits():
    logits = [jnp.array([[30.0, 0.0]]), jnp.array([[0.0, 2.0]])]
    p = np.exp(average_probabilities(logits))
    np.testing.assert_allclose(p, [[(1 + 1 / (1 + np.e**2)) / 2, (1 - 1 / (1 + np.e**2)) / 2]])


def test_tiny_probabilities_stay_finite():
    logits = jnp.array([[0.0, -500.0, -1000.0]])
    average = average_probabilities([logits, logits - 3])
    np.testing.assert_allclose(average, logits, atol=1e-4)


def test_one_view_changes_nothing():
    np.testing.assert_array_equal(averaged(SAME), network(IMAGES))
