"""Evaluated pictures in the report of segmentation, beside their masks and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from flax_resnet import schema
from flax_resnet.decoding import ImageDecodeError
from flax_resnet.dense.pixel_classes import MAX_CLASSES, NotFiniteError, PixelClassifier
from flax_resnet.dense.views import make_views
from flax_resnet.images.mask_files import encode_overlay
from flax_resnet.preprocessing import Preprocessing, to_viewable
from flax_resnet.resnet import ResNet
from flax_resnet.text import truncate
from train.data.canvas import fitted_size, nearest
from train.data.images import resize_area
from train.data.masks import IGNORED
from train.engine.evaluation import Evaluated
from train.engine.predictions import output_names
from train.reporting import html_page
from train.reporting.report.evaluated_images import PIXELATED_BELOW
from train.reporting.report.pictures import MAX_BYTES, SIDES
from train.reporting.segmentation.mask_lines import class_areas
from train.reporting.segmentation.metrics import SegmentationEvaluation
from train.reporting.segmentation.results import order_by_iou
from train.runtime.formatting import MAX_CAPTION, format_percent
from train.tasks.segmentation_metrics import class_iou

MAX_WORST = 6  # pictures with the lowest IoU
MAX_OTHERS = 6  # others, evenly spaced by IoU
_MAX_NAMED = 3  # classes in a caption
_MAX_AREAS = 8  # in words
_OPACITY = 0.7  # of colors, so that dark ones are seen
_text = schema.text(10_000, any_path=True)
_CELLS = schema.sequence(
    schema.record(
        image=html_page.data_uri,
        mask=html_page.data_uri,
        prediction=html_page.data_uri,
        aspect=schema.number(1e-4, 1e4),  # width divided by height
        small=schema.boolean,
        caption=_text,
        in_mask=_text,  # the areas of the classes in words
        predicted=_text,
    ),
    0,
    100,
)
FIELDS = {
    "worst": schema.optional(_CELLS),
    "others": schema.optional(_CELLS),
    "shown": schema.optional(schema.sequence(schema.integer(0, 255), 0, 256)),  # classes
}


class _Network(NamedTuple):
    """What a classifier of pixels needs of a run."""

    model: ResNet
    variables: dict[str, Any]
    preprocessing: Preprocessing


class _Picture(NamedTuple):
    """An evaluated picture, shrunk to the size at which it is shown.

    Attributes:
      image: uint8 RGB ``(H, W, 3)``.
      mask: its classes, uint8 ``(H, W)``.
      prediction: the predicted ones.
      in_mask: the areas of the classes in words.
      predicted: the same of the predicted ones.
    """

    image: np.ndarray
    mask: np.ndarray
    prediction: np.ndarray
    in_mask: str
    predicted: str

    def classes(self) -> list[int]:
        """Return the classes that it shows."""
        return np.union1d(self.mask, self.prediction).tolist()

    def shrunk(self, side: int) -> Self:
        """Return the picture with a longer side of at most ``side``."""
        size = fitted_size(self.mask.shape, (side, side))
        if size == self.mask.shape:
            return self
        return self._replace(
            image=resize_area(self.image, size[1], size[0]),
            mask=nearest(self.mask, size),
            prediction=nearest(self.prediction, size),
        )


def picture_parts(evaluated: Evaluated, evaluation: SegmentationEvaluation) -> dict[str, Any]:
    """Return :data:`FIELDS` of the pictures with the lowest IoU and of others.

    It is empty if the evaluation has no variables, since predictions are not kept but computed
    again.
    """
    if evaluated.variables is None or evaluated.model.num_classes > MAX_CLASSES:
        return {}
    groups = choose(evaluation.image_iou)
    try:
        pictures = _read(evaluated, np.concatenate([*groups.values()]))
    except NotFiniteError:  # of a run that diverged; its metrics say so
        return {}
    cells = _cells(evaluated, evaluation, pictures)
    found = {
        name: [cells[i] for i in chosen.tolist() if i in cells] for name, chosen in groups.items()
    }
    shown = {k for one in pictures.values() for k in one.classes()}
    return {name: part for name, part in found.items() if part} | {"shown": sorted(shown)}


def choose(image_iou: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of pictures to show: the worst ones, and others up to the best one."""
    order = order_by_iou(image_iou)
    worst = order[image_iou[order] < 1][:MAX_WORST]
    rest = order[len(worst) :]
    places = np.linspace(0, len(rest) - 1, min(MAX_OTHERS, len(rest))).round().astype(int)
    return {"worst": worst, "others": rest[places]}


