"""Predicted masks of files, and how they are printed: as text, JSON or CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from flax_resnet.text import one_line
from train.runtime.formatting import csv_row, format_percent, json_row

if TYPE_CHECKING:
    import numpy as np

CSV_HEADER = ("file", "number", "class", "pixels", "share", "mask", "error")


class ClassArea(NamedTuple):
    """The pixels of a picture that have a class.

    Attributes:
      number: of the class.
      name: of the class.
      pixels: their number.
      share: of the picture, in 0…1.
    """

    number: int
    name: str
    pixels: int
    share: float


class MaskPrediction(NamedTuple):
    """What was predicted of a file, or an error.

    Attributes:
      file: the picture.
      areas: of the classes that occur, the largest first.
      mask: the written mask.
      overlay: the written overlay; None if there is none.
      error: why there is no mask; None if there is one.
    """

    file: str
    areas: Sequence[ClassArea] = ()
    mask: str = ""
    overlay: str | None = None
    error: str | None = None


def class_areas(classes: np.ndarray, class_name: Callable[[int], str]) -> list[ClassArea]:
    """Return the areas of the classes in a mask ``(H, W)``, the largest first."""
    import numpy as np

    counts = np.bincount(classes.ravel(), minlength=1)
    order = (-counts).argsort(kind="stable")[: np.count_nonzero(counts)].tolist()
    return [
        ClassArea(k, class_name(k), int(counts[k]), float(counts[k] / classes.size)) for k in order
    ]


def text_lines(prediction: MaskPrediction) -> list[str]:
    """Return one line of text, or none for an error."""
    if prediction.error is not None:
        return []
    areas = ", ".join(f"{area.name} {format_percent(area.share)}" for area in prediction.areas)
    return [one_line(f"{prediction.file}: {areas}; {prediction.mask}")]


def json_lines(prediction: MaskPrediction) -> list[str]:
    """Return one line with a JSON object: the file with its classes and mask, or its error."""
    if prediction.error is not None:
        return [json_row({"file": prediction.file, "error": prediction.error})]
    classes = [
        {"number": area.number, "class": area.name, "pixels": area.pixels, "share": area.share}
        for area in prediction.areas
    ]
    row = {"file": prediction.file, "classes": classes, "mask": prediction.mask}
    return [json_row(row | ({"overlay": prediction.overlay} if prediction.overlay else {}))]


def csv_lines(prediction: MaskPrediction) -> list[str]:
    """Return one CSV row per class that occurs, or one with the error."""
    if prediction.error is not None:
        return [csv_row((prediction.file, "", "", "", "", "", prediction.error))]
    return [
        csv_row((prediction.file, *area[:3], f"{area.share:.7g}", prediction.mask, ""))
        for area in prediction.areas
    ]


LINES = {"text": text_lines, "json": json_lines, "csv": csv_lines}
