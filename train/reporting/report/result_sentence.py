"""The result of an evaluation in plain words, from the counts of its classes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax_resnet.text import one_line, truncate
from train.reporting.cautions import is_above_baseline
from train.runtime.formatting import MAX_CAPTION, format_percent, pluralize

Part = Mapping[str, Any]  # an evaluation in report.json


class _Found(NamedTuple):
    """How many images of a class were found."""

    name: str
    found: int
    images: int

    @property
    def missed(self) -> int:
        return self.images - self.found

    @property
    def recall(self) -> float:
        return self.found / self.images

    def describe(self) -> str:
        """Return ``finds 36.8 % of “cracked” (misses 12 of 19)``."""
        if not self.found:
            return f"never finds {self.name} ({pluralize(self.images, 'image')})"
        missed = f"misses {self.missed:,} of {self.images:,}" if self.missed else "all"
        return f"finds {format_percent(self.recall)} of {self.name} ({missed})"


def describe_result(part: Part) -> str:
    """Return one or two sentences on an evaluation of either task."""
    classes = [
        _Found(quote(one["name"]), round(one["recall"] * one["examples"]), one["examples"])
        for one in part["classes"]
        if one["examples"] and one["recall"] is not None
    ]
    if not classes:
        return f"Evaluated on {pluralize(part['examples'], 'image')}, none of them with a class."
    return _of_several_labels(part, classes) if "task" in part else _of_one_label(part, classes)


def quote(name: str) -> str:
    """Return a class name for a sentence."""
    return f"“{truncate(one_line(name), MAX_CAPTION)}”"


def worst_class(part: Part) -> dict[str, Any] | None:
    """Return the class with the lowest recall, of equals the one with most images."""
    present = [one for one in part["classes"] if one["examples"] and one["recall"] is not None]
    return min(present, key=lambda one: (one["recall"], -one["examples"]), default=None)


def _of_one_label(part: Part, classes: Sequence[_Found]) -> str:
    right, images = sum(one.found for one in classes), sum(one.images for one in classes)
    if right == images:
        low = format_percent(part["top1_interval"][0])
        all_right = f"All {images:,} images are" if images > 1 else "The only image is"
        return f"{all_right} right (95 % confidence: at least {low})."
    start = "Right"
    baseline = part.get("baseline")
    if baseline is not None and not is_above_baseline(part["top1_interval"], baseline):
        largest = max(classes, key=lambda one: one.images)
        start = (
            f"Not clearly better than always answering {largest.name}"
            f" ({format_percent(baseline)} right): right"
        )
    text = f"{start} in {right:,} of {pluralize(images, 'image')}; {_weakest(classes)}"
    confused = _most_confused(part)
    return f"{text}.{confused}"


def _weakest(classes: Sequence[_Found]) -> str:
    """Return the recall of both classes, or of the worst of several."""
    ordered = sorted(classes, key=lambda one: (one.recall, -one.images))
    never = [one for one in ordered if not one.found]
    if len(classes) == 2:
        return " and ".join(one.describe() for one in ordered)
    if len(never) > 1:
        return f"never finds {len(never):,} of {len(classes):,} classes, such as {never[0].name}"
    return ordered[0].describe()


def _most_confused(part: Part) -> str:
    """Return the most frequent confusion of several classes; nothing if none occurs twice."""
    matrix, names = part.get("confusion") or (), [one["name"] for one in part["classes"]]
    if len(names) < 3:
        return ""
    cells = [
        (count, label, predicted)
        for label, row in enumerate(matrix[: len(names)])
        for predicted, count in enumerate(row[: len(names)])
        if label != predicted
    ]
    count, label, predicted = max(cells, key=lambda cell: cell[0], default=(0, 0, 0))
    if count < 2:
        return ""
    return (
        f" Most often takes {quote(names[label])} for {quote(names[predicted])}"
        f" ({count:,} of {sum(matrix[label]):,})."
    )


def _of_several_labels(part: Part, classes: Sequence[_Found]) -> str:
    found, labels = sum(one.found for one in classes), sum(one.images for one in classes)
    images, exact = part["examples"], part.get("exact_match")
    if exact is not None and round(exact * images) == images:
        return f"All {labels:,} labels of {pluralize(images, 'image')} are right, and no other."
    start = "Finds"
    interval, baseline = part.get("map_interval"), part.get("map_baseline")
    if interval and baseline is not None and interval[0] <= baseline:
        start = (
            f"Not clearly better than a ranking at random (mAP {format_percent(baseline)}): finds"
        )
    text = f"{start} {found:,} of {pluralize(labels, 'label')} ({format_percent(found / labels)})"
    worst = min(classes, key=lambda one: (one.recall, -one.images))
    if len(classes) > 1 and worst.missed:
        text += f"; {worst.describe()}"
    if exact is None:
        return f"{text}."
    return f"{text}. All classes are right in {format_percent(exact)} of the images."
