"""A trained run: its network, weights, class names and preprocessing.

>>> run = load_run("runs/flowers")
>>> run.predict(["a.jpg", "b.png"])  # probabilities, (2, classes)

A workdir describes itself: only ``config.json``, ``run.json``, ``checkpoints`` and
``calibration`` are read. Restoring needs Orbax; decoding image files needs OpenCV and Pillow.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.calibration import DEFAULT_THRESHOLD, Calibration, find_calibration
from flax_resnet.images.pixels import RGB, PixelFormat
from flax_resnet.preprocessing import Preprocessing
from flax_resnet.recipe_store import RecipeError, UntrustedRecipeError, use_recipe
from flax_resnet.resnet import ResNet
from flax_resnet.run_reader import RequestError, RunLoadError, read_description, restore
from flax_resnet.variants import create_model
from flax_resnet.weights import run_info
from flax_resnet.weights.leaves import leaf_shapes

WEIGHTS = ("ema", "raw")
MAX_BLOCKS = 1000  # ResNet-1202 has 600
_MODEL_FIELDS = (
    *("block", "norm", "activation", "stem", "shortcut", "width"),
    *("zero_init_last", "drop_path", "block_dropout", "aux_head", "freeze_batch_norm"),
    *("backbone", "output_stride", "head_channels", "head_norm", "pyramid_channels"),
)


@dataclass(eq=False)
class Run:
    """A run's network with the weights of one step, as :func:`load_run` returns it.

    The argument ``images`` of its methods is one image or a list of images of any size: a file's
    path, a uint8 array ``(H, W, 3)`` or gray ``(H, W)``, or a Pillow image; or one uint8 array
    ``(N, H, W, 3)``. For runs with other channels or bits, arrays have those channels, and may be
    uint16 if the run's images have 16 bits. They are resized, cropped and normalized as in the
    run's own evaluation. With ``prepared=True`` it is what :meth:`prepare` returned.

    The methods return NumPy arrays with one entry per image along the first axis, and raise
    :class:`flax_resnet.decoding.ImageDecodeError`, a ValueError, for unreadable images. Any
    number of images is computed with two compiled batch sizes: 1 and ``batch_size``.

    Attributes:
      path: the workdir.
      step: number of training steps.
      weights: ``"ema"`` (moving average) or ``"raw"``.
      model: the network; ``model.apply(variables, run.preprocessing.normalize(squares))``.
      variables: ``{"params", "batch_stats"}``, float32.
      class_names: of the first outputs; ``model.num_classes`` may add outputs without a name.
      preprocessing: of every image.
      config: the run's configuration as ``{"group.key": value}``.
      batch_size: number of images computed together.
      activation: what makes probabilities of logits: ``"softmax"`` or ``"sigmoid"``.
      calibration: stored by ``train.evaluate --calibrate``, part of all probabilities; or None.
      several_labels: whether an image may have any number of classes.
      kind: ``"segmentation"`` if outputs are of pixels; None if they are of images.
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
    activation: str = "softmax"
    calibration: Calibration | None = None
    several_labels: bool = False
    kind: str | None = None
    _compiled: dict[str, Callable] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        return (
            f"Run({self.path!r}, {self.config.get('model.name')}, {len(self.class_names)} classes,"
            f" step {self.step}, {self.weights} weights)"
        )

    def predict(self, images: Any, *, prepared: bool = False) -> np.ndarray:
        """Return class probabilities, float32 ``(N, classes)``; see :meth:`probabilities`."""
        return self._compute("predict", images, prepared)

    def labels(self, images: Any, *, prepared: bool = False) -> list[tuple[str, ...]]:
        """Return the names of the classes of each image that reach their :attr:`thresholds`.

        Raises:
          ValueError: the run has one class per image.
        """
        if not self.several_labels:
            raise RequestError("labels() is for runs with several classes per image; use predict()")
        return [self.reached(row) for row in self.predict(images, prepared=prepared)]

    def reached(self, probabilities: np.ndarray) -> tuple[str, ...]:
        """Return the names of the classes whose :attr:`thresholds` probabilities reach."""
        reached = probabilities[: len(self.class_names)] >= self.thresholds
        return tuple(self.class_names[k] for k in np.flatnonzero(reached))

    def logits(self, images: Any, *, prepared: bool = False) -> np.ndarray:
        """Return the head's output, float32 ``(N, classes)``."""
        return self._compute("logits", images, prepared)

    def features(self, images: Any, *, prepared: bool = False) -> np.ndarray:
        """Return the pooled features before the head, float32 ``(N, channels)``."""
        return self._compute("features", images, prepared)

    def logits_and_features(
        self, images: Any, *, prepared: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return :meth:`logits` and :meth:`features` of one forward pass."""
        return self._compute("logits_and_features", images, prepared)

    def endpoints(self, images: Any) -> dict[str, np.ndarray]:
        """Return the maps ``(N, H, W, channels)`` of :meth:`flax_resnet.ResNet.endpoints`."""
        maps = self._compute("endpoints", images)
        return {name: maps[name] for name in self.model.feature_info}

    def prepare(self, images: Any) -> np.ndarray:
        """Return the network's images before normalization, ``(N, H, W, C)``."""
        preprocessing = self.preprocessing
        crops = [
            preprocessing.crop(to_pixels(image, preprocessing.pixels))
            for image in _image_list(images)
        ]
        empty = np.empty((0, *preprocessing.shape), preprocessing.pixels.dtype)
        return np.stack(crops) if crops else empty

    def folded(self) -> Self:
        """Return the run with batch norm folded; see :func:`flax_resnet.fold_batch_norm`.

        Outputs differ by the rounding of the network's ``dtype``.
        """
        from flax_resnet.folding import fold_batch_norm

        model, variables = fold_batch_norm(self.model, self.variables)
        return replace(self, model=model, variables=jax.device_put(variables))

    def explain(
        self, images: Any, classes: Any = None, *, stage: int | None = None, prepared: bool = False
    ) -> np.ndarray:
        """Return Grad-CAM maps of the prepared images, float32 ``(N, H, W)`` in 0…1.

        Args:
          images: see :class:`Run`.
          classes: one class for all images, or one per image; default: the predicted classes.
          stage: see :func:`flax_resnet.gradcam.gradcam`.
          prepared: whether :meth:`prepare` returned ``images``.
        """
        from flax_resnet.gradcam import gradcam

        images = images if prepared else _image_list(images)
        classes = None if classes is None else np.broadcast_to(classes, len(images))
        parts = [np.empty((0, *self.preprocessing.shape[:2]), np.float32)]
        for part, batch in self._batches(images, prepared):
            if classes is None:
                targets = self.logits(batch, prepared=True).argmax(axis=1)
            else:
                targets = np.resize(classes[part], len(batch))  # padding repeats classes
            inputs = self.preprocessing.normalize(batch)
            maps = gradcam(self.model, self.variables, inputs, targets, stage=stage)
            parts.append(np.asarray(maps)[: len(images) - part.start])
        return np.concatenate(parts)

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """Return calibrated probabilities ``(N, classes)``; see :func:`class_probabilities`."""
        if self.temperature is not None:
            logits = logits / self.temperature
        return class_probabilities(logits, self.activation)

    @property
    def temperature(self) -> float | None:
        """The temperature of the probabilities; None if they are not calibrated."""
        return None if self.calibration is None else self.calibration.temperature

    @property
    def thresholds(self) -> np.ndarray:
        """Probabilities from which on an image has each of several classes, ``(K,)``.

        They are those that ``train.evaluate --calibrate`` stores, 0.5 without.
        """
        if self.calibration is None:
            return np.full(len(self.class_names), DEFAULT_THRESHOLD)
        return self.calibration.label_thresholds(self.class_names)

    def class_name(self, index: int) -> str:
        """Return the name of an output: its class name, or its number if it has none."""
        names = self.class_names
        return names[index] if index < len(names) else f"output {index}"

    def _outputs(self, kind: str) -> Callable[[Any, jax.Array], Any]:
        """Return the function ``(variables, squares) -> outputs`` to compile."""

        def outputs(variables: Any, squares: jax.Array) -> Any:
            images = self.preprocessing.normalize(squares)
            if kind == "features":
                return self.model.clone(num_classes=0).apply(variables, images)
            if kind == "logits_and_features":
                return network_outputs(self.model, variables, images, with_features=True)
            if kind == "endpoints":
                return self.model.apply(variables, images, method="endpoints")
            logits = self.model.apply(variables, images)
            return self.probabilities(logits) if kind == "predict" else logits

        return outputs

    def _compute(self, kind: str, images: Any, prepared: bool = False) -> Any:
        if kind not in self._compiled:
            self._compiled[kind] = jax.jit(self._outputs(kind))
        images = images if prepared else _image_list(images)
        parts = [
            jax.device_get(self._compiled[kind](self.variables, batch))
            for _, batch in self._batches(images, prepared)
        ]
        if not parts:
            shapes = jax.eval_shape(self._outputs(kind), self.variables, self.prepare([]))
            return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(images)], *parts)

    def _batches(self, images: Any, prepared: bool) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of the images, and these prepared and padded to one of the two sizes."""
        shape, dtype = self.preprocessing.shape, self.preprocessing.pixels.dtype
        if prepared and (images.dtype != dtype or images.shape[1:] != shape):
            raise ValueError(
                f"prepared images must be {dtype} (N, {', '.join(map(str, shape))}), not"
                f" {images.dtype} {images.shape}; without prepared=True images of any size are"
                " prepared"
            )
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            squares = images[part] if prepared else self.prepare(images[part])
            padding = 0 if len(squares) == 1 else self.batch_size - len(squares)
            yield part, np.pad(squares, [(0, padding), (0, 0), (0, 0), (0, 0)])


def load_run(
    path: str | os.PathLike[str],
    step: int | str = "last",
    weights: str | None = None,
    *,
    batch_size: int = 32,
    trust_recipe: bool = False,
    kind: str | None = None,
) -> Run:
    """Load a run from its workdir.

    Args:
      path: the workdir.
      step: a number, ``"last"``, or ``"best"`` by the run's ``eval.metric``. If the last
        checkpoint is corrupt, the previous one is loaded and a warning is logged.
      weights: ``"ema"`` for the moving average of the weights or ``"raw"`` for the weights
        themselves; default: those that the run evaluated, which is the average if the run keeps
        one and ``eval.use_ema`` is not False.
      batch_size: number of images computed together in the run's methods.
      trust_recipe: whether to run the copy of the recipe in the workdir if the run has own parts
        and their recipe is not at its original place any more. It is a program: read it first.
      kind: ``"segmentation"`` if outputs are of pixels; the run is for ``PixelClassifier`` then.

    Raises:
      RunLoadError: a ValueError with a one-line message, if the run, step or average does not
        exist, or is corrupt.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise RequestError(f"path must be the folder of a run, not {path!r}")
    path = os.path.expanduser(os.fspath(path))
    if weights not in (None, *WEIGHTS):
        raise RequestError(f"weights must be 'ema' or 'raw', not {weights!r}")
    if step not in ("last", "best") and (not isinstance(step, int) or isinstance(step, bool)):
        raise RequestError(f"step must be 'last', 'best' or an integer, not {step!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise RequestError(f"batch_size must be a positive integer, not {batch_size!r}")
    config = read_description(path, "config.json", run_info.config)
    info = read_description(path, run_info.FILE, run_info.RUN_INFO)
    try:
        use_recipe(path, info.own_parts, info.recipe, trust_recipe)
    except UntrustedRecipeError as error:
        raise RequestError(str(error)) from error
    except RecipeError as error:
        raise RunLoadError(str(error)) from error
    if info.kind != kind:
        raise RequestError(f"{path!r} has outputs of {'pixels' if info.kind else 'images'}")
    names = info.class_names
    averages = bool(config.get("ema.decay"))
    if weights == "ema" and not averages:
        raise RequestError(f"the run in {path!r} keeps no moving average: its ema.decay is 0")
    if weights is None:
        weights = "ema" if averages and config.get("eval.use_ema", True) else "raw"
    try:
        model = model_from_config(config, config.get("model.num_classes") or len(names))
        if model.num_classes < len(names):
            raise ValueError(f"{model.num_classes} outputs cannot have {len(names)} class names")
    except ValueError as error:
        raise RunLoadError(f"{path!r} does not describe a run: {error}") from error
    try:
        shapes = leaf_shapes(model, info.preprocessing.pixels.channels)
        number, variables = restore(path, step, shapes, weights == "ema", info.best_by)
    except OSError as error:
        raise RunLoadError(f"cannot read the checkpoints of {path!r}: {error}") from error
    activation = info.activation(config.get("loss"))
    return Run(
        path,
        number,
        weights,
        model,
        jax.device_put(variables),
        names,
        info.preprocessing,
        config,
        batch_size=batch_size,
        activation=activation,
        calibration=find_calibration(path, number, weights, activation, names),
        several_labels=info.has_several_labels(config.get("task")),
        kind=info.kind,
    )


def model_from_config(
    config: Mapping[str, Any], num_classes: int, axis_name: str | None = None
) -> ResNet:
    """Return the network that a configuration ``{"group.key": value}`` describes.

    Raises:
      ValueError: if there is no such network.
    """
    keys = {k.removeprefix("model."): v for k, v in config.items() if k.startswith("model.")}
    # Only values that are not the key's default, so that those of an own model apply.
    fields = {name: keys[name] for name in _MODEL_FIELDS if keys.get(name)}
    if keys.get("dropout", -1) >= 0:
        fields["dropout"] = keys["dropout"]
    if axis_name is not None:
        fields["axis_name"] = axis_name
    if keys.get("stage_sizes"):
        fields["stage_sizes"] = tuple(keys["stage_sizes"])
        if sum(fields["stage_sizes"]) > MAX_BLOCKS:  # tracing them would take minutes
            raise ValueError(f"stage_sizes must have at most {MAX_BLOCKS:,} blocks in total")
    fields["dtype"] = jnp.dtype(keys.get("dtype", "float32"))
    return create_model(config["model.name"], num_classes=num_classes, **fields)


def network_outputs(
    model: ResNet, variables: Any, images: jax.Array, with_features: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Return the logits ``(N, classes)``, and the pooled features ``(N, D)`` or None."""
    logits = model.apply(variables, images)
    if not with_features:
        return logits, None
    # The compiler merges both passes into one; own networks have no other door to their features.
    return logits, model.clone(num_classes=0).apply(variables, images)


def class_probabilities(logits: jax.Array, kind: str) -> jax.Array:
    """Return probabilities ``(N, classes)`` of logits.

    Args:
      logits: ``(N, classes)``.
      kind: ``"softmax"``, or ``"sigmoid"`` of each class, which need not add up to 1.
    """
    if kind == "sigmoid":
        return jax.nn.sigmoid(logits)
    return jax.nn.softmax(logits)


def to_pixels(image: Any, pixels: PixelFormat = RGB) -> np.ndarray:
    """Return a file's path, a Pillow image or an array as ``(H, W, C)`` of a run's channels.

    Raises:
      ImageDecodeError: if it is not a readable image; the message names the file.
    """
    from flax_resnet.decoding import array_to_pixels, pillow_to_rgb, read_image

    if isinstance(image, (str, os.PathLike)):
        return read_image(image, pixels)
    if hasattr(image, "convert"):  # Pillow
        deep = pixels.bits == 16 and image.mode.startswith("I;16")
        as_stored = deep or pixels.channels not in (1, 3)
        image = image if as_stored else pillow_to_rgb(image)
    return np.ascontiguousarray(array_to_pixels(np.asarray(image), pixels))


def _image_list(images: Any) -> list[Any]:
    """Return the images that the methods of :class:`Run` take as a list."""
    single = isinstance(images, (str, os.PathLike)) or hasattr(images, "convert")
    if single or getattr(images, "ndim", 4) < 4:
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, (bytes, Mapping)):
        from flax_resnet.decoding import ImageDecodeError

        raise ImageDecodeError(
            "images must be a file's path, an image or a list of these, not a value of"
            f" {type(images).__name__}"
        )
    return list(images)
