"""The most similar images of each image, by their features, and how they are printed."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from flax_resnet.text import one_line
from train.engine.feature_files import Features
from train.engine.nearest import nearest
from train.runtime.formatting import csv_row, json_row

HEADER = ("file", "rank", "similar", "similarity", "error")
Similar = list[tuple[str, float]]  # images with their cosine similarity, the highest first


def lines(
    files: Sequence[tuple[str, str | None]],
    images: Features | None,
    count: int,
    among: Features | None,
    form: str,
) -> Iterator[str]:
    """Yield the output for every file, in order.

    Args:
      files: each with its error, or None if it is the next one of ``images``.
      images: the files without an error; None if there are none.
      count: number of similar images of each file.
      among: as for :func:`find_similar`.
      form: ``"text"``, one line per file without an error; ``"json"``, one object per file; or
        ``"csv"``, a header and a row per similar image or error.
    """
    found = iter(() if images is None else find_similar(images, count, among))
    if form == "csv":
        yield csv_row(HEADER)
    to_lines = {"text": _text_lines, "json": _json_lines, "csv": _csv_lines}[form]
    for file, error in files:
        yield from to_lines(file, next(found) if error is None else [], error)


def find_similar(images: Features, count: int, among: Features | None) -> list[Similar]:
    """Return the most similar images of each image.

    Args:
      images: with features.
      count: number of similar images; there may be fewer.
      among: the images to choose from; None: the other files of ``images``.
    """
    if among is None:
        paths = [os.path.abspath(file) for file in images.files]
        _, ids = np.unique(np.array(paths), return_inverse=True)
        found = nearest(images.features, images.features, count, ids, ids)
        among = images
    else:
        found = nearest(images.features, among.features, count)
    return [
        [(among.files[i], float(cosine)) for i, cosine in zip(*row, strict=True) if cosine >= -1]
        for row in zip(*found, strict=True)
    ]


def _text_lines(file: str, similar: Similar, error: str | None) -> list[str]:
    if error is not None:
        return []
    images = ", ".join(f"{name} {cosine:.3f}" for name, cosine in similar)
    return [one_line(f"{file}: {images}")]


def _json_lines(file: str, similar: Similar, error: str | None) -> list[str]:
    if error is not None:
        return [json_row({"file": file, "error": error})]
    images = [{"file": name, "similarity": cosine} for name, cosine in similar]
    return [json_row({"file": file, "similar": images})]


def _csv_lines(file: str, similar: Similar, error: str | None) -> list[str]:
    if error is not None:
        return [csv_row((file, "", "", "", error))]
    return [
        csv_row((file, rank, name, f"{cosine:.7g}", ""))
        for rank, (name, cosine) in enumerate(similar, 1)
    ]
