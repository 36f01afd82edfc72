"""Data that fit memory: all images as one uint8 array on the device, gathered in the step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from train.data.decode import centre_crop
from train.data.source import Source

TOGETHER = 256  # records a task: one task a record would take longer than small images do


def load(source: Source, size: int, resize: int, threads: int) -> dict[str, np.ndarray]:
    """Decodes every record: ``image`` uint8 ``(N, size, size, 3)``, ``label`` int32 ``(N,)``.

    Raises RunError for a record that cannot be decoded.
    """
    images = np.empty((len(source), size, size, 3), np.uint8)
    labels = np.empty(len(source), np.int32)

    def decode(start: int) -> None:
        for index in range(start, min(start + TOGETHER, len(source))):
            image, labels[index] = source.decoded(index)
            images[index] = centre_crop(image, size, resize)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(decode, range(0, len(source), TOGETHER)):
            pass
    return {"image": images, "label": labels}


def gather(data: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Replaces a batch's ``record`` numbers by their images and labels. Runs in the step.

    A batch that brings its images along, since the data are streamed, stays as it is.
    """
    if "record" not in batch:
        return batch
    batch = dict(batch)
    record = batch.pop("record")
    return batch | {"image": data["image"][record], "label": data["label"][record]}
