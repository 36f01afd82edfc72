"""Names of splits, and parts of them such as ``train[:80%]``."""

import re
from collections.abc import Collection

from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names

TRAIN = "train"
EVAL_SPLITS = ("val", "validation", "valid", "test")  # in order of preference
ALL = "all"  # every image of data without splits
HELD_OUT = "held_out"  # the images of config.dataset.fold
TRAINING_PART, HELD_OUT_PART = "training", "held out"  # of data without evaluation splits
MAX_FOLDS = 1000

_PART = re.compile(r"([^\[\]+]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def parse_split(split: str) -> tuple[str, str, str]:
    """Return the name, start and end of a part such as ``train[10%:500]``; ``""`` for none.

    Raises:
      UsageError: it is not of that form.
    """
    match = _PART.fullmatch(split)
    if not match:
        raise UsageError(
            f"the split {split!r} must be a name or a part of a split, such as 'train',"
            " 'train[:80%]' or 'train[1000:]'"
        )
    return match[1], match[2] or "", match[3] or ""


def part_of(split: str, count: int) -> range:
    """Return the records of a part of a split with ``count`` records.

    Percentages are rounded to whole records, so that ``[:80%]`` and ``[80%:]`` do not overlap.

    Raises:
      UsageError: it is not of the form of :func:`parse_split`, or empty.
    """
    _, *bounds = parse_split(split)

    def position(bound: str) -> int | None:
        if bound.endswith("%"):
            return round(int(bound[:-1]) * count / 100)
        return int(bound) if bound else None

    start, end = map(position, bounds)
    records = range(count)[start:end]
    if not records:
        raise UsageError(f"the split {split!r} has no images: there are {count:,} in all")
    return records


def replace_name(split: str, name: str) -> str:
    """Return a split or a part of one with another name; of data without splits, "", unchanged."""
    return name + split[len(parse_split(split)[0]) :] if name else split


def find_split(split: str, existing: Collection[str], where: str) -> str:
    """Return the name among ``existing`` that ``split`` stands for.

    A missing evaluation split is replaced by another of ``EVAL_SPLITS``. Data without splits,
    whose only name is ``""``, are ``"train"`` or ``"all"``.

    Args:
      split: a split or a part of one.
      existing: names of splits.
      where: the data, for messages.

    Raises:
      UsageError: there is no such split.
    """
    name, *_ = parse_split(split)
    if name in existing:
        return name
    if name in (TRAIN, ALL) and set(existing) == {""}:
        return ""
    others = [other for other in EVAL_SPLITS if other in existing]
    if name in EVAL_SPLITS and others:
        return others[0]
    if "" in existing or set(existing) == {TRAIN}:
        every = ALL if "" in existing else TRAIN
        raise UsageError(
            f"{where} has no split {name!r}, only images for training; hold a part out with"
            " --config.dataset.train_split='train[:80%]' --config.dataset.eval_split='train[80%:]',"
            f" or evaluate all of them as the split {every!r}"
        )
    raise UsageError(f"{where} has no split {name!r}; it has {join_names(sorted(existing))}")


def parse_fold(fold: str) -> tuple[int, int]:
    """Return the number, counted from 1, and the count of a fold such as ``"2/5"``.

    Raises:
      UsageError: it is not of that form.
    """
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", fold)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (1 <= number <= count and 2 <= count <= MAX_FOLDS):
        raise UsageError(
            f"config.dataset.fold must be a fold such as '2/5', the second of five, not {fold!r}"
        )
    return number, count


def evaluation_split(dataset: ConfigDict) -> str:
    """Return the split of ``config.dataset`` on which a run evaluates."""
    return HELD_OUT if dataset.fold else dataset.eval_split


def locate_split(
    split: str, existing: Collection[str], where: str, whole: bool = False
) -> tuple[str, str]:
    """Return which images of a folder or a table a split has.

    Args:
      split: a split.
      existing: the splits that the data have; none for data without splits.
      where: the data, for messages.
      whole: whether no part is held out of the training images here, since folds are.

    Returns:
      A name among ``existing``, or ``""`` for data without splits; and ``TRAINING_PART`` or
      ``HELD_OUT_PART`` if only that part is meant, else ``""``.

    Raises:
      UsageError: there is no such split.
    """
    eval_splits = [name for name in EVAL_SPLITS if name in existing]
    training_part = "" if whole else TRAINING_PART
    if split in existing:
        return split, "" if split != TRAIN or eval_splits else training_part
    if split == ALL and not existing:
        return "", ""
    if split == TRAIN and not existing:
        return "", training_part
    if split in EVAL_SPLITS and eval_splits:
        return eval_splits[0], ""
    if split in EVAL_SPLITS and whole:
        raise UsageError(
            f"{where} has no split {split!r}; the images that config.dataset.fold holds out are the"
            f" split {HELD_OUT!r}"
        )
    if split in EVAL_SPLITS and (TRAIN in existing or not existing):
        return (TRAIN if TRAIN in existing else ""), HELD_OUT_PART
    if "[" in split or "+" in split:
        raise UsageError(
            f"the split {split!r} uses TFDS's split syntax, but {where} may be sorted by class;"
            f" name a whole split, such as {EVAL_SPLITS[0]!r}"
        )
    named = join_names(sorted(existing)) or "none of train, " + ", ".join(EVAL_SPLITS)
    raise UsageError(f"{where} has no split {split!r}; it has {named}")


def name_located(split: str, name: str, part: str) -> str:
    """Return the name of what :func:`locate_split` returned as ``name`` and ``part``.

    It is that of the folder or the rows that stand for a missing split. Images held out from
    training are no test set.
    """
    if part == HELD_OUT_PART and split == "test":
        return EVAL_SPLITS[0]
    return split if part else name or split
