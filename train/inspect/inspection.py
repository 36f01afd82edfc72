"""Inspection of data: copies, label errors, outliers and unreadable images."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flax_resnet.images.pixels import PixelFormat
from train.data.findings import inspect_data, merge_skipped
from train.data.skipped import Finding, advice_for, skipped_by_kind
from train.data.source import DataSource
from train.data.sources.image_folder import ImageFolder
from train.inspect import near_duplicates, probe
from train.inspect.findings_table import (
    BLANK,
    LABEL,
    NEAR,
    OUTLIER,
    SKIPPED,
    UNREADABLE,
    FindingRow,
    copy_rows,
    image_row,
    sort_rows,
)
from train.inspect.images import Images, pixel_features, read_images
from train.inspect.label_errors import MIN_GIVEN_SKILL, MIN_SKILL, find_label_errors, skill
from train.inspect.label_set_rows import find_label_set_rows
from train.inspect.predictions_file import read_probabilities
from train.runtime.formatting import format_percent, join_names, pluralize

if TYPE_CHECKING:
    from flax_resnet.runs import Run

MIN_UNUSUALNESS = 2.0  # times the distance of a typical image to others


@dataclass
class Inspection:
    """What an inspection found.

    Attributes:
      images: the images.
      rows: the findings on files.
      findings: findings on the data as a whole, as before training.
      notes: how they were found, and what was not examined.
      seconds: duration of each part.
      probabilities: out-of-fold probabilities ``(N, K)``, NaN where there are none.
    """

    images: Images
    rows: list[FindingRow]
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    probabilities: np.ndarray | None = None


def inspect(
    sources: Sequence[DataSource],
    pixels: PixelFormat,
    run: "Run | None" = None,
    predictions: Sequence[str] = (),
    done: Callable[[str, float], None] = lambda *_: None,
) -> Inspection:
    """Inspect the images of some splits.

    Args:
      sources: the splits, with the same classes; the first is that for training.
      pixels: channels and bits of the images.
      run: gives the features in which images are compared; default: their pixels.
      predictions: files of out-of-fold predictions; default: a probe on the features.
      done: called with the name and the seconds of each part.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        seconds[name] = time.monotonic() - start
        done(name, seconds[name])

    with part("decode images"):
        if run is None:
            images = read_images(sources, pixels)
            images.features = pixel_features(images)
        else:
            compute = lambda inputs: run.features(inputs, prepared=True)  # noqa: E731
            images = read_images(sources, pixels, run.preprocessing.crop, compute)
    findings = [one for other in sources[1:] or sources for one in inspect_data(sources[0], other)]
    unique = list({one.text: one for one in findings}.values())
    result = Inspection(images, [], unique, seconds=seconds)
    _add_unreadable(result)
    with part("compare images"):
        groups = _add_copies(result)
    if images.features is not None and images.readable.any():
        with part("find label errors"):
            _add_label_errors(result, groups, predictions, run)
        with part("find outliers"):
            _add_outliers(result, groups)
    result.rows = sort_rows(result.rows)
    return result


def _add_unreadable(result: Inspection) -> None:
    images = result.images
    for index, reason in sorted(images.reasons.items()):
        action = "replace or remove"
        result.rows.append(image_row(images, index, UNREADABLE, action, 1, reason))
    folders = [source for source in images.sources if isinstance(source.records, ImageFolder)]
    if not folders:
        return
    root = folders[0].records.root
    for kind, paths in skipped_by_kind(root, merge_skipped(*folders)).items():
        action = advice_for(kind) or "none"
        result.rows += [FindingRow(path, "", "", SKIPPED, action, 1, kind) for path in paths]


def _add_copies(result: Inspection) -> np.ndarray:
    """Add exact and near copies; return a group number ``(N,)`` that copies share."""
    images = result.images
    exact = near_duplicates.exact_groups(images.digest, images.readable)
    for group in exact:
        result.rows += copy_rows(images, group)
    links = [(group[0], other) for group in exact for other in group[1:]]
    is_copy = np.zeros(len(images), bool)
    is_copy[[other for _, other in links]] = True
    candidates = np.flatnonzero(images.readable & ~is_copy)
    try:
        pairs = near_duplicates.near_pairs(images.hash, images.thumbnail, images.size, candidates)
    except near_duplicates.TooManyCandidates:
        pairs = []
        result.notes.append(
            "Near copies are not listed: too many of the images resemble one another in coarse"
            " structure, as with a fixed camera."
        )
    scores: dict[int, float] = {}
    for one, two, score in pairs:
        for index in (one, two):
            scores[index] = max(score, scores.get(index, 0.0))
    links += [(one, two) for one, two, _ in pairs]
    numbers = near_duplicates.connected(len(images), links)
    for group in near_duplicates.groups_of(numbers):
        if any(index in scores for index in group):
            result.rows += copy_rows(images, group, NEAR, scores)
    return numbers


