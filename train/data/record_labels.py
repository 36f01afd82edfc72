"""Labels of records that hold no array of them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tqdm

from flax_resnet.decoding import ImageDecodeError
from train.runtime.errors import RunError

CHUNK = 256  # records per task
THREADS = 8
_MISSING = -1  # label of a record that cannot be read


def read_labels(
    records: Sequence[Mapping[str, Any]], key: str, description: str = "reading labels"
) -> np.ndarray:
    """Read the labels of records, int32 ``(N,)``, with a progress bar after a second.

    Args:
      records: as in ``DataSource.records``.
      key: key of the label in a record.
      description: for the progress bar.

    Raises:
      RunError: no record can be read.
    """

    def read(start: int) -> list[int]:
        labels = []
        for index in range(start, min(start + CHUNK, len(records))):
            try:
                labels.append(int(records[index][key]))
            except (OSError, ImageDecodeError):
                labels.append(_MISSING)
        return labels

    bar = tqdm.tqdm(
        desc=description, total=len(records), unit=" images", delay=1, leave=False, disable=None
    )
    parts = []
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for part in pool.map(read, range(0, len(records), CHUNK)):
            parts.append(np.array(part, np.int32))
            bar.update(len(part))
    labels = np.concatenate(parts)
    readable = np.flatnonzero(labels != _MISSING)
    if not readable.size:
        raise RunError(f"none of the {len(labels):,} records can be read")
    following = np.searchsorted(readable, np.arange(len(labels)))
    return labels[readable[following % len(readable)]]
