"""Pictures of a run."""

from __future__ import annotations

import os
import textwrap
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from flax_resnet.files import make_atomically
from train.reporting import curves
from train.reporting.classification_metrics import Bin
from train.runtime.formatting import truncate
from train.workdir.metrics_log import read_rows


class Plots:
    """A run's pictures. One that cannot be drawn is worth a warning and no run.

    The curves are drawn again from time to time, since a drawing costs a step or many.
    """

    SECONDS_BETWEEN = 20

    def __init__(self, workdir: str, warn: Callable[[str], None]):
        self._workdir, self._warn = workdir, warn
        self._last_drawn = time.monotonic()

    def update(self, force: bool) -> None:
        """Draws ``curves.png`` where the last drawing is old, or ``force``."""
        if force or time.monotonic() - self._last_drawn > self.SECONDS_BETWEEN:
            self.redraw()
            self._last_drawn = time.monotonic()

    def redraw(self) -> None:
        """Draws what follows from the metrics."""
        self._try("curves.png", lambda: draw_curves(self._workdir))

    def draw_samples(self, take: Callable[[], tuple[np.ndarray, Sequence[str]]]) -> None:
        """Draws ``samples.png`` of the images and captions that ``take`` gives."""
        self._try("samples.png", lambda: draw_samples(self._workdir, *take()))

    def draw(self, name: str, draw: Callable[[str], None]) -> None:
        """Has ``draw`` write the picture ``name``; it is given the path."""
        self._try(name, lambda: draw(os.path.join(self._workdir, name)))

    def _try(self, name: str, draw: Callable[[], None]) -> None:
        try:
            draw()
        except Exception as error:
            self._warn(f"cannot draw {name}: {type(error).__name__}: {error}".splitlines()[0])


def draw_curves(workdir: str) -> None:
    """Writes ``curves.png``: loss, accuracy and learning rate over steps."""
    panels = curves.of_run(read_rows(workdir), "step")[:3]
    figure, axes = _figure(1, max(1, len(panels)), (13, 3.8))
    for axis, panel in zip(axes, panels, strict=False):
        for line in panel.series:
            style = "o-" if line.dots else "-"
            axis.plot(*zip(*line.points, strict=True), style, markersize=3, label=line.label)
        if len(panel.series) > 1:
            axis.legend()
        axis.set(title=panel.title, xlabel=panel.x)
        if panel.percent:
            axis.set(ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    _save(figure, os.path.join(workdir, "curves.png"))


def draw_samples(workdir: str, images: np.ndarray, captions: Sequence[str]) -> None:
    """Writes ``samples.png``: a grid of uint8 ``(N, H, W, 3)`` images with their classes."""
    draw_grid(os.path.join(workdir, "samples.png"), images, captions)


def draw_grid(path: str, images: np.ndarray, captions: Sequence[str], columns: int = 8) -> None:
    """Writes a PNG: a grid of uint8 ``(N, H, W, 3)`` images, captions of a line or more above."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    long = any(len(line) > 19 for caption in captions for line in caption.splitlines())
    size, most = (6.5, 23) if long else (8, 19)  # points, and letters that are as wide as a cell
    captions = ["\n".join(_wrapped(caption, most)) for caption in captions]
    lines = max(caption.count("\n") + 1 for caption in captions)
    side, gap, above = 1.2, 0.1, 0.05 + size / 54 * lines  # inches
    wide, high = side + gap, side + gap + above
    # In one pair of axes: to lay out one for each image takes seconds, and the run waits.
    figure, axis = _blank(columns * wide, rows * high)
    for i, (image, caption) in enumerate(zip(images, captions, strict=False)):
        left, top = i % columns * wide + gap / 2, i // columns * high + gap / 2 + above
        # Small images as the pixels they are.
        interpolation = "nearest" if len(image) < 64 else "antialiased"
        place = (left, left + side, top + side, top)
        axis.add_image(_image(axis, image, place, interpolation))
        where = dict(horizontalalignment="center", verticalalignment="bottom", clip_on=False)
        axis.text(left + side / 2, top - 0.03, caption, fontsize=size, parse_math=False, **where)
    _save(figure, path)


def _wrapped(caption: str, most: int) -> list[str]:
    """The caption's lines, and longer ones in several."""
    return [part for line in caption.splitlines() for part in textwrap.wrap(line, most)]


def draw_confusion(path: str, counts: np.ndarray, names: Sequence[str]) -> None:
    """Writes a PNG of counts ``(K, K)``: labels in rows, predictions in columns.

    Colours are shares of a row; of up to 20 classes the counts stand in the cells.
    """
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    few, some = len(names) <= 20, len(names) <= 60
    side = min(11.0, max(4.0, (0.5 if few else 0.18) * len(names) + 1.8))
    figure, (axis,) = _figure(1, 1, (side + 0.8, side))
    shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(shown, ax=axis, label="share of the class", shrink=0.8)
    axis.set(xlabel="predicted", ylabel="class")
    if some:
        ticks, short = range(len(names)), [truncate(name, 24) for name in names]
        axis.set_xticks(ticks, short, fontsize=8 if few else 6, parse_math=False)
        axis.set_yticks(ticks, short, fontsize=8 if few else 6, parse_math=False)
        if max(map(len, short)) > 3:
            axis.tick_params(axis="x", rotation=90)
    if few:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=7, color=colour)
    _save(figure, path)


