"""Labels of records that hold no array of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tqdm

from flax_resnet.decoding import ImageDecodeError
from train.runtime.errors import RunError

CHUNK = 256  # records per task
THREADS = 8
_MISSING = -1  # label of a record that cannot be read


def read_labels(
    label: Callable[[int], int], count: int, description: str = "reading labels"
) -> np.ndarray:
    """Read the labels of records, int32 ``(N,)``, with a progress bar after a second.

    Args:
      label: returns the label of a record by its number.
      count: number of records.
      description: for the progress bar.

    Raises:
      RunError: no record can be read.
    """

    def read(start: int) -> list[int]:
        labels = []
        for index in range(start, min(start + CHUNK, count)):
            try:
                labels.append(label(index))
            except (OSError, ImageDecodeError):
                labels.append(_MISSING)
        return labels

    bar = tqdm.tqdm(
        desc=description, total=count, unit=" images", delay=1, leave=False, disable=None
    )
    parts = []
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for part in pool.map(read, range(0, count, CHUNK)):
            parts.append(np.array(part, np.int32))
            bar.update(len(part))
    labels = np.concatenate(parts)
    readable = np.flatnonzero(labels != _MISSING)
    if not readable.size:
        raise RunError(f"none of the {len(labels):,} records can be read")
    following = np.searchsorted(readable, np.arange(len(labels)))
    return labels[readable[following % len(readable)]]
