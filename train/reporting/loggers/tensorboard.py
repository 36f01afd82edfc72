"""TensorBoard: scalars, sample images, tables of confusions and hyperparameters."""

import html
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_resnet.text import truncate
from train.config.access import flatten
from train.config.registries import register_logger
from train.config.task_defaults import default_value
from train.reporting import plots
from train.reporting.loggers.logger import Logger
from train.runtime.config_dict import ConfigDict
from train.runtime.formatting import format_percent
from train.runtime.imports import without_module

with without_module("torch"):  # tensorboardX imports it if it is installed, which takes 1.4 s
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import hparams, scalar, text

_MAX_COLUMNS = 30  # classes; of more the largest errors are listed
_MAX_ROWS = 50


@register_logger("tensorboard")
class TensorBoardLogger(Logger):
    """Events in ``tensorboard/`` of the workdir, written synchronously.

    The thread of tensorboardX's own writer may die, for example on a full disk, and then everyone
    who adds to its queue waits forever.
    """

    in_thread = False

    def __init__(self, config: ConfigDict, workdir: str):
        super().__init__(config, workdir)
        folder = os.path.join(workdir, "tensorboard")
        os.makedirs(folder, exist_ok=True)
        # The name has only seconds, and an existing file would be replaced.
        self._writer = EventsWriter(os.path.join(folder, "events"), f".{time.time_ns()}")
        self._step = 0

    def start(self, step: int) -> None:
        """Invalidate existing events of later steps, and write the hyperparameters."""
        self._step = step
        self._write(step + 1, file_version="brain.Event:2")
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._write(step + 1, session_log=start)
        values = {
            name: str(value) if isinstance(value, tuple) else value
            for name, value in flatten(self.config).items()
        }
        metric = self.config.eval.metric or default_value("eval.metric", self.config.task)
        metrics = {f"eval/{metric}": None, "eval/loss": None, "train/loss": None}  # columns
        experiment, self._started, self._finished = hparams(values, metrics)
        # Of step 0, so that the session of a resumed run does not invalidate them.
        self._write(0, summary=experiment)
        self._write(0, summary=self._started)
        self._writer.flush()

    def log(self, row: dict[str, float]) -> None:
        """Write a scalar for each number."""
        for name, value in row.items():
            if name != "step":
                self._write(row["step"], summary=scalar(name, value))
        self._writer.flush()

    def samples(self, images: np.ndarray, captions: Sequence[str]) -> None:
        """Write the images as one grid with captions."""
        png = plots.grid_png(plots.Pictures(images, captions))
        image = Summary.Image(encoded_image_string=png, colorspace=4)  # RGBA
        image.width, image.height = plots.png_size(png)
        summary = Summary(value=[Summary.Value(tag="samples", image=image)])
        self._write(self._step, summary=summary)
        self._writer.flush()

    def confusion(self, matrix: np.ndarray, class_names: Sequence[str], step: int) -> None:
        """Write the matrix as a table, or its most frequent confusions if it has many classes.

        The picture of it is in the report.
        """
        self._write(step, summary=text("eval/confusion", confusion_table(matrix, class_names)))
        self._writer.flush()

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as successful in the table of hyperparameters."""
        self._write(0, summary=self._finished)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, step: int, **fields: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **fields))


def confusion_table(matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """Return a Markdown table of a confusion matrix, labels in rows, or of its largest errors."""
    names = [_cell(name) for name in class_names]
    if len(names) <= _MAX_COLUMNS:
        head = ["label ↓, predicted →", *names]
        body = [[names[i], *map(str, row)] for i, row in enumerate(matrix)]
    else:
        head = ["label", "predicted", "images", "of the label"]
        errors = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
        order = np.argsort(-errors, axis=None, kind="stable")[:_MAX_ROWS]
        pairs = [(i, j) for i, j in zip(*np.unravel_index(order, matrix.shape), strict=True)]
        body = [
            [
                names[i],
                names[j],
                f"{matrix[i, j]:,}",
                format_percent(matrix[i, j] / matrix[i].sum()),
            ]
            for i, j in pairs
            if errors[i, j]
        ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def _cell(name: str) -> str:
    """Return a name as text of a Markdown table, which is HTML."""
    return html.escape(truncate(name)).translate({ord(c): f"&#{ord(c)};" for c in "|*_`[]\\$~"})
