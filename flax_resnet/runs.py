"""A trained run, to be asked: its network, weights, classes and preprocessing.

>>> run = load_run("runs/flowers")
>>> run.predict(["a.jpg", "b.png"])  # probabilities, (2, classes)

A workdir describes itself: ``config.json``, ``run.json`` and ``checkpoints`` are all that is read.
Restoring needs Orbax, reading files OpenCV and Pillow.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from flax_resnet.preprocessing import Preprocessing
from flax_resnet.resnet import ResNet
from flax_resnet.variants import create_model
from flax_resnet.weights.checkpoints import (
    FOLDER,
    best_in,
    check_step,
    find_checkpoint,
    read_checkpoint,
    steps_in,
)
from flax_resnet.weights.leaves import leaf_shapes
from flax_resnet.weights.tensors import WeightsError, wrap_read_errors

WEIGHTS = ("ema", "raw")

_log = logging.getLogger(__name__)


class RunLoadError(WeightsError):
    """There is no such run, or its checkpoints cannot be read; the message says why."""


class RequestError(RunLoadError):
    """The run is there, but not the step or the weights that were asked for."""


@dataclass(eq=False)
class Run:
    """A run's network with the weights of one step; :func:`load_run` makes it.

    ``images`` of its methods are one or several of: a file's path, a uint8 array ``(H, W, 3)``,
    grey ``(H, W)``, or an image of Pillow's, all of any size; or one uint8 array
    ``(N, H, W, 3)``. They are resized, cropped and normalized as in the run's own evaluation.
    The methods raise :class:`flax_resnet.decoding.ImageDecodeError`, a ValueError, for what is no
    readable image, and give NumPy arrays whose first axis has an entry for each image. Batches
    of any number run in two compiled shapes: one image, or ``batch_size``.

    Attributes:
      path: the workdir.
      step: after how many training steps.
      weights: ``"ema"``, the moving average, or ``"raw"``.
      model: the network; ``model.apply(variables, run.preprocessing.normalize(squares))``.
      variables: ``{"params", "batch_stats"}``, float32.
      class_names: of the first outputs, which are all unless ``model.num_classes`` asked for more.
      preprocessing: of every image.
      config: the run's configuration as ``{"group.key": value}``.
      batch_size: images computed together.
    """

    path: str
    step: int
    weights: str
    model: ResNet
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    config: dict[str, Any]
    batch_size: int = 32
    _compiled: dict[str, Callable] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        return (
            f"Run({self.path!r}, {self.config.get('model.name')}, {len(self.class_names)} classes,"
            f" step {self.step}, {self.weights} weights)"
        )

    def predict(self, images: Any) -> np.ndarray:
        """Probabilities of the classes, float32 ``(N, classes)``; see :meth:`probabilities`."""
        return self._computed("predict", images)

    def logits(self, images: Any) -> np.ndarray:
        """What the head gives, float32 ``(N, classes)``."""
        return self._computed("logits", images)

    def features(self, images: Any) -> np.ndarray:
        """The pooled features before the head, float32 ``(N, channels)``."""
        return self._computed("features", images)

    def endpoints(self, images: Any) -> dict[str, np.ndarray]:
        """The maps ``(N, H, W, channels)`` after ``stem``, ``stage1``, …; see ResNet.endpoints."""
        maps = self._computed("endpoints", images)
        return {name: maps[name] for name in self.model.feature_info}

    def prepare(self, images: Any) -> np.ndarray:
        """The squares uint8 ``(N, S, S, 3)`` that the network sees, before normalising."""
        size = self.preprocessing.image_size
        squares = [self.preprocessing.crop(to_rgb(image)) for image in _each(images)]
        return np.stack(squares) if squares else np.empty((0, size, size, 3), np.uint8)

    def explain(self, images: Any, classes: Any = None, *, stage: int | None = None) -> np.ndarray:
        """Where the network sees a class: Grad-CAM's maps, float32 ``(N, S, S)`` in 0…1.

        Of the squares that :meth:`prepare` gives; ``classes`` and ``stage`` are as in
        :func:`flax_resnet.gradcam.gradcam`, by default the predicted classes.
        """
        images = list(_each(images))
        classes = None if classes is None else np.broadcast_to(classes, len(images))
        parts = []
        for start in range(0, max(1, len(images)), self.batch_size):
            part = slice(start, start + self.batch_size)
            chosen = None if classes is None else classes[part]
            parts.append(self.explain_prepared(self.prepare(images[part]), chosen, stage=stage))
        return np.concatenate(parts)

    def predict_prepared(self, squares: np.ndarray) -> np.ndarray:
        """As :meth:`predict`, of what :meth:`prepare` gave, such as in another thread.

        Raises ValueError for arrays of another type or size.
        """
        return self._computed_in_batches("predict", squares)

    def logits_prepared(self, squares: np.ndarray) -> np.ndarray:
        """As :meth:`logits`, of what :meth:`prepare` gave."""
        return self._computed_in_batches("logits", squares)

    def explain_prepared(
        self, squares: np.ndarray, classes: Any = None, *, stage: int | None = None
    ) -> np.ndarray:
        """As :meth:`explain`, of what :meth:`prepare` gave."""
        from flax_resnet.gradcam import gradcam

        if not len(squares):
            return np.empty(squares.shape[:3], np.float32)
        if classes is None:
            classes = self.logits_prepared(squares).argmax(axis=1)
        classes = np.broadcast_to(classes, len(squares))
        parts = []
        for part, batch in self._batches(squares):
            chosen = np.resize(classes[part], len(batch))  # repeated, for what fills the batch up
            images = self.preprocessing.normalize(batch)
            parts.append(
                np.asarray(gradcam(self.model, self.variables, images, chosen, stage=stage))
            )
        return np.concatenate(parts)[: len(squares)]

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """Probabilities ``(N, classes)`` of logits; see :func:`class_probabilities`."""
        return class_probabilities(logits, self.config.get("loss", ""))

    def class_name(self, index: int) -> str:
        """The class's name; outputs beyond the classes have numbers."""
        names = self.class_names
        return names[index] if index < len(names) else f"output {index}"

    def _outputs(self, what: str) -> Callable[[Any, jax.Array], Any]:
        """``(variables, squares) -> outputs``, to be compiled."""

        def outputs(variables: Any, squares: jax.Array) -> Any:
            images = self.preprocessing.normalize(squares)
            if what == "features":
                return self.model.clone(num_classes=0).apply(variables, images)
            if what == "endpoints":
                return self.model.apply(variables, images, method="endpoints")
            logits = self.model.apply(variables, images)
            return self.probabilities(logits) if what == "predict" else logits

        return outputs

    def _computed(self, what: str, images: Any) -> Any:
        images = list(_each(images))
        parts = [
            self._computed_in_batches(what, self.prepare(images[start : start + self.batch_size]))
            for start in range(0, max(1, len(images)), self.batch_size)
        ]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *parts)

    def _computed_in_batches(self, what: str, squares: np.ndarray) -> Any:
        if what not in self._compiled:
            self._compiled[what] = jax.jit(self._outputs(what))
        step, count = self._compiled[what], len(squares)
        if not count:
            shapes = jax.eval_shape(self._outputs(what), self.variables, squares)
            return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        parts = [jax.device_get(step(self.variables, batch)) for _, batch in self._batches(squares)]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *parts)

    def _batches(self, squares: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Which images, and these, filled up to one of the two sizes."""
        side = self.preprocessing.image_size
        if squares.dtype != np.uint8 or squares.shape[1:] != (side, side, 3):
            raise ValueError(
                f"what Run.prepare gives is uint8 (N, {side}, {side}, 3), not"
                f" {squares.dtype} {squares.shape}; Run.predict takes images of any size"
            )
        size = 1 if len(squares) == 1 else self.batch_size
        for start in range(0, len(squares), size):
            batch = squares[start : start + size]
            padding = [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)]
            yield slice(start, start + size), np.pad(batch, padding)


def load_run(
    path: str | os.PathLike[str],
    step: int | str = "last",
    weights: str | None = None,
    *,
    batch_size: int = 32,
) -> Run:
    """Loads a run from its workdir.

    Args:
      path: the workdir.
      step: a number, ``"last"`` or ``"best"``, by the evaluation's top-1. In place of a last one
        that is damaged the one before it is taken, and a warning logged.
      weights: ``"ema"`` for the moving average of the weights or ``"raw"`` for the weights
        themselves; by default what the run evaluated: the average where it kept one, unless its
        ``eval.use_ema`` says otherwise.
      batch_size: images computed together in the run's methods.

    Raises RunError, a ValueError, in one line: there is no such run, step or average, or it is
    damaged.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise RequestError(f"path must name a run's folder, not be {path!r}")
    path = os.path.expanduser(os.fspath(path))
    if weights not in (None, *WEIGHTS):
        raise RequestError(f"weights must be 'ema' or 'raw', not {weights!r}")
    if step not in ("last", "best") and (not isinstance(step, int) or isinstance(step, bool)):
        raise RequestError(f"step must be 'last', 'best' or a number of steps, not {step!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise RequestError(f"batch_size must be a whole number from 1 on, not {batch_size!r}")
    config, described = _read(path, "config.json"), _read(path, "run.json")
    averages = bool(config.get("ema.decay"))
    if weights == "ema" and not averages:
        raise RequestError(f"the run in {path!r} keeps no moving average: its ema.decay is 0")
    if weights is None:
        weights = "ema" if averages and config.get("eval.use_ema", True) else "raw"
    try:
        names = tuple(described["class_names"])
        given = described["preprocessing"]
        preprocessing = Preprocessing(
            **given | {"mean": tuple(given["mean"]), "std": tuple(given["std"])}
        )
        model = model_from_config(config, config.get("model.num_classes") or len(names))
    except (KeyError, TypeError, ValueError) as error:
        raise RunLoadError(f"{path!r} does not describe a run: {error!r}") from error
    try:
        number, variables = _restore(path, step, model, weights == "ema")
    except OSError as error:
        raise RunLoadError(f"cannot read the checkpoints of {path!r}: {error}") from error
    return Run(
        path=path,
        step=number,
        weights=weights,
        model=model,
        variables=jax.device_put(variables),
        class_names=names,
        preprocessing=preprocessing,
        config=config,
        batch_size=batch_size,
    )


def model_from_config(
    config: Mapping[str, Any], num_classes: int, axis_name: str | None = None
) -> ResNet:
    """The network that a configuration ``{"group.key": value}`` describes.

    Raises ValueError for what no network has.
    """

    def key(name: str, default: Any) -> Any:
        return config.get(f"model.{name}", default)

    chosen = {field: key(field, None) for field in ("stem", "shortcut", "width")}
    chosen["stage_sizes"] = tuple(key("stage_sizes", ()))
    return create_model(
        config["model.name"],
        num_classes=num_classes,
        dtype=jnp.dtype(key("dtype", "float32")),
        zero_init_last=key("zero_init_last", False),
        drop_path=key("drop_path", 0.0),
        dropout=key("dropout", 0.0),
        block_dropout=key("block_dropout", 0.0),
        axis_name=axis_name,
        **{field: value for field, value in chosen.items() if value},
    )


def class_probabilities(logits: jax.Array, loss: str) -> jax.Array:
    """Probabilities ``(N, classes)`` of logits, as the loss that they were learned by means them.

    Softmax; after ``"binary_cross_entropy"`` the sigmoid of each class for itself, and these
    need not add up to 1.
    """
    if loss == "binary_cross_entropy":
        return jax.nn.sigmoid(logits)
    return jax.nn.softmax(logits)


def to_rgb(image: Any) -> np.ndarray:
    """uint8 RGB ``(H, W, 3)`` of a file's path, an image of Pillow's or an array.

    Raises BadImage, which names the file, for what is no readable image.
    """
    from flax_resnet.decoding import ImageDecodeError, read_rgb, pillow_to_rgb

    if isinstance(image, (str, os.PathLike)):
        return read_rgb(image)
    if hasattr(image, "convert"):  # Pillow's
        image = pillow_to_rgb(image)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise ImageDecodeError(f"an image must be uint8, 0 to 255, not an array of {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise ImageDecodeError(f"an image must be (H, W, 3) or (H, W), not of shape {pixels.shape}")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _each(images: Any) -> Iterable[Any]:
    """The images one by one, of whatever :class:`Run`'s methods take; BadImage for what is none."""
    single = isinstance(images, (str, os.PathLike)) or hasattr(images, "convert")
    if single or getattr(images, "ndim", 4) < 4:
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, (bytes, Mapping)):
        from flax_resnet.decoding import ImageDecodeError

        kind = type(images).__name__
        raise ImageDecodeError(
            f"give a file's path, an image or a list of these, not a value of {kind}"
        )
    return images


def _read(path: str, name: str) -> dict[str, Any]:
    place = os.path.join(path, name)
    try:
        with open(place, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise RunLoadError(f"{path!r} holds no run: there is no {place}") from None
    except (OSError, ValueError) as error:
        raise RunLoadError(f"cannot read {place}: {error}") from error
    if not isinstance(content, dict):
        raise RunLoadError(f"cannot read {place}: it is no JSON object")
    return content


def _restore(path: str, step: int | str, model: ResNet, ema: bool) -> tuple[int, dict[str, Any]]:
    """The step that is meant, and its variables."""
    folder = os.path.join(path, FOLDER)
    steps = steps_in(folder)
    if not steps:
        raise RunLoadError(f"{path!r} has no finished checkpoint yet")
    if step == "best":
        best = best_in(folder)
        step = best[0] if best else steps[-1]
    if step != "last":
        if step not in steps:
            raise RequestError(f"{folder} has no step {step}; it has {', '.join(map(str, steps))}")
        return step, _read_step(folder, step, model, ema)
    damage: WeightsError | None = None
    for number in reversed(steps):
        try:
            variables = _read_step(folder, number, model, ema)
        except WeightsError as error:
            damage = damage or error
            continue
        if damage is not None:
            _log.warning("%s; step %d is used", damage, number)
        return number, variables
    raise RunLoadError(f"{damage}. None of {len(steps)} checkpoints can be read") from damage


def _read_step(folder: str, step: int, model: ResNet, ema: bool) -> dict[str, Any]:
    place = Path(folder) / str(step)
    try:
        check_step(folder, step)
        checkpoint = find_checkpoint(place)
    except (OSError, ValueError) as error:
        raise RunLoadError(f"cannot read the checkpoint {place}: {error}") from error
    if checkpoint is None:
        raise RunLoadError(f"cannot read the checkpoint {place}: there is none in it")
    file = read_checkpoint(checkpoint, average=ema)
    leaves = {}
    for leaf, shape in leaf_shapes(model).items():
        tensor = file.tensors.get("/".join(leaf))
        if tensor is None or tensor.shape != shape:
            found = "missing" if tensor is None else f"of shape {tensor.shape}"
            raise RunLoadError(f"{place} is of another network: {'/'.join(leaf)} is {found}")
        with wrap_read_errors(str(place)):
            leaves[leaf] = tensor.read()
    return unflatten_dict(leaves)
