"""The number of pixels of each class in the masks of a split."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tqdm

from flax_resnet.decoding import ImageDecodeError
from train.data.masks import MaskSource
from train.data.record_labels import CHUNK, THREADS
from train.runtime.errors import RunError


def count_class_pixels(source: MaskSource) -> np.ndarray:
    """Return the pixels of each class in all masks, float64 ``(K,)``, times the records' weights.

    Only masks are decoded, at their own size, with a progress bar after a second: on one core about
    800 a second of 500×375 pixels. Those that cannot be are left out, since they are reported when
    their images are decoded.

    Raises:
      RunError: there are no such pixels.
    """
    weights = np.ones(len(source)) if source.weights is None else source.weights

    def count(start: int) -> np.ndarray:
        total = np.zeros(len(source.class_names))
        for index in range(start, min(start + CHUNK, len(source))):
            try:
                total += float(weights[index]) * source.class_pixels(index)
            except (OSError, ImageDecodeError):
                continue
        return total

    bar = tqdm.tqdm(
        desc=f"counting pixels of {source.split}",
        total=len(source),
        unit=" masks",
        delay=1,
        leave=False,
        disable=None,
    )
    total = np.zeros(len(source.class_names))
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for part in pool.map(count, range(0, len(source), CHUNK)):  # in order: sums may round
            total += part
            bar.update(min(CHUNK, len(source) - bar.n))
    if not total.sum():
        raise RunError(
            f"no mask of {source.name} {source.split} has a pixel with a class: all are ignored, or"
            " cannot be read"
        )
    return total