def _add_label_errors(
    result: Inspection, groups: np.ndarray, predictions: Sequence[str], run: "Run | None"
) -> None:
    images, classes = result.images, len(result.images.sources[0].class_names)
    several = images.label_sets is not None
    probabilities = np.full((len(images), classes), np.nan, np.float32)
    if predictions:
        probabilities = read_probabilities(predictions, images)
        origin = "the given predictions"
    else:
        rows = images.readable
        given = images.features[rows], images.targets[rows], groups[rows]
        probabilities[rows] = (
            probe.out_of_fold_each(*given) if several else probe.out_of_fold(*given, classes)
        )
        kind = "features of the run" if run is not None else "pixels of thumbnails"
        origin = f"a five-fold probe on the {kind}"
    result.probabilities = probabilities
    min_skill, advice = MIN_SKILL, "Give out-of-fold predictions (--predictions)."
    if predictions:
        min_skill, advice = MIN_GIVEN_SKILL, "Give those of better runs."
    elif run is None:
        advice = "Give a run (--workdir) or out-of-fold predictions (--predictions)."
    if several:
        rows, notes = find_label_set_rows(images, probabilities, origin, min_skill, advice)
        result.rows += rows
        result.notes += notes
        return
    known = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    if not len(known):
        result.notes.append("Label errors were not examined: a class has too few images.")
        return
    labels = images.label[known]
    right = probabilities[known].argmax(axis=1) == labels
    majority = np.bincount(labels).max() / len(labels)
    described = (
        f"{origin}: {pluralize(len(known), 'image')}, {format_percent(right.mean())} agree with"
        f" their label, {format_percent(majority)} would by always answering the most frequent"
    )
    unknown = images.readable & np.isnan(probabilities).any(axis=1)
    if unknown.any() and not predictions:
        rare = {images.class_name(index) for index in np.flatnonzero(unknown)}
        result.notes.append(
            f"Label errors of {join_names(sorted(rare))} were not examined: these classes have too"
            " few images."
        )
    if skill(right.mean(), majority) < min_skill:
        result.notes.append(
            f"Label errors are not listed, because the probabilities are too weak ({described})."
            f" {advice}"
        )
        return
    result.notes.append(f"Label errors by {described}.")
    if run is not None and not predictions:
        _note_memorized(result, known, right)
    for index in known[find_label_errors(labels, probabilities[known])]:
        own = probabilities[index, images.label[index]]
        name = images.sources[0].class_names[probabilities[index].argmax()]
        result.rows.append(image_row(images, index, LABEL, name, 1 - own))


def _note_memorized(result: Inspection, known: np.ndarray, right: np.ndarray) -> None:
    """Add a note if the features of training images know their labels, wrong ones included."""
    training = result.images.split[known] == 0
    if training.all() or not training.any():
        return
    trained, others = 1 - right[training].mean(), 1 - right[~training].mean()
    if others > 0.02 and trained < others / 3:
        result.notes.append(
            f"The run has learned its training labels by heart ({format_percent(trained)} of them"
            f" are doubtful, {format_percent(others)} elsewhere): wrong ones among them are missed."
            " Train on folds (dataset.fold) and give the predictions of each (--predictions)."
        )


def _add_outliers(result: Inspection, groups: np.ndarray) -> None:
    images = result.images
    deviation = images.thumbnail.reshape(len(images), -1).std(axis=1)
    blank = images.readable & (deviation < near_duplicates.MIN_DEVIATION)
    for index in np.flatnonzero(blank):
        result.rows.append(image_row(images, index, BLANK, "remove", 1))
    rows = np.flatnonzero(images.readable & ~blank)
    if len(rows) < 2:
        return
    scores = probe.unusualness(images.features[rows], groups[rows])
    for i in np.flatnonzero(scores > MIN_UNUSUALNESS):
        result.rows.append(image_row(images, rows[i], OUTLIER, "look at it", scores[i]))
