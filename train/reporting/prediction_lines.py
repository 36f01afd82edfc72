"""Predictions of files, and how they are printed: as text, JSON or CSV."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from flax_resnet.text import one_line
from train.data.label_sets import SEPARATOR
from train.runtime.formatting import csv_row, format_percent, json_row

if TYPE_CHECKING:  # importing JAX takes a second
    import numpy as np

    from train.data.sources.image_table import ImageTable

JOINED = ("predicted", "probability", "error")  # beside the columns of a table
CSV_HEADER = ("file", "rank", "class", "probability", "error")
Classes = list[tuple[str, float]]


class Prediction(NamedTuple):
    """The most probable classes of a file as ``(class, probability)``, or an error.

    ``answers`` has what the run adds: ``labels``, the classes of an image that may have several; or
    by its calibration ``decision``, a class or "" for none, and ``set``, the classes of the
    prediction set. ``features`` are those before the head, if they were requested.
    """

    file: str
    classes: Classes
    error: str | None = None
    answers: Mapping[str, Any] = MappingProxyType({})
    features: np.ndarray | None = None


def text_lines(prediction: Prediction) -> list[str]:
    """Return one line of text, or none for an error."""
    if prediction.error is not None:
        return []
    classes = ", ".join(f"{name} {format_percent(share)}" for name, share in prediction.classes)
    more = "".join(
        f"; {name}: {(', '.join(value) if isinstance(value, list) else value) or 'none'}"
        for name, value in prediction.answers.items()
    )
    return [one_line(f"{prediction.file}: {classes}{more}")]


def json_lines(prediction: Prediction, columns: dict[str, str] | None = None) -> list[str]:
    """Return one line with a JSON object: ``file`` and ``classes``, or ``file`` and ``error``.

    With ``columns``, of a row of a table, it has these as well.
    """
    classes = [{"class": name, "probability": p} for name, p in prediction.classes]
    result = {"classes": classes} if prediction.error is None else {"error": prediction.error}
    result |= prediction.answers if prediction.error is None else {}
    result |= {} if columns is None else {"columns": columns}
    return [json_row({"file": prediction.file} | result)]


def csv_lines(prediction: Prediction) -> list[str]:
    """Return one CSV row per class, or one with the error."""
    if prediction.error is not None:
        return [csv_row((prediction.file, "", "", "", prediction.error, *csv_answers(prediction)))]
    return [
        csv_row((prediction.file, rank, name, f"{probability:.7g}", "", *csv_answers(prediction)))
        for rank, (name, probability) in enumerate(prediction.classes, 1)
    ]


def csv_answers(prediction: Prediction) -> list[str]:
    """Return the columns of ``prediction.answers``; several classes are joined by ``|``."""
    return [SEPARATOR.join(v) if isinstance(v, list) else v for v in prediction.answers.values()]


def joined_header(names: Sequence[str], topk: int, answers: Sequence[str] = ()) -> list[str]:
    """Return the names of a table's columns, and of those with its predictions, all different."""
    header = list(names)
    *columns, error = JOINED
    numbers = ("", *(f"_{rank}" for rank in range(2, topk + 1)))
    predicted = (f"{name}{number}" for number in numbers for name in columns)
    for name in (*predicted, *answers, error):
        while name in header:
            name = f"run_{name}"
        header.append(name)
    return header


def table_lines(
    table: ImageTable, as_json: bool, topk: int, answers: Sequence[str] = ()
) -> Callable[[Prediction], list[str]]:
    """Return a function that joins predictions, in order, to the rows of a table."""
    rows = itertools.count()

    def join(prediction: Prediction) -> list[str]:
        row = table.row(next(rows))
        if as_json:
            return json_lines(prediction, dict(zip(table.names, row, strict=True)))
        fields = [
            x for name, probability in prediction.classes for x in (name, f"{probability:.7g}")
        ]
        fields += csv_answers(prediction)
        missing = [""] * (2 * topk + len(answers) - len(fields))
        return [csv_row((*row, *fields, *missing, prediction.error or ""))]

    return join
