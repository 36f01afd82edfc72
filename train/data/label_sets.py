"""Images with any number of classes: each set of classes that occurs is numbered.

So a label stays one integer until a batch is made, and splits, folds and checks of one class per
image hold for sets of classes as well (the label powerset; Tsoumakas and Katakis 2007).
"""

from collections.abc import Sequence

import numpy as np

SEPARATOR = "|"  # of the classes of an image


def number_sets(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the sets of a source whose images may have several classes.

    Args:
      matrix: whether image n is of class k, bool ``(N, K)``.

    Returns:
      Labels int32 ``(N,)``, and ``DataSource.label_sets`` bool ``(S, K)``.
    """
    matrix = np.ascontiguousarray(matrix, bool)
    # Packed rows are compared as one value, which is many times faster than column by column.
    packed = np.packbits(matrix, axis=1)
    rows = packed.view(f"V{packed.shape[1]}").ravel()
    _, first, labels = np.unique(rows, return_index=True, return_inverse=True)
    return labels.astype(np.int32), matrix[first]


def join_classes(chosen: np.ndarray, class_names: Sequence[str]) -> str:
    """Return the names of some classes joined by :data:`SEPARATOR`.

    Args:
      chosen: whether each class is one of them ``(K,)``.
      class_names: names of the K classes.
    """
    return SEPARATOR.join(class_names[k] for k in np.flatnonzero(chosen))


def merge_rare(labels: np.ndarray) -> np.ndarray:
    """Return strata of labels ``(N,)``: those of one image are joined to one stratum.

    A single image cannot be divided into training and evaluation images, several of different
    sets of classes can.
    """
    _, strata, counts = np.unique(labels, return_inverse=True, return_counts=True)
    single = counts == 1
    if single.sum() == 1:  # with the most frequent set
        single[counts.argmax()] = True
    joined = np.where(single, -1, np.arange(len(counts)))
    return np.unique(joined[strata], return_inverse=True)[1].astype(np.int32)
