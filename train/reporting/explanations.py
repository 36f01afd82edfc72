"""Grad-CAM pictures of classified files."""

import itertools
import os
from collections.abc import Sequence

import numpy as np

from flax_resnet.preprocessing import to_viewable
from flax_resnet.runs import Run
from flax_resnet.text import truncate
from train.reporting.plots import draw_explanation
from train.runtime.files import writing
from train.runtime.formatting import MAX_CAPTION, format_percent, run_name

_MAX_STEM_BYTES = 200  # a name has 255 at most, with a number and the suffix of a partial file


class Explanations:
    """A folder of Grad-CAM images with the names of the classified files.

    Args:
      folder: the folder, which is made if it does not exist.
      run: the trained run.

    Raises:
      RunError: the folder cannot be written.
    """

    def __init__(self, folder: str, run: Run):
        self._folder = folder
        self._run = f"{run_name(run.path)}, step {run.step:,}"
        self._names: set[str] = set()
        with writing(folder):
            os.makedirs(folder, exist_ok=True)

    def write(
        self, file: str, square: np.ndarray, heat: np.ndarray, classes: Sequence[tuple[str, float]]
    ) -> None:
        """Write an image; further files of the same name get a number.

        Args:
          file: the classified file.
          square: the network's input.
          heat: the map of the most probable class, ``(H, W)`` in 0…1.
          classes: names and probabilities, the most probable first.

        Raises:
          RunError: it cannot be written.
        """
        stem = os.path.splitext(os.path.basename(file))[0]
        encoded = os.fsencode(stem)
        if len(encoded) > _MAX_STEM_BYTES:
            stem = encoded[:_MAX_STEM_BYTES].decode("utf-8", "ignore")
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        name = next(name for name in names if name.casefold() not in self._names)
        self._names.add(name.casefold())
        title = os.fsencode(os.path.basename(file)).decode("utf-8", "replace")
        best = ", ".join(
            f"{truncate(name, MAX_CAPTION)} {format_percent(share)}" for name, share in classes[:2]
        )
        path = os.path.join(self._folder, f"{name}.png")
        with writing(path):
            lines, explained = (best, self._run), truncate(classes[0][0], MAX_CAPTION)
            shown = to_viewable(square)
            draw_explanation(path, shown, heat, truncate(title), lines, explained)
