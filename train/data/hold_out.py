"""The part of a data set that is held out for evaluation, by class and by group."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from train.data.label_sets import merge_rare, number_sets
from train.data.splits import HELD_OUT_PART
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names


class SingleImageError(UsageError):
    """A class has a single image, which cannot be on both sides."""


def hold_out(
    part: str,
    names: Sequence[str],
    targets: np.ndarray,
    groups: Sequence[str] | None,
    class_names: Sequence[str],
    fraction: float,
    seed: int,
) -> np.ndarray:
    """Return the records of a part, in order.

    Without groups a fraction of each class, or of each set of classes, is held out, at least one
    image; with groups whole groups are, so that the classes get about that fraction. Most records
    stay on their side when others are added.

    Args:
      part: ``HELD_OUT_PART`` for the records that are held out, else for the others.
      names: names of the records, which decide about their order.
      targets: those of the records, as ``DataSource.targets`` returns them.
      groups: the groups of the records.
      class_names: names of the classes, for messages.
      fraction: as ``config.dataset.val_fraction``.
      seed: as ``config.dataset.val_seed``.

    Raises:
      SingleImageError: a class has a single image.
      UsageError: there is a single group.
    """
    if groups is None:
        held_out = _held_out_images(names, targets, class_names, fraction, seed)
    else:
        held_out = _held_out_groups(groups, targets, len(class_names), fraction, seed)
    return np.flatnonzero(held_out == (part == HELD_OUT_PART))


def groups_by_pattern(pattern: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the group of each name: what the group in a regular expression matches.

    Raises:
      UsageError: the pattern is invalid, has no or several groups, or does not match a name.
    """
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"config.dataset.group_pattern={pattern!r} is not a regular expression: {error}"
        ) from error
    if search.groups != 1:
        raise UsageError(
            f"config.dataset.group_pattern={pattern!r} must have one pair of parentheses, around"
            rf" the name of the group, such as '(patient\d+)_'; it has {search.groups}"
        )
    matches = [search.search(name) for name in names]
    missing = [name for name, match in zip(names, matches, strict=True) if not (match and match[1])]
    if missing:
        raise UsageError(
            f"config.dataset.group_pattern={pattern!r} finds no group in {len(missing):,} of"
            f" {len(names):,} names: {join_names([repr(name) for name in missing], 3)}"
        )
    return tuple(match[1] for match in matches)


def rank(seed: int, name: str) -> bytes:
    """Return a key that puts names in a random order, in which others may be added."""
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogatepass")).digest()


def stratify(targets: np.ndarray) -> np.ndarray:
    """Return the strata of targets, int ``(N,)``: their classes or sets of classes."""
    return targets if targets.ndim == 1 else merge_rare(number_sets(targets)[0])


def count_classes(groups: Sequence[str], targets: np.ndarray, num_classes: int):
    """Return the names of the groups, sorted, and their numbers of images by class ``(G, C)``."""
    names, numbers = np.unique(np.array(groups), return_inverse=True)
    counts = np.zeros((len(names), num_classes), np.int64)
    if targets.ndim == 1:
        np.add.at(counts, (numbers, targets), 1)
    else:
        np.add.at(counts, numbers, targets)
    return names.tolist(), numbers, counts


def _held_out_images(
    names: Sequence[str],
    targets: np.ndarray,
    class_names: Sequence[str],
    fraction: float,
    seed: int,
) -> np.ndarray:
    held_out = np.zeros(len(names), bool)
    strata = stratify(targets)
    ends = np.cumsum(np.bincount(strata))[:-1]
    for stratum, records in enumerate(np.split(np.argsort(strata, kind="stable"), ends)):
        if len(records) == 1:
            what = f"class {class_names[stratum]!r}" if targets.ndim == 1 else "data set"
            raise SingleImageError(
                f"the {what} has a single image, which cannot be used for both"
                " training and evaluation; add more, or choose the splits yourself"
            )
        count = min(len(records) - 1, max(1, round(fraction * len(records))))
        ordered = sorted(records.tolist(), key=lambda record: rank(seed, names[record]))
        held_out[ordered[: max(0, count)]] = True
    return held_out


def _held_out_groups(
    groups: Sequence[str], targets: np.ndarray, num_classes: int, fraction: float, seed: int
) -> np.ndarray:
    """Hold out groups, in random order, as long as that brings the classes nearer to their share.

    A group with all images of a class stays in training.
    """
    names, numbers, counts = count_classes(groups, targets, num_classes)
    if len(names) < 2:
        raise UsageError(
            f"all images are in one group, {names[0]!r}, which cannot be used for both training and"
            " evaluation; check config.dataset.group_key and group_pattern"
        )
    total = np.maximum(counts.sum(axis=0), 1)
    target = fraction * total
    held, chosen = np.zeros(num_classes), np.zeros(len(names), bool)
    order = sorted(range(len(names)), key=lambda group: rank(seed, names[group]))
    for group in order:
        after = held + counts[group]
        nearer = _distance(after, target, total) < _distance(held, target, total)
        if nearer and (after[counts[group] > 0] < total[counts[group] > 0]).all():
            held, chosen[group] = after, True
    if not chosen.any():  # every group has more than twice the fraction: take the smallest
        free = [g for g in order if (counts[g][counts[g] > 0] < total[counts[g] > 0]).all()]
        smallest = min(free or order, key=lambda group: counts[group].sum())
        chosen[smallest] = True
    return chosen[numbers]


def _distance(held: np.ndarray, target: np.ndarray, total: np.ndarray) -> float:
    return float((((held - target) / total) ** 2).sum())