def draw_reliability(path: str, bins: Sequence[Bin], error: float) -> None:
    """Writes a PNG of the reliability diagram (Guo et al. 2017, figure 1), and of how many
    examples have which confidence.
    """
    figure, axes = _figure(2, 1, (4.6, 5.6))
    left, width = [one.low for one in bins], [one.high - one.low for one in bins]
    filled = [one for one in bins if one.examples]
    style = dict(align="edge", edgecolor="white", linewidth=0.5)
    axes[0].bar(left, [one.accuracy for one in bins], width, label="right answers", **style)
    axes[0].plot([0, 1], [0, 1], "--", color="gray", label="as sure as right")
    means = [one.confidence for one in filled], [one.accuracy for one in filled]
    axes[0].plot(*means, "o", color="C1", markersize=4, label="mean confidence")
    axes[0].set(title=f"expected calibration error {error:.2%}", ylabel="accuracy")
    axes[0].legend(fontsize=8, loc="upper left")
    axes[1].bar(left, [one.examples for one in bins], width, color="gray", **style)
    axes[1].set(xlabel="confidence", ylabel="images", yscale="symlog")
    for axis, top in zip(axes, (1.02, None), strict=True):
        axis.set(xlim=(0, 1), ylim=(0, top))
        axis.grid(alpha=0.3)
    _save(figure, path)


def draw_schedule(path: str, epochs: np.ndarray, rates: np.ndarray) -> None:
    """Writes a PNG to ``path``: the learning rate over the epochs."""
    figure, (axis,) = _figure(1, 1, (6, 3.4))
    axis.plot(epochs, rates)
    axis.set(title="learning rate", xlabel="epoch", ylim=(0, None))
    axis.grid(alpha=0.3)
    _save(figure, path)


def draw_explanation(path: str, square: np.ndarray, heat: np.ndarray, caption: str) -> None:
    """Writes a PNG: the uint8 image ``(S, S, 3)`` that the network saw, and Grad-CAM's map on it.

    ``heat`` is ``(S, S)`` in 0…1.
    """
    from flax_resnet.gradcam import overlay

    figure, axes = _figure(1, 2, (6, 3.4))
    for axis, picture in zip(axes, (square, overlay(square, heat)), strict=True):
        axis.axis("off")
        axis.imshow(picture, interpolation="nearest" if len(square) < 64 else "antialiased")
    figure.suptitle(caption, fontsize=9, parse_math=False)
    _save(figure, path)


def _figure(rows: int, columns: int, size: tuple[float, float]):
    # matplotlib takes most of a second to import, and nobody waits for its pictures.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=110)
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def _blank(width: float, height: float):
    """A figure of so many inches, and axes that fill it and count inches from its top left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110)
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    return figure, axis


def _image(axis, pixels: np.ndarray, extent: tuple[float, ...], interpolation: str):
    """An artist that draws an image within ``(left, right, bottom, top)``."""
    from matplotlib.image import AxesImage

    image = AxesImage(axis, interpolation=interpolation, extent=extent, origin="upper")
    image.set_data(pixels)
    return image


def _save(figure, path: str) -> None:
    with warnings.catch_warnings():  # of letters that the font lacks, in class names
        warnings.simplefilter("ignore")
        make_atomically(path, lambda beside: figure.savefig(beside, format="png"))
