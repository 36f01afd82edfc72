"""The class of every pixel of pictures of any size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.dense.tiling import cut, tiles
from flax_resnet.dense.views import SAME, PictureView, average_probabilities
from flax_resnet.runs import Run, to_pixels

MAX_CLASSES = 255  # 255 itself stands for pixels without a class
_BATCH_PIXELS = 2**20  # computed together
_MAX_BATCH = 16


class NotFiniteError(ValueError):
    """The output of a network is not finite."""


class PixelClassifier:
    """The most probable class of every pixel, in the picture's own size.

    A picture that fits the canvas of the run, ``run.preprocessing.image_size``, is padded to it,
    as in the run's evaluation. A larger one is computed in overlapping tiles of that size, see
    :func:`flax_resnet.dense.tiling.tiles`; the class of a pixel is that in the tile whose center is
    nearest, and logits are not averaged, so that memory does not grow with the number of classes.

    >>> run = load_run("runs/street", kind="segmentation")
    >>> PixelClassifier(run)("a.jpg")  # uint8 (H, W)

    Args:
      run: a run whose network has outputs of every pixel, or another object with its ``model``,
        ``variables`` and ``preprocessing``.
      views: forms of each tile over which probabilities are averaged, see
        :func:`flax_resnet.dense.views.make_views`.

    Raises:
      ValueError: there are more classes than a mask can have.
    """

    def __init__(self, run: Run, views: Sequence[PictureView] = SAME):
        if run.model.num_classes > MAX_CLASSES:
            raise ValueError(
                f"a mask can have {MAX_CLASSES} classes; the network has {run.model.num_classes}"
            )
        self._run = run
        self._size = height, width = run.preprocessing.shape[:2]
        self._views = views
        largest = height * width * max(1, *(view.scale for view in views)) ** 2
        self._batch_size = min(_MAX_BATCH, max(1, int(_BATCH_PIXELS / largest)))
        self._classify = jax.jit(self._classify_tiles)

    def __call__(self, image: Any) -> np.ndarray:
        """Return the classes uint8 ``(H, W)`` of a file, a Pillow image or an array of any size.

        Raises:
          ImageDecodeError: a ValueError; it is not a readable image.
          NotFiniteError: a ValueError, if the output of the network is not finite.
        """
        pixels = to_pixels(image, self._run.preprocessing.pixels)
        classes = np.empty(pixels.shape[:2], np.uint8)
        places = tiles(pixels.shape[:2], self._size)
        fill = self._run.preprocessing.fill
        for batch in iter(lambda: list(itertools.islice(places, self._batch_size)), []):
            stacked = np.stack([cut(pixels, place, self._size, fill) for place in batch])
            # Two sizes are compiled: 1 and the full batch.
            padding = 0 if len(batch) == 1 else self._batch_size - len(batch)
            stacked = np.pad(stacked, [(0, padding), (0, 0), (0, 0), (0, 0)])
            answers, finite = jax.device_get(self._classify(self._run.variables, stacked))
            if not finite[: len(batch)].all():
                raise NotFiniteError("the output of the network is not finite")
            for place, answer in zip(batch, answers, strict=False):
                classes[place.rows, place.columns] = answer[place.center]
        return classes

    def _classify_tiles(self, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the classes ``(N, H, W)``, and whether all outputs are finite ``(N,)``."""
        run = self._run
        inputs = run.preprocessing.normalize(images)
        logits = average_probabilities(
            [
                view.undo(run.model.apply(variables, view.of(inputs)), self._size)
                for view in self._views
            ]
        )
        return logits.argmax(-1).astype(jnp.uint8), jnp.isfinite(logits).all((1, 2, 3))
