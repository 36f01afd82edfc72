"""Images of an evaluation in the report: its mistakes and some right ones, with Grad-CAM maps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.own_networks import has_maps
from flax_resnet.preprocessing import to_viewable
from train.engine.evaluation import Evaluated
from train.reporting import html_page
from train.reporting.report.pictures import CELLS, heat_key, picture_cells, picture_grid

MAX_EXAMPLES = 12  # right predictions, each of another class
PIXELATED_BELOW = 64  # pixels; smaller images are enlarged without smoothing
_BATCH = 8  # images whose maps are computed together, in one compiled shape

FIELDS = {
    "small": schema.boolean,
    "aspect": schema.optional(schema.number(1e-3, 1e3)),  # width divided by height
    "mistakes": schema.optional(CELLS),
    "right": schema.optional(CELLS),
    "explained": schema.optional(CELLS),  # of an older version: images beside maps in one image
}


def image_parts(
    evaluated: Evaluated,
    right: np.ndarray,
    mistakes: np.ndarray,
    captions: Callable[[np.ndarray], Sequence[str]],
) -> dict[str, Any]:
    """Return :data:`FIELDS`, as far as there are any.

    Grad-CAM maps are included if the evaluation has its variables, and the network such maps.

    Args:
      evaluated: the evaluation.
      right: whether everything about an image is predicted rightly, bool ``(N,)``.
      mistakes: indices into the predictions, the most confident wrong ones first.
      captions: returns the captions of some images, by their indices.
    """
    loader, source = evaluated.loader, evaluated.loader.source
    height, width = loader.image_shape[:2]
    parts: dict[str, Any] = {
        "small": max(height, width) < PIXELATED_BELOW,
        "aspect": width / height,
    }
    groups = {"mistakes": mistakes, "right": choose_right(evaluated, right, mistakes)}
    groups = {name: indices for name, indices in groups.items() if len(indices)}
    has_heat = evaluated.variables is not None and has_maps(evaluated.model)
    pictures, heats = [], []
    for indices in groups.values():
        records = evaluated.predictions.record[indices]
        crops = loader.center_crops(records)
        names = [source.record_name(int(record)) for record in records]
        texts = [f"{text}\n{name}" for text, name in zip(captions(indices), names, strict=True)]
        pictures.append((to_viewable(crops), texts))
        heats += [gradcam_maps(evaluated, crops, indices)] if has_heat else []
    cells = picture_cells(pictures, heats if has_heat else None)
    return parts | dict(zip(groups, cells, strict=True))


def choose_right(evaluated: Evaluated, right: np.ndarray, mistakes: np.ndarray) -> np.ndarray:
    """Return indices of right predictions: the most confident one of as many classes as possible.

    Classes that are predicted for one of the mistakes, or are the label of one, come first.
    """
    predictions = evaluated.predictions
    right = np.flatnonzero(right)
    right = right[np.argsort(-predictions.confidence[right], kind="stable")]
    classes, first = np.unique(predictions.predicted[right], return_index=True)
    involved = predictions.predicted[mistakes]
    if not predictions.several_labels:
        involved = np.concatenate([involved, predictions.label[mistakes]])
    counts = np.bincount(involved.astype(int), minlength=predictions.outputs)[classes]
    chosen = np.argsort(-counts, kind="stable")[:MAX_EXAMPLES]
    return right[first[np.sort(chosen)]]


def gradcam_maps(evaluated: Evaluated, crops: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the Grad-CAM maps of the predicted classes, ``(N, H, W)`` in 0…1.

    Args:
      evaluated: an evaluation with variables.
      crops: its images ``(N, H, W, C)``.
      indices: of these images, into the predictions.
    """
    from flax_resnet.gradcam import gradcam

    predicted, heats = evaluated.predictions.predicted[indices], []
    for start in range(0, len(crops), _BATCH):
        part = slice(start, start + _BATCH)
        padded = np.resize(crops[part], (_BATCH, *crops.shape[1:]))
        images = evaluated.loader.preprocessing.normalize(padded)
        classes = np.resize(predicted[part], _BATCH)
        heats.append(gradcam(evaluated.model, evaluated.variables, images, classes))
    return np.concatenate(heats)[: len(crops)]


def image_sections(part: Mapping[str, Any], prediction: str, key: str) -> list[str]:
    """Return the HTML of the images.

    Args:
      part: content of the section.
      prediction: what the maps support.
      key: identifies the evaluation in the page.
    """
    sections, has_heat = [], False
    if part.get("explained"):
        grid = html_page.image_grid(part["explained"], part["small"], pairs=True)
        sections.append(f"<h3>Grad-CAM: image regions that support the {prediction}</h3>{grid}")
    for name, title in (("mistakes", "Most confident mistakes"), ("right", "Right predictions")):
        cells, about = part.get(name), ""
        if not cells:
            continue
        if not has_heat and any(cell.get("heat") for cell in cells):
            has_heat = True
            text = f"On the right the Grad-CAM map: image regions that support the {prediction}."
            about = html_page.paragraph(f"{text} A click enlarges both.", "weak") + heat_key()
        elif not sections:
            about = html_page.paragraph("A click enlarges an image.", "weak")
        grid = picture_grid(cells, part["small"], f"{key}{name[0]}", part.get("aspect") or 1.0)
        sections.append(f"<h3>{title}</h3>{about}{grid}")
    return sections
