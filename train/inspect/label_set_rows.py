"""Likely label errors of images with several classes, as rows of findings."""

import numpy as np

from train.inspect.findings_table import LABEL, FindingRow, image_row
from train.inspect.images import Images
from train.inspect.label_errors import find_label_set_errors, skill
from train.runtime.formatting import format_percent, join_names, pluralize


def find_label_set_rows(
    images: Images, probabilities: np.ndarray, origin: str, min_skill: float, advice: str
) -> tuple[list[FindingRow], list[str]]:
    """Return a row for each image with doubtful labels, and notes on how they were found.

    A row suggests the classes with the doubtful ones corrected; its score is one minus the lowest
    probability of a label that the image has, or lacks.

    Args:
      images: the images.
      probabilities: out-of-sample probabilities ``(N, K)``, NaN for unknown ones.
      origin: where these come from.
      min_skill: the least skill of a class's probabilities; others are left out.
      advice: how to get better ones.
    """
    targets, names = images.targets, images.sources[0].class_names
    skills = np.array([_skill(targets[:, k], probabilities[:, k]) for k in range(len(names))])
    used = np.nan_to_num(skills) >= min_skill
    notes = []
    if not used.all():
        left = join_names([names[k] for k in np.flatnonzero(~used)])
        reason = f"too few images have the class, or the probabilities are too weak ({origin})"
        notes.append(f"Label errors of {left} are not listed: {reason}. {advice}")
    if not used.any():
        return [], notes
    probabilities = np.where(used, probabilities, np.nan)
    known = ~np.isnan(probabilities)
    right = ((probabilities >= 0.5) == targets)[known].mean()
    notes.append(
        f"Label errors by {origin}: {pluralize(int(known.any(axis=1).sum()), 'image')},"
        f" {format_percent(right)} of the labels of {used.sum():,} of {len(names):,} classes agree."
    )
    doubtful = find_label_set_errors(targets, probabilities)
    own = np.where(targets, probabilities, 1 - probabilities)
    rows = []
    for index in np.flatnonzero(doubtful.any(axis=1)):
        suggestion = images.join_classes(targets[index] ^ doubtful[index])
        score = 1 - own[index, doubtful[index]].min()
        rows.append(image_row(images, index, LABEL, suggestion, score))
    return rows, notes


def _skill(target: np.ndarray, probability: np.ndarray) -> float:
    """Return how much better than the most frequent answer probabilities agree with a class."""
    known = ~np.isnan(probability)
    if not known.any():
        return np.nan
    target = target[known]
    right = ((probability[known] >= 0.5) == target).mean()
    return skill(right, max(target.mean(), 1 - target.mean()))
