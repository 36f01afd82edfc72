"""What a user should know of the data before training: skipped files, copies, similar classes."""

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from flax_resnet.text import truncate
from train.data.class_names import ALIKE, alike
from train.data.duplicates import MAX_SECONDS, FileCheck, check_files, check_images
from train.data.label_sets import SEPARATOR
from train.data.skipped import MAX_EXAMPLES, Finding, describe_skipped
from train.data.source import DataSource
from train.data.sources.folder_scan import BESIDE, IMAGES_BESIDE
from train.data.sources.image_folder import SPLIT_LIKE, ImageFiles
from train.data.sources.labeled_images import LabeledImages
from train.runtime.formatting import format_duration, join_names

_CORRUPT = "they count as corrupt"
_MAX_NAME = 200  # characters of an example, which may be two paths
_MIN_COUNTED = 20  # images; in fewer, unequal counts mean little
# What pandas, R and spreadsheets write for a missing value. A class may well be called "none".
_MISSING = ("NaN", "nan", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT", "None", "null", "NULL")
UNBALANCED = "unbalanced"  # kind of a class with few images
LEAK = "leak"  # kind of images that are in both splits
_LEAK_ADVICE = "the accuracy will be overestimated; remove them from one split"


def inspect_data(train: DataSource, evaluation: DataSource) -> list[Finding]:
    """Return findings on the data of a run. Takes a few seconds at most.

    Args:
      train: the training split.
      evaluation: the evaluation split of the same data set, with the same classes.
    """
    findings = _overlap(train, evaluation)
    if train.table is not None:
        findings += train.table.findings()
        findings += _unused_splits(train, evaluation)
    if isinstance(train.records, ImageFiles) and isinstance(evaluation.records, ImageFiles):
        findings += describe_skipped(train.records.root, merge_skipped(train, evaluation))
        findings += _compare_files(train, evaluation)
        like_splits = [name for name in train.class_names if name.casefold() in SPLIT_LIKE]
        like_splits *= train.table is None
        findings += _found("split as class", like_splits, "classes have the name of a split")
    kinds = {type(source.records) for source in (train, evaluation)}
    if kinds == {LabeledImages}:
        if not findings:  # otherwise the overlap of the splits is reported
            findings += _compare_records(train, evaluation)
        advice = ("shuffle the images before using parts of them",) * 2
    else:
        advice = "the network cannot learn them", "nothing is known of its answers for them"
    for source, text in zip((train, evaluation), advice, strict=True):
        findings += _missing_classes(source, text)
    findings += _shared_groups(train, evaluation)
    findings += _unbalanced(train)
    findings += _single_classes(train) + _joined_classes(train)
    groups = [" and ".join(group) for group in alike(train.class_names)]
    place = "folders" if train.table is None else "labels"
    place = "classes" if train.label_kind == "mask" else place
    advice = f"merge the {place} if they are one class"
    one = f"group of class names differs {ALIKE}"
    findings += _found("alike", groups, f"groups of class names differ {ALIKE}", advice, one=one)
    return findings if train.table is None else findings + _missing_marks(train)


def _missing_marks(source: DataSource) -> list[Finding]:
    """Find labels of a table that are probably none."""
    marks = [repr(name) for name in source.class_names if name in _MISSING]
    what, one = (
        f"{text} of a missing value" for text in ("classes have the name", "class has the name")
    )
    return _found(
        "missing labels", marks, what, "leave these labels empty if they are unknown", one=one
    )


def _unused_splits(train: DataSource, evaluation: DataSource) -> list[Finding]:
    """Find the splits of a table of which no image is used, such as ``val`` beside folds."""
    others = train.table.other_splits
    if evaluation.table is not None:
        others = {split: n for split, n in others.items() if split in evaluation.table.other_splits}
    names = [f"{split} ({count:,})" for split, count in others.items()]
    what, one = "splits of the table are not used", "split of the table is not used"
    return _found("unused splits", names, what, is_warning=False, one=one)


# What is found of copies with different labels, and advice; also if images have several classes.
_CONFLICT = {
    False: ("images are in several classes", "keep one"),
    True: ("images have copies with other classes", "correct them, and keep one"),
}


def _unbalanced(train: DataSource) -> list[Finding]:
    """Find a class with less than half of the training images of another, if that is quick."""
    if len(train) < _MIN_COUNTED or not train.has_cheap_labels:
        return []
    counts = train.class_counts()
    present = np.flatnonzero(counts)
    most, least = counts.argmax(), present[counts[present].argmin()]
    if counts[most] <= 2 * counts[least]:
        return []
    few, many = (truncate(train.class_names[index], _MAX_NAME) for index in (least, most))
    text = (
        f"the classes are unbalanced: {few!r} has {counts[least]:,} training images, {many!r}"
        f" {counts[most]:,}; "
        + (
            "look at the metrics of each class, and try pos_weight='balanced'"
            if train.label_sets is not None
            else "look at the balanced accuracy, and try class_weights='balanced' or"
            " loader.sampling='balanced'"
        )
    )
    return [Finding(UNBALANCED, int(counts[least]), (few, many), text, is_warning=True)]


_MARKS = (",", ";", "/", "+", "&", "|")  # that may separate classes in a label


def _single_classes(train: DataSource) -> list[Finding]:
    """Find out that no image has several classes, though all may."""
    if train.label_sets is None or not train.has_cheap_labels:
        return []
    sizes = train.label_sets[np.unique(train.all_labels())].sum(axis=1)
    if (sizes > 1).any():
        return []
    names = {*train.class_names}
    joined = [
        (name, mark)
        for name in names
        for mark in _MARKS
        if names & {*map(str.strip, name.split(mark))} - {name}
    ]
    if train.table is not None and joined:
        name, mark = min(joined)
        text = (
            f"no training image has several classes, but labels such as {truncate(name)!r} may be"
            f" some; choose their separator with dataset.label_separator={mark!r}"
        )
        return [Finding("single classes", len(train), (name,), text, is_warning=True)]
    if (sizes != 1).any():
        return []
    text = "every training image has a single class, which is what task='classification' learns"
    if train.table is not None:
        text += "; if labels of the table have several, choose their dataset.label_separator"
    return [Finding("single classes", len(train), (), text, is_warning=True)]


def _joined_classes(train: DataSource) -> list[Finding]:
    """Find classes of a table that may be several ones of an image."""
    if train.label_sets is not None or train.table is None:
        return []
    joined = [name for name in train.class_names if SEPARATOR in name.strip(SEPARATOR)]
    if not joined:
        return []
    text = (
        f"labels such as {truncate(joined[0])!r} are classes of their own ({len(joined):,} in all);"
        " if they name several classes of an image, set task='multi_label'"
    )
    return [Finding("joined classes", len(joined), tuple(joined), text, is_warning=True)]


def _shared_groups(train: DataSource, evaluation: DataSource) -> list[Finding]:
    """Find groups, such as patients, with images in both splits."""
    if train.groups is None or evaluation.groups is None:
        return []
    shared = {*train.groups} & {*evaluation.groups}
    what = f"of {len({*evaluation.groups}):,} groups of evaluation images are also in training"
    return _found("shared groups", shared, what, _LEAK_ADVICE)


def merge_skipped(*sources: DataSource) -> dict[str, list[str]]:
    """Return the skipped paths of splits of one folder, by reason, each once and sorted."""
    merged: dict[str, list[str]] = {}
    for reason in {reason for source in sources for reason in source.skipped}:
        paths = {path for source in sources for path in source.skipped.get(reason, ())}
        if reason in (BESIDE, IMAGES_BESIDE):
            paths -= {source.split for source in sources}
        merged[reason] = sorted(paths)
    return merged


def _found(
    kind: str,
    names: Collection[str],
    what: str,
    advice: str = "",
    is_warning: bool = True,
    one: str = "",
) -> list[Finding]:
    """Return a finding on some names, or none without any; ``one`` is ``what`` of a single one."""
    if not names:
        return []
    names = sorted(names)
    examples = [truncate(name, _MAX_NAME) for name in names[:MAX_EXAMPLES]]
    what = one if one and len(names) == 1 else what
    text = f"{len(names):,} {what}: {join_names([*examples, *names[MAX_EXAMPLES:]], MAX_EXAMPLES)}"
    text += f"; {advice}" * bool(advice)
    return [Finding(kind, len(names), tuple(examples), text, is_warning)]


def _overlap(train: DataSource, evaluation: DataSource) -> list[Finding]:
    """Find records that are in both splits by definition, such as ``train[:60%]`` and ``train``."""
    shared = sum(
        max(0, min(end, other_end) - max(start, other_start))
        for file, start, end in train.parts
        for other_file, other_start, other_end in evaluation.parts
        if file == other_file
    )
    if not shared:
        return []
    text = (
        f"{shared:,} of {len(evaluation):,} evaluation images are also training images: the splits"
        f" {train.split!r} and {evaluation.split!r} overlap; {_LEAK_ADVICE}"
    )
    return [Finding(LEAK, shared, (), text, is_warning=True)]


def _compare_files(train: DataSource, evaluation: DataSource) -> list[Finding]:
    """Find image files that are copies of others, empty or unreadable."""
    label_of = {}
    for source in (train, evaluation):
        files = source.records.files
        label_of |= zip(files, source.all_label_names() or [""] * len(files), strict=True)
    training, evaluated = set(train.records.files), set(evaluation.records.files)
    files = list(label_of)
    check = check_files(train.records.root, files)
    images = [_Image(f, label_of[f], f in training, f in evaluated) for f in files]
    shared = sorted(training & evaluated)
    several = train.label_sets is not None
    return _describe_check(check, images.__getitem__, len(files), len(evaluation), several, shared)


def _compare_records(train: DataSource, evaluation: DataSource) -> list[Finding]:
    """Find images in arrays and other files that are copies of others, or empty."""
    names = {id(source): source.label_names() for source in (train, evaluation)}

    def record(index: int) -> tuple[DataSource, int]:
        is_training = index < len(train)
        return (train, index) if is_training else (evaluation, index - len(train))

    def read(index: int) -> bytes | np.ndarray:
        source, number = record(index)
        return source[number][0]

    def image(index: int) -> _Image:
        source, number = record(index)
        name = f"{source.split}: {source.record_name(number)}"
        label = names[id(source)][source.records.label(number)]
        return _Image(name, label, source is train, source is not train)

    count = len(train) + len(evaluation)
    several = train.label_sets is not None
    return _describe_check(check_images(read, count), image, count, len(evaluation), several)


def _missing_classes(source: DataSource, advice: str) -> list[Finding]:
    """Find classes without an image, if labels are cheap to read."""
    if not source.has_cheap_labels:
        return []
    counts = source.class_counts()
    missing = [name for name, n in zip(source.class_names, counts, strict=True) if not n]
    what = f"of {len(counts):,} classes have no image in {source.split!r}"
    return _found("missing classes", missing, what, advice)


class _Image(NamedTuple):
    """An image for messages about copies."""

    name: str
    label: str
    in_training: bool
    in_evaluation: bool


def _describe_check(
    check: FileCheck,
    image: Callable[[int], _Image],
    count: int,
    num_evaluated: int,
    several: bool,
    shared: Sequence[str] = (),
) -> list[Finding]:
    """Return the findings of a comparison.

    Args:
      check: the comparison.
      image: the image of an index.
      count: number of images.
      num_evaluated: number of evaluation images.
      several: whether an image may have several classes.
      shared: names of files that are in both splits.
    """
    # The images that are in both splits, in several classes, or several times in a split.
    leaks = {name: f"{name} in both splits" for name in shared}
    conflicts, copies = {}, {}
    for group in (list(map(image, indices)) for indices in check.copies):
        for in_split in (attrgetter("in_training"), attrgetter("in_evaluation")):
            first, *others = [one for one in group if in_split(one)] or [None]
            copies |= {one.name: f"{one.name} = {first.name}" for one in others}
        first = next((one for one in group if one.in_training), None)
        if first:
            leaks |= {
                one.name: f"{one.name} = {first.name}" for one in group if not one.in_training
            }
        one_per_label = {one.label: one for one in reversed(group)}
        for one in group if len(one_per_label) > 1 else ():
            other = next(two for label, two in one_per_label.items() if label != one.label)
            conflicts[one.name] = f"{one.name} = {other.name}"
    leaked = f"of {num_evaluated:,} evaluation images are also training images"
    findings = [
        *_found(LEAK, leaks.values(), leaked, _LEAK_ADVICE),
        *_found("several classes", conflicts.values(), *_CONFLICT[several]),
        *_found(
            "copies",
            copies.values(),
            "images are copies of others of their split",
            is_warning=False,
            one="image is a copy of another of its split",
        ),
        *_found(
            "empty",
            [image(i).name for i in check.empty],
            "images are empty",
            _CORRUPT,
            one="image is empty",
        ),
        *_found(
            "no permission",
            [image(i).name for i in check.unreadable],
            "images cannot be read",
            f"change their permissions; {_CORRUPT}",
            one="image cannot be read",
        ),
    ]
    if left := count - check.checked:
        text = (
            f"{left:,} of {count:,} images were not compared with others to find copies,"
            f" which would take longer than {format_duration(MAX_SECONDS)}"
        )
        findings.append(Finding("unchecked", left, (), text, is_warning=False))
    return findings
