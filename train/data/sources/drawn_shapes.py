"""Drawn shapes with masks: an embedded data set for segmentation, which needs no download.

Pictures of 64×64 pixels, each with one to four circles, squares, triangles and crosses of any
color, size and angle on a colored, noisy background; later shapes may cover parts of earlier ones.
The color says nothing about the class. Pictures are drawn with integers from the raw output of a
PCG64 generator, which NumPy keeps the same, so they are equal on every platform.
"""

import functools

import numpy as np

from train.data.masks import ArrayMasks, MaskSource
from train.data.registries import register_source
from train.data.source import fingerprint, require_no_names, source_argument
from train.data.splits import find_split, part_of, replace_name
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError

NAMES = ("background", "circle", "square", "triangle", "cross")
SIDE = 64
COUNTS = {"train": 512, "test": 128}  # pictures
_SEEDS = {"train": 1, "test": 2}
_ANGLES = 48  # to a full turn
_ONE = 1024  # of the integer cosines
_COS = np.rint(_ONE * np.cos(np.arange(_ANGLES) * (2 * np.pi / _ANGLES))).astype(np.int64)
_MIN_CONTRAST = 120  # between a shape and the background, in the sum of three channels
_MAX_OVERLAP = 0.2  # of a shape with earlier ones, of which too little would be left
_NOISE = 24  # levels


@register_source("drawn_shapes")
def open_drawn_shapes(dataset: ConfigDict, split: str) -> MaskSource:
    """Open a split of the drawn shapes, or a part such as ``train[:80%]``."""
    source_argument(dataset)
    require_no_names(dataset)
    if dataset.data_dir:
        raise UsageError(
            f"config.dataset.data_dir={dataset.data_dir!r} has no meaning for 'drawn_shapes', which"
            " are embedded; for own pictures set config.dataset.name=segmentation_folder"
        )
    name = find_split(split, COUNTS, "drawn_shapes")
    images, masks = draw(name)
    part = part_of(split, len(images))
    chosen = slice(part.start, part.stop)
    return MaskSource(
        "drawn_shapes",
        replace_name(split, name),
        NAMES,
        ArrayMasks(images[chosen], masks[chosen]),
        parts=[(name, part.start, part.stop)],
        fingerprint=fingerprint([f"{name}/{n}" for n in part], (), None),
    )


@functools.cache
def draw(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures uint8 ``(N, 64, 64, 3)`` and masks uint8 ``(N, 64, 64)`` of a split."""
    numbers = _Numbers(_SEEDS[split])
    pictures = [_draw_picture(numbers) for _ in range(COUNTS[split])]
    images, masks = map(np.stack, zip(*pictures, strict=True))
    for array in (images, masks):
        array.flags.writeable = False  # they are shared
    return images, masks


class _Numbers:
    """Random integers from the raw output of a bit generator, whose stream NumPy guarantees."""

    def __init__(self, seed: int):
        self._bits = np.random.PCG64(seed)

    def __call__(self, low: int, high: int, shape: tuple[int, ...] | None = None):
        """Return integers in ``low`` … ``high - 1``."""
        words = self._bits.random_raw(1 if shape is None else int(np.prod(shape)))
        values = low + ((words >> np.uint64(32)) % np.uint64(high - low)).astype(np.int64)
        return int(values[0]) if shape is None else values.reshape(shape)


def _draw_picture(numbers: _Numbers) -> tuple[np.ndarray, np.ndarray]:
    background = numbers(0, 256, (3,))
    # A gradient between two colors, in one of four directions.
    other, flip = background + numbers(-60, 61, (3,)), numbers(0, 4)
    ramp = np.arange(SIDE)[:, None, None]
    ramp = (SIDE - 1 - ramp) if flip & 1 else ramp
    ramp = ramp.swapaxes(0, 1) if flip & 2 else ramp
    image = np.broadcast_to((background * ramp + other * (SIDE - ramp)) // SIDE, (SIDE, SIDE, 3))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(numbers(1, 5)):
        shape = numbers(1, len(NAMES))
        inside = _inside(shape, numbers)
        if (mask[inside] > 0).mean() > _MAX_OVERLAP:
            continue
        color = _contrasting(background, numbers)
        image = np.where(inside[..., None], color, image)
        mask[inside] = shape
    noise = numbers(-_NOISE, _NOISE + 1, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), mask


def _inside(shape: int, numbers: _Numbers) -> np.ndarray:
    """Return the pixels inside a shape at a random place, bool ``(64, 64)``."""
    radius, angle = numbers(9, 17), numbers(0, _ANGLES)
    y, x = (np.arange(SIDE) - numbers(12, SIDE - 12) for _ in range(2))
    cos, sin = _COS[angle], _COS[angle - _ANGLES // 4]
    # Coordinates along the axes of the shape, in 1,024ths of a pixel.
    u, v = cos * x + sin * y[:, None], cos * y[:, None] - sin * x
    size = radius * _ONE
    if NAMES[shape] == "circle":
        return u * u + v * v <= size * size
    if NAMES[shape] == "square":
        return np.maximum(abs(u), abs(v)) <= size * 4 // 5
    if NAMES[shape] == "triangle":  # equilateral; 1774 / 1024 is the root of 3
        return (v <= size * 3 // 5) & (1774 * abs(u) <= _ONE * (v + size * 6 // 5))
    thick, long = size * 3 // 10, size
    return (abs(u) <= thick) & (abs(v) <= long) | (abs(v) <= thick) & (abs(u) <= long)


def _contrasting(background: np.ndarray, numbers: _Numbers) -> np.ndarray:
    """Return a color that differs from the background."""
    while True:
        color = numbers(0, 256, (3,))
        if abs(color - background).sum() >= _MIN_CONTRAST:
            return color
