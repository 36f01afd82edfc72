"""What a run for segmentation counted in each image of its last evaluation: ``pixel_counts.npz``.

From these counts follow IoU and mIoU of any selection of the images, so that two runs can be
compared on the same resamples of them.
"""

import os
from dataclasses import dataclass, field

import numpy as np

from flax_resnet.files import make_atomically
from train.data.source import DataSource
from train.data.sources.array_files import open_arrays
from train.engine.stored_predictions import MAX_NAMES, decode_names, encode_names
from train.runtime.array_files import save_arrays
from train.runtime.errors import RunError
from train.runtime.files import writing
from train.tasks.segmentation import SegmentationPredictions

FILE = "pixel_counts.npz"
MAX_VALUES = 2**23  # 32 MiB


@dataclass(frozen=True)
class StoredCounts:
    """The counts of an evaluation.

    Attributes:
      step: of the evaluated state.
      names: of the images.
      counts: pixels of each image by class, int64 ``(N, 3, K)``: with the label, with the
        prediction, with both.
    """

    step: int
    names: list[str] = field(repr=False)
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def store(
    workdir: str, step: int, predictions: SegmentationPredictions, source: DataSource
) -> bool:
    """Write the counts to the workdir, in place of earlier ones.

    Returns:
      False, without a file, for more than ``MAX_VALUES`` or ``MAX_NAMES``.

    Raises:
      RunError: the file cannot be written.
    """
    path = os.path.join(workdir, FILE)
    names = encode_names(source.record_name(int(record)) for record in predictions.record)
    fits = predictions.counts.size <= MAX_VALUES and names.size <= MAX_NAMES
    with writing(path):
        if fits:
            arrays = {
                "step": np.array(step, np.int64),
                "names": names,
                "counts": predictions.counts.astype(np.int32),
            }
            make_atomically(path, lambda temporary: save_arrays(temporary, arrays))
        elif os.path.exists(path):  # of an earlier evaluation
            os.unlink(path)
    return fits


def read(workdir: str) -> StoredCounts | None:
    """Return the counts of the last evaluation; None if there are none.

    Raises:
      RunError: the file is damaged.
    """
    path = os.path.join(workdir, FILE)
    if not os.path.lexists(path):
        return None
    damaged = RunError(f"{path} has no counts of this run; train.evaluate rewrites it")
    files = open_arrays(path)
    kinds = {"step": "i", "names": "u", "counts": "i"}
    if any(name not in files or files[name].dtype.kind != kind for name, kind in kinds.items()):
        raise damaged
    if max(files[name].nbytes for name in kinds) > 8 * max(MAX_VALUES, MAX_NAMES):
        raise damaged
    arrays = {name: files[name].values() for name in kinds}
    if arrays["names"].ndim != 1 or arrays["step"].shape:
        raise damaged
    names, counts = decode_names(arrays["names"]), arrays["counts"].astype(np.int64)
    if not names or counts.ndim != 3 or counts.shape[:2] != (len(names), 3):
        raise damaged
    labels, predicted, correct = np.moveaxis(counts, 1, 0)
    consistent = (correct >= 0).all() and (correct <= np.minimum(labels, predicted)).all()
    if not consistent or not labels.any():
        raise damaged
    return StoredCounts(int(arrays["step"]), names, counts)
