"""Out-of-fold predictions from files of ``train.evaluate --predictions FILE.npz``."""

from collections.abc import Sequence

import numpy as np

from train.inspect.images import Images
from train.runtime.array_files import read_arrays
from train.runtime.errors import UsageError, warn
from train.runtime.formatting import pluralize


def read_probabilities(paths: Sequence[str], images: Images) -> np.ndarray:
    """Return the probabilities of the images that the files name, NaN for others.

    Args:
      paths: ``.npz`` files with ``probabilities`` ``(n, K)`` and ``file`` ``(n,)``, each of images
        that its run was not trained on.
      images: all images.

    Returns:
      float32 ``(N, K)``.

    Raises:
      RunError: a file cannot be read.
      UsageError: a file is of other data, or two files have the same image.
    """
    class_names = images.sources[0].class_names
    classes = len(class_names)
    index = {}
    for number in range(len(images)):
        index.setdefault(images.name(number), number)
    if len(index) < len(images):
        raise UsageError("--predictions needs images with different names in all splits")
    result = np.full((len(images), classes), np.nan, np.float32)
    for path in paths:
        files, probabilities, names = _read(path)
        if names is not None and tuple(names) != class_names:
            raise UsageError(f"{path!r} has predictions for other classes than the data")
        if probabilities.shape[1] < classes:
            raise UsageError(
                f"{path!r} has the probabilities of {probabilities.shape[1]} classes, but the data"
                f" have {classes}"
            )
        known = [(row, index[file]) for row, file in enumerate(files) if file in index]
        if not known:
            raise UsageError(f"{path!r} has none of these images; the first is {files[0]!r:.100}")
        if left := len(files) - len(known):
            warn(f"{path!r} has {pluralize(left, 'image')} that the data do not have")
        rows, indices = np.array(known).T
        if not np.isnan(result[indices, 0]).all():
            raise UsageError(f"{path!r} has images that another of the files has, too")
        result[indices] = probabilities[rows, :classes]
    return result


def _read(path: str) -> tuple[list[str], np.ndarray, list[str] | None]:
    written_by = "train.evaluate --predictions FILE.npz"
    arrays = read_arrays(path, ("file", "probabilities"), written_by, {"image": "file"})
    files, probabilities = arrays["file"].ravel().tolist(), arrays["probabilities"]
    names = arrays["class_names"].ravel().tolist() if "class_names" in arrays else None
    if probabilities.ndim != 2 or len(files) != len(probabilities) or not len(files):
        raise UsageError(f"{path!r} must have a row of probabilities for each file")
    valid = probabilities.dtype.kind == "f"
    if not (valid and probabilities.min() >= 0 and probabilities.max() <= 1.01):  # false for NaN
        raise UsageError(f"{path!r} has probabilities that are not numbers from 0 to 1")
    return files, probabilities, names
