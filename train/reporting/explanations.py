"""Grad-CAM pictures of classified files."""

import os
from collections.abc import Sequence

import numpy as np

from flax_resnet.preprocessing import to_viewable
from flax_resnet.runs import Run
from flax_resnet.text import truncate
from train.reporting.output_names import OutputNames
from train.reporting.plots import draw_explanation
from train.runtime.files import writing
from train.runtime.formatting import MAX_CAPTION, format_percent, run_name


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
        self._names = OutputNames()
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
        title = os.fsencode(os.path.basename(file)).decode("utf-8", "replace")
        best = ", ".join(
            f"{truncate(name, MAX_CAPTION)} {format_percent(share)}" for name, share in classes[:2]
        )
        path = os.path.join(self._folder, f"{self._names.of(file)}.png")
        with writing(path):
            lines, explained = (best, self._run), truncate(classes[0][0], MAX_CAPTION)
            shown = to_viewable(square)
            draw_explanation(path, shown, heat, truncate(title), lines, explained)
