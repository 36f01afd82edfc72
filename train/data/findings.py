"""What a user should know of the data before training: skipped files, copies, similar classes."""

from collections.abc import Collection

from train.data.class_names import ALIKE, alike
from train.data.duplicates import MAX_SECONDS, check_files
from train.data.folder_scan import BESIDE, IMAGES_BESIDE
from train.data.image_folder import SPLIT_LIKE, ImageFolder
from train.data.skipped import MAX_EXAMPLES, Finding, describe_skipped
from train.data.source import DataSource
from train.runtime.formatting import format_duration, join_names

_CORRUPT = "they count as corrupt"
LEAK = "leak"  # kind of images that are in both splits
_LEAK_ADVICE = "the accuracy will be overestimated; remove them from one split"


def inspect_data(train: DataSource, evaluation: DataSource) -> list[Finding]:
    """Return findings on the data of a run. Takes a few seconds at most.

    Args:
      train: the training split.
      evaluation: the evaluation split of the same data set, with the same classes.
    """
    findings = _overlap(train, evaluation)
    if isinstance(train.records, ImageFolder) and isinstance(evaluation.records, ImageFolder):
        findings += describe_skipped(train.records.root, merge_skipped(train, evaluation))
        findings += _compare_files(train, evaluation)
        like_splits = [name for name in train.class_names if name.casefold() in SPLIT_LIKE]
        findings += _found("split as class", like_splits, "classes have the name of a split")
    groups = [" and ".join(group) for group in alike(train.class_names)]
    advice = "merge the folders if they are one class"
    return findings + _found("alike", groups, f"groups of class names differ {ALIKE}", advice)


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
    kind: str, names: Collection[str], what: str, advice: str = "", is_warning: bool = True
) -> list[Finding]:
    """Return a finding on some names, or none without any."""
    if not names:
        return []
    names = sorted(names)
    text = f"{len(names):,} {what}: {join_names(names, MAX_EXAMPLES)}"
    text += f"; {advice}" * bool(advice)
    return [Finding(kind, len(names), tuple(names[:MAX_EXAMPLES]), text, is_warning)]


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
    """Find images that are copies of others, empty or unreadable."""
    label_of = {
        file: label
        for source in (train, evaluation)
        for file, label in zip(source.records.files, source.records.labels, strict=True)
    }
    training, evaluated = set(train.records.files), set(evaluation.records.files)
    files = list(label_of)
    check = check_files(train.records.root, files)
    # The images that are in both splits, in several classes, or several times in a split.
    leaks = {file: f"{file} in both splits" for file in sorted(training & evaluated)}
    conflicts, copies = {}, {}
    for group in ([files[i] for i in indices] for indices in check.copies):
        for split in (training, evaluated):
            first, *others = [file for file in group if file in split] or [""]
            copies |= {file: f"{file} = {first}" for file in others}
            if split is training and first:
                leaks |= {file: f"{file} = {first}" for file in group if file not in training}
        one_per_label = {label_of[file]: file for file in reversed(group)}
        for file in group if len(one_per_label) > 1 else ():
            other = next(one for label, one in one_per_label.items() if label != label_of[file])
            conflicts[file] = f"{file} = {other}"
    leaked = f"of {len(evaluation):,} evaluation images are also training images"
    findings = [
        *_found(LEAK, leaks.values(), leaked, _LEAK_ADVICE),
        *_found("several classes", conflicts.values(), "images are in several classes", "keep one"),
        *_found("copies", copies.values(), "images are copies of others of their split", "", False),
        *_found("empty", [files[i] for i in check.empty], "image files are empty", _CORRUPT),
        *_found(
            "no permission",
            [files[i] for i in check.unreadable],
            "image files cannot be read",
            f"change their permissions; {_CORRUPT}",
        ),
    ]
    if left := len(files) - check.checked:
        text = (
            f"{left:,} of {len(files):,} images were not compared with others to find copies,"
            f" which would take longer than {format_duration(MAX_SECONDS)}"
        )
        findings.append(Finding("unchecked", left, (), text, is_warning=False))
    return findings
