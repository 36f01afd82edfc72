"""How records become the examples of a batch, which all have the same size."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from flax_resnet.preprocessing import Preprocessing
from train.data.canvas import describe_shrunk, place_on_canvas
from train.data.mask_checks import describe_single_class
from train.data.masks import IGNORED, MaskSource
from train.data.random_crop import crop_scale, random_resized_crop
from train.data.skipped import Finding
from train.data.source import DataSource
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError

Seed = tuple[int, ...]
Fill = tuple[int, ...]


class Framing(Protocol):
    """How records become examples.

    Attributes:
      is_fixed: whether an image has the same pixels every time.
    """

    is_fixed: bool

    def empty_labels(self, count: int, preprocessing: Preprocessing) -> np.ndarray:
        """Return an array for the labels of ``count`` examples."""

    def __call__(
        self, image: np.ndarray, label: Any, preprocessing: Preprocessing, seed: Seed | None = None
    ) -> tuple[np.ndarray, Any]:
        """Return image and label of an example.

        Args:
          image: the record's image ``(H, W, C)``.
          label: the record's label.
          preprocessing: with the size of the example.
          seed: of random numbers, in training.
        """

    def label_bytes(self, preprocessing: Preprocessing) -> int:
        """Return the memory of a label."""

    def findings(self, source: DataSource, preprocessing: Preprocessing) -> list[Finding]:
        """Return what a user should know of the examples. Takes a second at most."""

    def is_padding(self, images: np.ndarray, labels: np.ndarray, fill: Fill) -> np.ndarray:
        """Return which pixels are no part of a picture, bool ``(N, H, W)``.

        Args:
          images: of examples ``(N, H, W, C)``.
          labels: their labels.
          fill: values of padding ``(C,)``.
        """


class Crops:
    """Center crops or, in training, random-resized crops; labels are numbers.

    Args:
      config: the run's configuration.
      training: whether the examples are for training.
      num_images: number of images of the split.
    """

    def __init__(self, config: ConfigDict, training: bool, num_images: int):
        scale = crop_scale(config, num_images)
        self._random_crop: Callable[..., np.ndarray] | None = None
        if training and scale != (1.0, 1.0):
            ratio = tuple(config.augment.rrc_ratio)
            self._random_crop = partial(random_resized_crop, scale=scale, ratio=ratio)
        self.is_fixed = self._random_crop is None

    def empty_labels(self, count: int, preprocessing: Preprocessing) -> np.ndarray:
        """Return an array for the labels of ``count`` examples, int32 ``(N,)``."""
        return np.empty(count, np.int32)

    def label_bytes(self, preprocessing: Preprocessing) -> int:
        """Return 0: labels are negligible beside images."""
        return 0

    def findings(self, source: DataSource, preprocessing: Preprocessing) -> list[Finding]:
        """Return nothing."""
        return []

    def is_padding(self, images: np.ndarray, labels: np.ndarray, fill: Fill) -> np.ndarray:
        """Return False: crops have no padding."""
        return np.zeros(images.shape[:3], bool)

    def __call__(
        self, image: np.ndarray, label: int, preprocessing: Preprocessing, seed: Seed | None = None
    ) -> tuple[np.ndarray, int]:
        """Return the crop, and the label unchanged."""
        if seed is None or self._random_crop is None:
            return preprocessing.crop(image), label
        rng = np.random.default_rng(seed)
        return self._random_crop(image, preprocessing.image_size, rng), label


class Canvases:
    """Whole images and masks in the upper left corner of a canvas, shrunk if they are larger.

    The rest of the canvas has the mean color, which is 0 in the network's input, and is ignored.

    Args:
      config: the run's configuration.

    Raises:
      UsageError: keys have no meaning for images with masks.
    """

    is_fixed = True

    def __init__(self, config: ConfigDict):
        for name in ("augment.rrc_scale", "dataset.train_sizes"):
            group, _, key = name.partition(".")
            value = tuple(config[group][key])
            if value not in ((), (1.0, 1.0)):
                raise UsageError(
                    f"config.{name}={value} has no meaning for images with masks; use"
                    " augment.scale_range and crop_size"
                )

    def empty_labels(self, count: int, preprocessing: Preprocessing) -> np.ndarray:
        """Return an array for the masks of ``count`` examples, uint8 ``(N, H, W)``."""
        return np.empty((count, *preprocessing.shape[:2]), np.uint8)

    def label_bytes(self, preprocessing: Preprocessing) -> int:
        """Return the memory of a mask."""
        return math.prod(preprocessing.shape[:2])

    def findings(self, source: MaskSource, preprocessing: Preprocessing) -> list[Finding]:
        """Return how many images are larger than the canvas, and whether all have one class."""
        shrunk = describe_shrunk(source, preprocessing.shape[:2])
        return shrunk + describe_single_class(source)

    def is_padding(self, images: np.ndarray, labels: np.ndarray, fill: Fill) -> np.ndarray:
        """Return which pixels are ignored and have the color of padding."""
        return (labels == IGNORED) & (images == np.asarray(fill)).all(axis=-1)

    def __call__(
        self,
        image: np.ndarray,
        label: np.ndarray,
        preprocessing: Preprocessing,
        seed: Seed | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return image and mask on their canvases, without random numbers."""
        size = preprocessing.shape[:2]
        return place_on_canvas(image, label, size, preprocessing.fill, IGNORED)


def make_framing(config: ConfigDict, source: DataSource, training: bool) -> Framing:
    """Return how the records of a source become examples."""
    if source.label_kind == "mask":
        return Canvases(config)
    return Crops(config, training, len(source))
