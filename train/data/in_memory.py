"""Data that fit memory: all images as one uint8 array on the device, gathered in the step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import tqdm

from train.data.reader import BadRecord, Reader

TOGETHER = 256  # records a task: one task a record would take longer than small images do


def load(
    reader: Reader, crop: Callable[[np.ndarray], np.ndarray], size: int, threads: int
) -> tuple[dict[str, np.ndarray], list[BadRecord]]:
    """Decodes every record: ``image`` uint8 ``(N, size, size, 3)``, ``label`` int32 ``(N,)``.

    ``crop`` makes an image of any size one of ``size``. Gives the bad records, too, in whose
    place the next one stands. A bar shows the progress where it takes more than a second.
    """
    count = len(reader.source)
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty(count, np.int32)

    def decode(start: int) -> list[BadRecord]:
        found = []
        for index in range(start, min(start + TOGETHER, count)):
            pixels, labels[index], bad = reader.read(index)
            images[index] = crop(pixels)
            found += bad
        return found

    bar = tqdm.tqdm(
        desc=f"decoding {reader.source.split}",
        total=count,
        unit=" images",
        delay=1,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    bad: list[BadRecord] = []
    with bar, ThreadPoolExecutor(threads) as pool:
        try:
            for found in pool.map(decode, range(0, count, TOGETHER)):
                bad += found
                bar.update(min(TOGETHER, count - bar.n))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {"image": images, "label": labels}, bad


def gather(data: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Replaces a batch's ``record`` numbers by their images and labels. Runs in the step.

    A batch that brings its images along, since the data are streamed, stays as it is.
    """
    if "record" not in batch:
        return batch
    batch = dict(batch)
    record = batch.pop("record")
    return batch | {"image": data["image"][record], "label": data["label"][record]}
