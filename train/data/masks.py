"""Data for semantic segmentation: the label of an image is a mask, the class of every pixel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from flax_resnet.decoding import ImageDecodeError, decode_mask, mask_size, warn_once
from flax_resnet.images.conversion import Warn
from flax_resnet.images.orientation import file_orientation
from flax_resnet.images.pixels import RGB, PixelFormat
from train.data.record_checks import checked_image
from train.data.source import DataSource, to_pixels
from train.data.sources.folder_scan import NO_FILES, NO_IMAGE, NO_MASK
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names, pluralize

IGNORED = 255  # the class of pixels that have no part in loss and metrics
MAX_CLASSES = IGNORED
_UNKNOWN = -1
_MAX_NAMED = 5  # wrong values of a mask
_TURNED = "the image is turned by its EXIF orientation"
_UPRIGHT = "store the image upright, without an orientation"
_SHOWN = (
    "its mask is used as one of the turned image, which has the size of the stored one; if it is"
    f" one of the stored image, {_UPRIGHT}"
)


@dataclass(frozen=True)
class MaskValues:
    """The class of each value that a mask may have.

    Attributes:
      values: the value of each class; the value of class k is k if there are none.
      ignored: values of pixels without a class. One that is also among ``values`` is a class.
    """

    values: tuple[int, ...] = ()
    ignored: tuple[int, ...] = (IGNORED,)

    def table(self, num_classes: int) -> np.ndarray:
        """Return the class of each value, int16 ``(256,)``, -1 for values that are no class.

        Raises:
          UsageError: there are not as many different values as classes.
        """
        values = self.values or tuple(range(num_classes))
        if both := [] if self.values else sorted({*values} & {*self.ignored}):
            raise UsageError(
                f"config.dataset.ignore_values={self.ignored} has {both[0]}, the value of class"
                f" {both[0]}; to ignore it, set config.dataset.mask_values to the values of the"
                " classes that are left, and remove its name from classes.txt"
            )
        if len(values) != num_classes or len({*values}) < len(values):
            raise UsageError(
                f"config.dataset.mask_values={self.values} must be a different value for each of"
                f" the {num_classes} classes, in their order"
            )
        table = np.full(256, _UNKNOWN, np.int16)
        table[list(self.ignored)] = IGNORED
        table[list(values)] = np.arange(num_classes)
        return table


@dataclass(frozen=True)
class MaskSource(DataSource):
    """A split whose labels are masks: ``source[i]`` is ``(image, mask)``.

    A mask is encoded, as the bytes of a PNG file for ``decode_mask``, or an array uint8 ``(H, W)``.

    Attributes:
      mask_values: the class of each value in a mask.
    """

    mask_values: MaskValues = field(default_factory=MaskValues)

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.class_names)
        if count > MAX_CLASSES:
            raise UsageError(
                f"{self.name} has {count} classes; masks can have {MAX_CLASSES}, since"
                f" {IGNORED} stands for ignored pixels"
            )
        if count == 1:
            raise UsageError(
                f"{self.name} has one class, {self.class_names[0]!r}, so that there is nothing to"
                " learn; masks need two or more, such as background and object, in classes.txt or"
                " config.dataset.mask_values"
            )
        object.__setattr__(self, "_table", self.mask_values.table(count))

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, bytes | np.ndarray]:
        image, mask = self._values(index, self.image_key, self.label_key)
        return checked_image(self, index, image), mask

    def decode(
        self, index: int, warn: Warn = warn_once, pixels: PixelFormat = RGB
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the image ``(H, W, C)`` and the classes of its pixels, uint8 ``(H, W)``.

        A mask belongs to the image as it is shown, turned by its EXIF orientation.

        Raises:
          ImageDecodeError: image or mask cannot be read or decoded, their sizes differ, or the mask
            has a value that is no class.
        """
        encoded, mask = self.read(index)
        image = to_pixels(encoded, pixels, warn)
        values = decode_mask(mask) if isinstance(mask, bytes) else _mask_array(mask)
        orientation, size = _orientation(encoded), image.shape[:2]
        if values.shape != size:
            raise ImageDecodeError(_describe_sizes(values.shape, size, orientation))
        stored = size[::-1] if orientation >= 5 else size
        if orientation != 1 and stored == size and _orientation(mask) == 1:
            warn("turned image", f"{_TURNED}, {orientation}; {_SHOWN}")
        return image, self._to_classes(values)

    def _to_classes(self, values: np.ndarray) -> np.ndarray:
        """Return the classes of values ``(H, W)``, uint8 of the same shape."""
        classes = self._table[values]
        if classes.min() < 0:
            raise ImageDecodeError(self._describe_unknown(np.unique(values[classes < 0])))
        return classes.astype(np.uint8)

    def class_pixels(self, index: int) -> np.ndarray:
        """Return the pixels of each class in a mask, int64 ``(K,)``; its image is not decoded.

        Raises:
          OSError, ImageDecodeError: it cannot be read, or has a value that is no class.
        """
        [mask] = self._values(index, self.label_key)
        values = decode_mask(mask) if isinstance(mask, bytes) else _mask_array(mask)
        counts = np.bincount(values.ravel(), minlength=len(self._table))
        if counts[self._table < 0].any():
            raise ImageDecodeError(
                self._describe_unknown(np.flatnonzero((counts > 0) & (self._table < 0)))
            )
        known = (self._table >= 0) & (self._table != IGNORED)
        by_class = np.zeros(len(self.class_names), np.int64)
        np.add.at(by_class, self._table[known], counts[known])
        return by_class

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a mask, without decoding it.

        Raises:
          OSError, ImageDecodeError: it cannot be read.
        """
        mask = self._mask(index)
        return mask_size(mask) if isinstance(mask, bytes) else mask.shape

    def _mask(self, index: int) -> bytes | np.ndarray:
        """Return a mask, without reading its image if the records can."""
        if hasattr(self.records, "read_mask"):
            return self.records.read_mask(index)
        return self._values(index, self.label_key)[0]

    def _describe_unknown(self, values: np.ndarray) -> str:
        named = join_names(list(map(str, values.tolist())), _MAX_NAMED)
        last = len(self.class_names) - 1
        known = join_names(list(map(str, self.mask_values.values)) or [f"0…{last}"], 10)
        ignored = join_names(list(map(str, self.mask_values.ignored)) or ["none"], 3)
        return (
            f"the mask has {'values that are' if len(values) > 1 else 'a value that is'} no class:"
            f" {named} (classes: {known}; ignored: {ignored})"
        )

    def check(self, max_corrupt_fraction: float) -> None:
        """Raise RunError if too many images have no mask, masks no image, or names neither."""
        counts = {
            ("image", "without a mask"): self.skipped.get(NO_MASK, ()),
            ("mask", "without an image"): self.skipped.get(NO_IMAGE, ()),
            ("listed name", "without image and mask"): self.skipped.get(NO_FILES, ()),
        }
        unpaired = sum(map(len, counts.values()))
        limit = math.ceil(max_corrupt_fraction * (len(self) + unpaired))
        if unpaired <= limit:
            return
        named = [
            f"{pluralize(len(paths), noun)} {what} ({join_names(paths, _MAX_NAMED)})"
            for (noun, what), paths in counts.items()
            if paths
        ]
        raise RunError(
            f"{self.name} has {' and '.join(named)}, more than config.loader.max_corrupt_fraction"
            f" permits ({limit:,}); add what is missing, or remove the others: the mask of"
            " images/a.jpg is masks/a.png"
        )

    @property
    def label_kind(self) -> str:
        """``"mask"``."""
        return "mask"

    @property
    def has_cheap_labels(self) -> bool:
        """False: all masks would have to be decoded."""
        return False

    @property
    def has_cheap_strata(self) -> bool:
        """True: they do not depend on masks."""
        return True

    def all_labels(self) -> NoReturn:
        """Raise UsageError: the images have masks."""
        raise UsageError(
            f"the images of {self.name!r} have masks, not one class each; only"
            " config.task='segmentation' learns them"
        )

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Return masks uint8 ``(N, H, W)`` unchanged."""
        return labels

    def strata(self) -> np.ndarray:
        """Return ones ``(N, 1)``: parts of the records have equal numbers of images."""
        return np.ones((len(self), 1), np.uint8)

    def all_label_names(self) -> list[str]:
        """Return no names: masks have none."""
        return []


@dataclass(frozen=True)
class ArrayMasks(Sequence):
    """Records of images and masks in memory.

    Attributes:
      images: uint8 ``(N, H, W, C)``.
      masks: uint8 ``(N, H, W)``.
    """

    images: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": self.images[index], "label": self.masks[index]}


def _describe_sizes(mask: tuple[int, ...], image: tuple[int, ...], orientation: int) -> str:
    """Return that the sizes (H, W) of a mask and its image differ, and why they may."""
    text = f"the mask has {mask[1]}×{mask[0]} pixels, the image {image[1]}×{image[0]}"
    if orientation >= 5 and mask == image[::-1]:
        text += f": {_TURNED}, {orientation}, and the mask is not; turn it, too, or {_UPRIGHT}"
    return text


def _orientation(content: bytes | np.ndarray) -> int:
    return file_orientation(content) if isinstance(content, bytes) else 1


def default_names(count: int) -> tuple[str, ...]:
    """Return ``"class 0"`` and so on, names of classes that have none."""
    return tuple(f"class {k}" for k in range(count))


def _mask_array(mask: Any) -> np.ndarray:
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != np.uint8:
        form = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ImageDecodeError(f"a mask must be a PNG or an array uint8 (H, W), not {form}")
    return mask
