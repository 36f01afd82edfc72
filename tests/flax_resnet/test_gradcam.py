"""Grad-CAM on images with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet import create_model, init_variables
from flax_resnet.gradcam import gradcam, overlay

SIZE = 24
MARKS = np.array([(1, 0.2, 0.2), (0.2, 1, 0.2), (0.2, 0.2, 1), (1, 1, 0.2)])  # colors by class


def marked_images(rng, count):
    """Return noise images with a mark of the class's color, labels, and the marks' quadrants."""
    images = rng.uniform(0, 1, (count, SIZE, SIZE, 3)).astype(np.float32)
    labels, quadrants = rng.integers(4, size=(2, count))
    half = SIZE // 2
    for image, label, quadrant in zip(images, labels, quadrants, strict=True):
        top, left = (half * (quadrant // 2) + 3, half * (quadrant % 2) + 3)
        image[top : top + 6, left : left + 6] = MARKS[label]
    return (images - 0.5) / 0.3, labels, quadrants


def trained(model, steps=60):
    rng = np.random.default_rng(0)
    variables = init_variables(model, 0, (SIZE, SIZE, 3))
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(variables, state, images, labels):
        def loss(params):
            logits, updates = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        gradients, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params} | statistics, state

    state = optimizer.init(variables["params"])
    for _ in range(steps):
        images, labels, _ = marked_images(rng, 32)
        variables, state = step(variables, state, images, labels)
    return variables


@pytest.fixture(scope="module", params=[False, True], ids=["residual", "preactivation"])
def net(request):
    """A network that classifies the color of a mark, independent of its position."""
    model = create_model(
        "resnet20", num_classes=4, stage_sizes=(1, 1), width=16, preactivation=request.param,
        norm_momentum=0.8,
    )  # fmt: skip
    return model, trained(model)


def fraction_in_quadrant(maps, quadrants):
    """Return the fraction of each map's heat in the quadrant."""
    half = SIZE // 2
    heat = maps.reshape(-1, 2, half, 2, half).sum(axis=(2, 4)).reshape(-1, 4)
    return heat[np.arange(len(heat)), quadrants] / heat.sum(axis=1)


@pytest.mark.parametrize("stage", [None, 1])
def test_heat_is_in_the_quadrant_of_the_mark(net, stage):
    model, variables = net
    images, labels, quadrants = marked_images(np.random.default_rng(1), 64)
    logits = model.apply(variables, images)
    assert (logits.argmax(axis=1) == labels).mean() > 0.95  # otherwise there is nothing to explain
    maps = np.asarray(gradcam(model, variables, images, labels, stage=stage))
    assert maps.shape == (64, SIZE, SIZE) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    fractions = fraction_in_quadrant(maps, quadrants)
    assert np.median(fractions) > 0.65 and (fractions > 0.4).mean() > 0.95  # by chance: 0.25


def test_map_depends_on_the_class(net):
    model, variables = net
    images, labels, quadrants = marked_images(np.random.default_rng(2), 32)
    predicted = np.asarray(model.apply(variables, images)).argmax(axis=1)
    default = np.asarray(gradcam(model, variables, images))
    np.testing.assert_allclose(default, gradcam(model, variables, images, predicted), atol=1e-5)
    other = np.asarray(gradcam(model, variables, images, (labels + 1) % 4))
    assert np.median(fraction_in_quadrant(other + 1e-9, quadrants)) < 0.3


def test_equations_1_and_2_of_the_paper(net):
    """At the last stage the weights are proportional to the head's, since only pooling follows."""
    model, variables = net
    images = marked_images(np.random.default_rng(3), 3)[0]
    maps = np.asarray(model.apply(variables, images, method="forward_features"))
    head = np.asarray(variables["params"]["head"]["kernel"])
    heat = np.maximum(maps @ head[:, 2], 0)
    heat /= heat.max(axis=(1, 2), keepdims=True)
    expected = jax.image.resize(heat, (3, SIZE, SIZE), "linear")
    np.testing.assert_allclose(gradcam(model, variables, images, 2), expected, atol=1e-4)


def test_images_are_explained_independently(net):
    model, variables = net
    images = marked_images(np.random.default_rng(4), 4)[0]
    together = gradcam(model, variables, images, [0, 1, 2, 3], stage=1)
    single = gradcam(model, variables, images[2:3], 2, stage=1)
    np.testing.assert_allclose(together[2], single[0], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": 3}, "stage must be 1 to 2, not 3"),
        ({"classes": [4]}, "classes must be 0 to 3"),
        ({"classes": [0.5]}, "classes must be 0 to 3"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    model = create_model("resnet20", num_classes=4, stage_sizes=(1, 1))
    with pytest.raises(ValueError, match=message):
        gradcam(model, {}, jnp.zeros((1, 8, 8, 3)), **arguments)
    with pytest.raises(ValueError, match="num_classes=0"):
        gradcam(model.clone(num_classes=0), {}, jnp.zeros((1, 8, 8, 3)))


def test_overlay_colors_only_the_heat():
    image = np.full((4, 4, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[1, 2] = 1
    over = overlay(image, heat)
    assert over.dtype == np.uint8 and (over[1, 2] == (201, 35, 35)).all()
    over[1, 2] = 100
    assert (over == 100).all()