def _read(evaluated: Evaluated, indices: np.ndarray) -> dict[int, _Picture]:
    """Return pictures with their predictions, as they were evaluated; those that are left."""
    loader, result, pictures = evaluated.loader, evaluated.result, {}
    canvas = loader.image_shape[:2]
    views = make_views(result.get("scales") or (1.0,), flip=result.get("tta") == "flip")
    network = _Network(evaluated.model, evaluated.variables, loader.preprocessing)
    classify = PixelClassifier(network, views)
    names = output_names(loader.source.class_names, evaluated.predictions.outputs)
    for index in indices.tolist():
        record = int(evaluated.predictions.record[index])
        try:
            image, mask = loader.source.decode(record, _ignore, loader.preprocessing.pixels)
        except ImageDecodeError:  # it has changed since
            continue
        size = mask.shape if "tiled" in result else fitted_size(mask.shape, canvas)
        if size != mask.shape:
            image, mask = resize_area(image, size[1], size[0]), nearest(mask, size)
        prediction = classify(image)
        areas = _describe_areas(mask, names), _describe_areas(prediction, names)
        picture = _Picture(to_viewable(image), mask, prediction, *areas)
        pictures[index] = picture.shrunk(SIDES[0])
    return pictures


def _ignore(kind: str, text: str) -> None:
    """Ignore an oddity of an image, of which the evaluation has warned."""


def _describe_areas(classes: np.ndarray, names: Sequence[str]) -> str:
    """Return the shares of the classes of a picture in words, the largest first."""

    def name(number: int) -> str:
        return "ignored" if number == IGNORED else truncate(names[number], MAX_CAPTION)

    areas = class_areas(classes, name)
    shown = [f"{area.name} {format_percent(area.share)}" for area in areas[:_MAX_AREAS]]
    more = len(areas) - _MAX_AREAS
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _cells(
    evaluated: Evaluated, evaluation: SegmentationEvaluation, pictures: Mapping[int, _Picture]
) -> dict[int, dict[str, Any]]:
    """Return the cells of pictures by index, as large as fit into the page."""
    names = output_names(evaluated.loader.source.class_names, evaluated.predictions.outputs)
    for side in SIDES:
        uris = {index: _uris(picture.shrunk(side)) for index, picture in pictures.items()}
        if sum(len(uri) for some in uris.values() for uri in some.values()) <= MAX_BYTES:
            break
    cells = {}
    for index, picture in pictures.items():
        height, width = picture.mask.shape
        record = int(evaluated.predictions.record[index])
        caption = [
            f"IoU {format_percent(evaluation.image_iou[index])}",
            _describe_iou(evaluated.predictions.counts[index], names),
            evaluated.loader.source.record_name(record),
        ]
        cells[index] = uris[index] | {
            "aspect": width / height,
            "small": max(height, width) < PIXELATED_BELOW,
            "caption": "\n".join(caption),
            "in_mask": picture.in_mask,
            "predicted": picture.predicted,
        }
    return cells


def _uris(picture: _Picture) -> dict[str, str]:
    return {
        "image": html_page.image_uri(picture.image, SIDES[0]),
        "mask": html_page.encoded_png_uri(encode_overlay(picture.mask, _OPACITY)),
        "prediction": html_page.encoded_png_uri(encode_overlay(picture.prediction, _OPACITY)),
    }


def _describe_iou(counts: np.ndarray, names: Sequence[str]) -> str:
    """Return the classes of the lowest IoU in a picture, from its counts ``(3, K)``."""
    iou = class_iou(*counts)
    order = np.argsort(iou, kind="stable")[: np.count_nonzero(~np.isnan(iou))]
    lowest = [f"{truncate(names[k], MAX_CAPTION)} {format_percent(iou[k])}" for k in order]
    return ", ".join(lowest[:_MAX_NAMED]) + (", …" if len(lowest) > _MAX_NAMED else "")
