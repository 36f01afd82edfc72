"""What exported programs return, and for which images that is verified, by the kind of the run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from flax_resnet import fold_batch_norm
from flax_resnet.dense.segmentation import SegmentationModel
from flax_resnet.runs import Run
from train.data.canvas import place_on_canvas
from train.data.masks import IGNORED
from train.tasks.segmentation import Segmentation

MAX_IMAGES = 8  # for the verification
# Of logits of pixels, which take much memory; three make a batch of several and one of a single.
_MAX_PIXELS, _MIN_IMAGES = 2**20, 3


class ExportedOutput(NamedTuple):
    """The output of exported programs.

    Attributes:
      name: ``"probabilities"`` or ``"logits"``.
      scale: text that follows a difference of the output.
      of_pixels: whether it has a value of each class for every pixel.
      compute: ``(run, logits) -> output``.
      prepare: ``(run, pictures) -> images (N, H, W, C)``, as the run's evaluation does it.
      max_images: ``(run) -> number`` of images for the verification.
      metadata: ``(run) -> facts`` that only this kind has, as JSON has them.
    """

    name: str
    scale: str
    of_pixels: bool
    compute: Callable[[Run, jax.Array], jax.Array]
    prepare: Callable[[Run, Sequence[np.ndarray]], np.ndarray]
    max_images: Callable[[Run], int]
    metadata: Callable[[Run], Mapping[str, Any]]


def _on_canvas(run: Run, pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([on_canvas(run, picture)[0] for picture in pictures])


def on_canvas(
    run: Run, picture: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture and its mask on the run's canvas; without a mask all pixels are ignored."""
    if mask is None:
        mask = np.full(picture.shape[:2], IGNORED, np.uint8)
    preprocessing = run.preprocessing
    return place_on_canvas(
        picture, mask, preprocessing.shape[:2], preprocessing.fill, ignored=IGNORED
    )


def _few_images(run: Run) -> int:
    height, width, _ = run.preprocessing.shape
    return min(MAX_IMAGES, max(_MIN_IMAGES, _MAX_PIXELS // (height * width)))


def _pixel_facts(run: Run) -> dict[str, Any]:
    height, width, _ = run.preprocessing.shape
    return {
        "kind": run.kind,
        "canvas": [height, width],
        "canvas_fill": list(run.preprocessing.fill),
        "ignored_class": IGNORED,
        "main_metric": Segmentation.default_metric,
    }


# By the kind of the run, see flax_resnet.weights.run_info.RunInfo.
OUTPUTS = {
    None: ExportedOutput(
        name="probabilities",
        scale="",
        of_pixels=False,
        compute=lambda run, logits: run.probabilities(logits),
        prepare=lambda run, pictures: run.prepare(pictures),
        max_images=lambda run: MAX_IMAGES,
        metadata=lambda run: {},
    ),
    "segmentation": ExportedOutput(
        name="logits",
        scale=" of the largest",
        of_pixels=True,
        compute=lambda run, logits: logits,
        prepare=_on_canvas,
        max_images=_few_images,
        metadata=_pixel_facts,
    ),
}


def folded(run: Run) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a run, with batch norm folded if it has any, and its variables."""
    model, variables = run.model, jax.device_get(run.variables)
    # Its heads may have another norm. An own network on a backbone is left as it is.
    network = model.backbone if isinstance(model, SegmentationModel) else model
    if getattr(network, "norm", None) == "batch":
        return fold_batch_norm(model, variables)
    return model, variables


def exported_output(run: Run) -> ExportedOutput:
    """Return the output of the programs of a run."""
    return OUTPUTS[run.kind]
