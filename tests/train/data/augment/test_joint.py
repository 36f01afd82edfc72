"""Joint augmentation: image and mask stay aligned, and move as other libraries move them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.data.masked import mask
from tests.train.pictures import photograph
from train.config.loading import check_config, default_config
from train.data.augment.configured import make_joint_augment
from train.data.augment.joint import JointAugment
from train.data.augment.pipeline import color_jitter, example_keys
from train.data.canvas import place_on_canvas
from train.runtime.errors import UsageError

SCALE = 256  # of coordinates in images of 16 bits
COUNT = 96
IGNORED = 255


def augmented(augment, images, masks, step=0):
    """Return images and masks augmented as in a step with seed 0."""
    keys = example_keys(0, step, jnp.arange(len(images)))
    images, targets = jax.jit(augment.batch)(images, masks, keys)
    assert targets.other is None
    return np.asarray(images), np.asarray(targets.label)


def coordinates(height, width, canvas):
    """Return images of the coordinates y and x, and two masks, each with one of them."""
    y, x = np.mgrid[:height, :width]
    image = np.zeros((*canvas, 2), np.uint16)
    image[:height, :width] = np.stack([y, x], 2) * SCALE + SCALE // 2
    masks = np.full((2, *canvas), IGNORED, np.uint8)
    masks[:, :height, :width] = y, x
    return image, masks


@pytest.mark.filterwarnings("ignore:All-NaN")  # rows outside of the picture
@pytest.mark.parametrize(
    ("picture", "canvas", "crop", "scale", "hflip", "vflip"),
    [
        ((40, 30), (40, 30), None, (1.0, 1.0), True, True),
        ((40, 30), (48, 56), None, (0.5, 2.0), True, False),
        ((40, 56), (40, 56), (24, 33), (0.5, 2.0), True, True),
        ((33, 21), (64, 64), (70, 50), (0.3, 0.9), False, True),
        ((48, 48), (48, 48), (16, 16), (1.0, 1.0), True, False),
        ((17, 100), (30, 120), (50, 50), (1.7, 5.0), True, True),
        ((1, 5), (8, 8), None, (0.5, 2.0), True, True),
    ],
)
def test_image_and_mask_have_the_same_coordinates(picture, canvas, crop, scale, hflip, vflip):
    """Each pixel of the mask comes from within half a pixel of where that of the image does."""
    image, masks = coordinates(*picture, canvas)
    augment = JointAugment(scale, crop, hflip, vflip, fill=(0, 0))
    images = np.repeat(image[None], COUNT, 0)
    found = []
    for axis in (0, 1):
        out, classes = augmented(augment, images, np.repeat(masks[axis : axis + 1], COUNT, 0))
        assert out.shape[1:3] == classes.shape[1:] == (crop or canvas)
        inside = classes != IGNORED
        np.testing.assert_array_equal(inside, out[..., axis] != 0)  # outside both are filled
        assert inside.any((1, 2)).all()
        position = out[..., axis] / SCALE - 0.5
        assert abs(position - classes)[inside].max() <= 0.5 + 2 / SCALE
        found.append(np.where(inside, position, np.nan))
        steps = np.diff(found[axis], axis=1 + axis)
        signs = {*np.unique(np.sign(steps[abs(steps) > 1e-3])).tolist()}
        assert signs <= {1.0, -1.0}
        if picture[axis] > 1:
            assert (-1.0 in signs) == (hflip if axis else vflip) and 1.0 in signs
        # All rows have the same columns, and the reverse.
        low, high = np.nanmin(found[axis], 2 - axis), np.nanmax(found[axis], 2 - axis)
        np.testing.assert_allclose(low, high, atol=1.5 / SCALE)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.6, 2.0])
def test_scaled_pictures_equal_those_of_torch(scale):
    torch = pytest.importorskip("torch")
    height, width = 20, 28
    size = round(height * scale), round(width * scale)
    image, classes = photograph(1, height, width), mask(1, height, width)
    classes[-6:] = IGNORED  # which is no padding
    augment = JointAugment((scale, scale + 1e-7), size, fill=(9, 9, 9))
    canvas = place_on_canvas(image, classes, (32, 40), (9, 9, 9), IGNORED)
    out, labels = augmented(augment, *(array[None] for array in canvas))
    resize = torch.nn.functional.interpolate
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    expected = resize(pixels, size, mode="bilinear", align_corners=False)
    expected = expected[0].permute(1, 2, 0).numpy()
    assert abs(out[0] - expected).max() <= 0.5 + 1e-3
    exact = resize(torch.tensor(classes)[None, None].float(), size, mode="nearest-exact")
    np.testing.assert_array_equal(labels[0], exact[0, 0].numpy())


def test_a_canvas_has_no_effect_beyond_its_picture():
    """So a run may choose a larger canvas without other crops."""
    picture, classes = photograph(2, 30, 22), mask(2, 30, 22)
    augment = JointAugment((0.5, 2.0), (32, 32), hflip=True, fill=(200, 0, 200))
    results = []
    for canvas in ((30, 22), (64, 50)):
        placed = place_on_canvas(picture, classes, canvas, (200, 0, 200), IGNORED)
        results.append(augmented(augment, *(np.repeat(array[None], 24, 0) for array in placed)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_scales_and_places_are_uniform():
    canvas = coordinates(24, 24, (24, 24))
    images, masks = (np.repeat(array[None], 2000, 0) for array in (canvas[0], canvas[1][1]))
    out, _ = augmented(JointAugment((0.5, 2.0), (12, 12), fill=(0, 0)), images, masks)
    x = out[:, 6, :, 1].astype(float) / SCALE
    scales = 11 / (x[:, -1] - x[:, 0])
    counts, _ = np.histogram(scales, np.linspace(0.49, 2.03, 6))
    assert counts.min() > 300 and counts.max() < 500  # 400 on average
    # The place of the crop, as a share of what is left of the scaled picture.
    share = (x[:, 0] * scales - 0.5) / np.maximum(24 * scales - 12, 1)
    counts, _ = np.histogram(share[scales > 1], [-0.1, 0.25, 0.5, 0.75, 1.1])
    assert counts.min() > 0.2 * counts.sum() and counts.max() < 0.3 * counts.sum()


def test_the_result_depends_on_seed_step_and_position_only():
    images = np.stack([photograph(n, 24, 24) for n in range(6)])
    masks = np.stack([mask(n, 24, 24) for n in range(6)])
    augment = JointAugment((0.5, 2.0), None, True, True, (0.3, 0.3, 0.3, 0.1))
    images_out, masks_out = augmented(augment, images, masks, step=7)
    keys = example_keys(0, 7, jnp.arange(6))
    for part in (slice(0, 2), slice(2, 6)):
        some, targets = jax.jit(augment.batch)(images[part], masks[part], keys[part])
        np.testing.assert_array_equal(some, images_out[part])
        np.testing.assert_array_equal(targets.label, masks_out[part])
    other, _ = augmented(augment, images, masks, step=8)
    assert (other != images_out).any((1, 2, 3)).all()


def test_colors_change_in_the_picture_only():
    canvas = place_on_canvas(photograph(4, 20, 30), mask(4, 20, 30), (32, 32), (7, 8, 9), IGNORED)
    images, masks = (np.repeat(array[None], 8, 0) for array in canvas)
    plain = JointAugment(fill=(7, 8, 9))
    colored = JointAugment(fill=(7, 8, 9), color_jitter=(0.4, 0.4, 0.4, 0.1))
    out, classes = augmented(colored, images, masks)
    np.testing.assert_array_equal(augmented(plain, images, masks)[0], images)
    np.testing.assert_array_equal(classes, masks)
    assert (out[:, 20:] == (7, 8, 9)).all() and (out[:, :, 30:] == (7, 8, 9)).all()
    keys = example_keys(0, 0, jnp.arange(8))
    draws = jax.vmap(lambda key: jax.random.uniform(key, (9,)))(keys)[:, -4:]
    expected = jax.jit(jax.vmap(lambda i, d: color_jitter(i, colored.color_jitter, d)))(
        images, draws
    )
    inside = masks != IGNORED
    assert abs(out[inside].astype(int) - np.asarray(expected)[inside]).max() <= 1
    assert (out != images)[inside].any()


def test_the_configuration_chooses_the_augmentation():
    config = default_config()
    config.dataset.image_size = (40, 60)
    config.augment.hflip = True
    augment = make_joint_augment(config)
    assert augment == JointAugment((0.5, 2.0), (40, 60), hflip=True, fill=(124, 116, 104))
    config.augment.update(scale_range=(1.0, 1.0), crop_size=(32, 16))
    check_config(config)
    assert make_joint_augment(config).crop_size == (32, 16)
    for name, value, message in (
        ("mixup", 0.2, r"mixup=0.2 is not for images with masks; use .* set mixup=0.0"),
        ("policy", "trivial", r"policy='trivial' is not for"),
        ("color_jitter", (0.1, 0.1, 0.1, 0.7), r"the hue, 0.7, must be at most 0.5"),
        ("crop_size", (0, 3), r"crop_size=\(0, 3\) has a side of 0"),
    ):
        wrong = config.copy_and_resolve_references()
        wrong.augment[name] = value
        with pytest.raises(UsageError, match=message):
            make_joint_augment(wrong)
    config.dataset.channels = 1
    config.augment.color_jitter = (0.1, 0.0, 0.0, 0.0)
    with pytest.raises(UsageError, match=r"color_jitter=.* changes colors, which needs"):
        make_joint_augment(config)
