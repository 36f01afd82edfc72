"""What differs between two runs of segmentation: IoU by class, and mIoU."""

import shlex
from dataclasses import dataclass

import numpy as np

from train.compare.pair.differences import ClassDifference
from train.compare.pair.predictions import match_images
from train.compare.runs import RunSummary
from train.engine import stored_pixel_counts
from train.engine.stored_pixel_counts import StoredCounts
from train.reporting.metric_names import title
from train.runtime.errors import RunError
from train.tasks.pixel_bootstrap import iou_difference_intervals
from train.tasks.segmentation_metrics import class_iou


@dataclass(frozen=True)
class PixelDifferences:
    """What differs between two runs of segmentation on the same images.

    Attributes:
      names: names of the two runs.
      images: number of images.
      overall: the difference in mIoU.
      classes: those of the classes that both runs have, the largest first.
    """

    names: tuple[str, str]
    images: int
    overall: ClassDifference
    classes: list[ClassDifference]

    kind = "segmentation"


def compare_pixels(first: RunSummary, second: RunSummary) -> PixelDifferences:
    """Return what differs between the last evaluations of two runs.

    Raises:
      RunError: one of them has no counts, or they are of other images, masks or classes.
    """
    if first.class_names != second.class_names:
        raise RunError(f"{first.name} and {second.name} have different classes")
    a, b = (_read(run) for run in (first, second))
    if a.counts.shape[2] != b.counts.shape[2]:
        raise RunError(f"{first.name} and {second.name} have networks of different outputs")
    counts = b.counts[match_images(a.names, b.names, first, second)]
    differing = int((a.counts[:, 0] != counts[:, 0]).any(axis=1).sum())
    if differing:
        raise RunError(
            f"{first.name} and {second.name} were evaluated with different masks of"
            f" {differing:,} images, as after a change of dataset.image_size, which shrinks them"
        )
    iou = [class_iou(*each.sum(0)) for each in (a.counts, counts)]
    by_class, of_mean = iou_difference_intervals(a.counts, counts)
    images = (a.counts[:, 0] > 0).sum(0)
    classes = [
        ClassDifference(
            first.class_names[k] if k < len(first.class_names) else f"output {k}",
            int(images[k]),
            *map(float, (iou[0][k], iou[1][k], iou[1][k] - iou[0][k])),
            by_class[k],
        )
        for k in np.flatnonzero(~np.isnan(iou[0]) & ~np.isnan(iou[1]))
    ]
    classes.sort(key=lambda one: (-abs(one.difference), -one.examples))
    means = [float(np.nanmean(each)) for each in iou]
    overall = ClassDifference(title("miou"), len(a), *means, means[1] - means[0], of_mean)
    return PixelDifferences((first.name, second.name), len(a), overall, classes)


def _read(run: RunSummary) -> StoredCounts:
    command = f"python -m train.evaluate --workdir {shlex.quote(run.path)}"
    stored = stored_pixel_counts.read(run.path)
    if stored is None:
        raise RunError(
            f"{run.name} has no {stored_pixel_counts.FILE} (an unfinished run, one of an earlier"
            f" version, or one with too many images); {command} writes it"
        )
    last = run.results.get("step")
    if last is not None and stored.step != last:
        raise RunError(
            f"{stored_pixel_counts.FILE} of {run.name} is of step {stored.step:,}, but the last"
            f" evaluation of step {last:,}; {command} updates it"
        )
    return stored
