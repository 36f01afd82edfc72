"""Stratified folds for cross-validation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from train.data.hold_out import count_classes, rank, stratify
from train.data.source import DataSource
from train.data.splits import HELD_OUT, parse_fold
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError


def take_fold(source: DataSource, split: str, dataset: ConfigDict) -> DataSource:
    """Return the images of ``config.dataset.fold`` or, for training, all others.

    Args:
      source: all images.
      split: ``HELD_OUT`` for the images of the fold.
      dataset: ``config.dataset`` with ``fold`` and ``val_seed``.

    Raises:
      UsageError: there are fewer images or groups than folds, or reading the labels of the images
        would take too long.
    """
    number, count = parse_fold(dataset.fold)
    if not source.has_cheap_strata:
        raise UsageError(
            f"config.dataset.fold={dataset.fold!r} needs the labels of all {len(source):,} images"
            f" of {source.name!r}, which are stored with the images; put them into a table for"
            " config.dataset.name='table'"
        )
    names = [source.record_name(index) for index in range(len(source))]
    targets = source.strata()
    folds = assign_folds(names, targets, source.groups, count, dataset.val_seed)
    held_out = split == HELD_OUT
    part = source.select(np.flatnonzero((folds == number - 1) == held_out))
    return replace(part, split=split, is_held_out=held_out)


def assign_folds(
    names: Sequence[str],
    targets: np.ndarray,
    groups: Sequence[str] | None,
    count: int,
    seed: int,
) -> np.ndarray:
    """Return the fold of each image, 0 to ``count`` - 1.

    The numbers of images of a class, or of a set of classes, differ by at most one between folds,
    as do those of all images. With groups, whole groups are assigned one by one, the most uneven
    first, each to the fold in which the variance of the classes' shares over the folds grows
    least, as scikit-learn's ``StratifiedGroupKFold`` does. The order of the images has no effect.

    Args:
      names: names of the images, which decide about their order.
      targets: those of the images, as ``DataSource.targets`` returns them.
      groups: the groups of the images; None for none.
      count: number of folds.
      seed: seed of the assignment.

    Raises:
      UsageError: there are fewer images or groups than folds.
    """
    available, noun = (len(names), "images") if groups is None else (len({*groups}), "groups")
    if available < count:
        raise UsageError(f"{count} folds need as many {noun}, but there are {available}")
    if groups is None:
        strata = stratify(targets)
        order = sorted(range(len(names)), key=lambda i: (strata[i], rank(seed, names[i])))
        folds = np.empty(len(names), np.int32)
        folds[order] = np.arange(len(names)) % count
        return folds
    classes = int(targets.max()) + 1 if targets.ndim == 1 else targets.shape[1]
    group_names, numbers, counts = count_classes(groups, targets, classes)
    uneven = counts.std(axis=1).round(9).tolist()
    order = sorted(range(len(group_names)), key=lambda g: (-uneven[g], rank(seed, group_names[g])))
    weights = 1.0 / np.maximum(counts.sum(axis=0), 1) ** 2
    in_fold = np.zeros((count, counts.shape[1]))
    fold_of_group = np.empty(len(group_names), np.int32)
    for group in order:
        growth = (in_fold @ (counts[group] * weights)).round(12)
        fold = np.lexsort((in_fold.sum(axis=1), growth))[0]
        in_fold[fold] += counts[group]
        fold_of_group[group] = fold
    return fold_of_group[numbers]
