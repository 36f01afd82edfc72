"""Checks of masks when data are opened: which classes they have, and whether they can be used."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tqdm

from flax_resnet.decoding import ImageDecodeError, decode_mask
from flax_resnet.images.pixels import PixelFormat
from flax_resnet.text import one_line
from train.data.masks import IGNORED, MaskSource
from train.data.record_labels import THREADS
from train.data.skipped import Finding
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

_SAMPLE = 16  # images; a tenth of a second for photographs
_MIN_SAMPLE = 8  # in fewer, a mask without any object is no sign of a wrong value
_MAX_NAMED = 3


def check_sample(source: MaskSource, dataset: ConfigDict) -> None:
    """Decode a few records, and raise RunError if the whole data set is probably wrong.

    It is if most of them cannot be used, if their masks are black and white, in which white is
    ignored, or if no mask of the split has a class.

    Args:
      source: the images and masks.
      dataset: ``config.dataset``, with the form of the images.
    """
    pixels = PixelFormat(dataset.channels, dataset.bits)
    indices = _sample(source)

    def read(index: int) -> np.ndarray | str:
        """Return the classes of a mask, or why it cannot be used."""
        try:
            return np.unique(source.decode(index, lambda *_: None, pixels)[1])
        except ImageDecodeError as error:
            return f"{one_line(source.record_name(index))}: {error}"

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(read, indices))
    wrong = [result for result in results if isinstance(result, str)]
    if 2 * len(wrong) > len(results):
        more = "; …" * (len(wrong) > _MAX_NAMED)
        raise RunError(
            f"{len(wrong)} of {len(results)} images of {source.name!r} {source.split} that were"
            f" read cannot be used: {'; '.join(wrong[:_MAX_NAMED])}{more}"
        )
    used = {int(k) for classes in results if not isinstance(classes, str) for k in classes}
    if used == {IGNORED} and not _has_labeled_pixels(source):
        ignored = join_names(list(map(str, source.mask_values.ignored)), _MAX_NAMED)
        raise RunError(
            f"no pixel of the masks of {source.name!r} {source.split} has a class: all"
            f" {len(source):,} have ignored values only ({ignored}); add masks with classes, or set"
            " config.dataset.mask_values and ignore_values"
        )
    if len(indices) >= _MIN_SAMPLE and used == {0, IGNORED} and not dataset.mask_values:
        raise RunError(
            f"the masks of {source.name!r} {source.split} have the values 0 and {IGNORED} only (of"
            f" {len(indices)} that were read), and {IGNORED} is ignored, so that there is one class"
            f" to learn; if {IGNORED} is a class, set config.dataset.mask_values=0,{IGNORED}, and"
            " otherwise mask_values to the values of all classes"
        )


def _has_labeled_pixels(source: MaskSource) -> bool:
    """Return whether any mask has a pixel with a class; all are read if none has."""

    def has_labels(index: int) -> bool:
        try:
            return bool(source.class_pixels(index).any())
        except (OSError, ImageDecodeError):  # counts as corrupt later
            return False

    return any(map(has_labels, range(len(source))))


def count_classes(masks: Sequence[str], read: Callable[[str], bytes], ignored: set[int]) -> int:
    """Return the number of classes in masks, whose values must be 0, 1, … without a gap.

    Args:
      masks: names of all masks; all are read, with a progress bar after a second.
      read: returns the content of a mask.
      ignored: values that are no class.

    Raises:
      UsageError: the values have gaps.
    """

    def values(name: str) -> np.ndarray:
        try:
            return np.bincount(decode_mask(read(name)).ravel(), minlength=256) > 0
        except (OSError, ImageDecodeError):  # counts as corrupt later
            return np.zeros(256, bool)

    used = np.zeros(256, bool)
    description = {"desc": "reading classes of masks", "total": len(masks), "unit": " masks"}
    bar = tqdm.tqdm(**description, delay=1, leave=False, disable=None)
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(values, masks):
            used |= found
            bar.update()
    classes = [int(value) for value in np.flatnonzero(used) if value not in ignored]
    if classes != list(range(len(classes))) or len(classes) < 2:
        named = join_names(list(map(str, classes)), 6) or "none"
        among = sorted(ignored & {*np.flatnonzero(used).tolist()})
        text = f" besides {join_names(list(map(str, among)))}, which is ignored" * bool(among)
        example = ",".join(map(str, sorted({*classes, *among})[:6]))
        raise UsageError(
            f"the values in the masks are {named}{text}, not 0, 1, …; name the classes in"
            " classes.txt, a line for each from 0 on, or set their values with"
            f" config.dataset.mask_values, such as {example or '0,1'}"
        )
    return len(classes)


def describe_single_class(source: MaskSource) -> list[Finding]:
    """Return that some masks which are read have one and the same class, if they have."""
    indices = _sample(source)
    if len(indices) < _MIN_SAMPLE:
        return []
    pixels = np.zeros(len(source.class_names), np.int64)
    for index in indices:
        with contextlib.suppress(OSError, ImageDecodeError):  # counts as corrupt
            pixels += source.class_pixels(index)
    used = np.flatnonzero(pixels)
    if len(used) != 1:
        return []
    text = (
        f"all {len(indices)} masks of {source.split!r} that were read have the class"
        f" {source.class_names[used[0]]!r} only; are these the right masks, or has"
        " config.dataset.mask_values other values?"
    )
    return [Finding("single class", len(indices), (), text, is_warning=True)]


def _sample(source: MaskSource) -> list[int]:
    """Return the numbers of some records, evenly spaced."""
    return np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(int)).tolist()
