"""What a workdir says about its run: the schemas of ``run.json`` and ``config.json``."""

import os
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flax_resnet.images.pixels import MAX_CHANNELS
from flax_resnet.preprocessing import Preprocessing, Size, height_and_width
from flax_resnet.recipe_store import RECIPE_INFO, RecipeInfo
from flax_resnet.schema import (
    Schema,
    SchemaError,
    boolean,
    integer,
    mapping,
    number,
    optional,
    read_error,
    read_json,
    record,
    sequence,
    text,
)
from flax_resnet.weights.tensors import WeightsError

FILE = "run.json"
_MAX_FLOAT = sys.float_info.max


class BestBy(NamedTuple):
    """How a run chooses its best checkpoint.

    Attributes:
      metric: name of the metric of its evaluations.
      larger_is_better: whether the largest value is the best.
    """

    metric: str = "top1"
    larger_is_better: bool = True

    def score(self, value: float) -> float:
        """Return a number that is larger the better ``value`` is."""
        return value if self.larger_is_better else -value


BY_TOP1 = BestBy()


@dataclass(frozen=True)
class RunInfo:
    """The content of ``run.json``.

    Attributes:
      model: name of the network.
      class_names: of the first outputs.
      preprocessing: of every image.
      images: number of images by split.
      versions: of the software that trained the run.
      own_parts: parts that the project does not have, such as ``"block sk"``.
      recipe: the recipe that registers them; None if a Python session did.
      probabilities: ``"softmax"`` or ``"sigmoid"``; None in runs of older versions.
      early_end: why the run ended before its last step; None if it did not.
      records: fingerprint of the images and labels by split, if the source has one.
      best_by: how the best checkpoint is chosen.
      several_labels: whether an image may have several classes; None in runs of older versions.
      kind: ``"segmentation"`` if the network has outputs of every pixel; None: of the image.
    """

    model: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    images: dict[str, int]
    versions: dict[str, str]
    own_parts: tuple[str, ...] = ()
    recipe: RecipeInfo | None = None
    probabilities: str | None = None
    records: Mapping[str, str] = field(default_factory=dict)
    early_end: str | None = None
    best_by: BestBy = BY_TOP1
    several_labels: bool | None = None
    kind: str | None = None

    def activation(self, loss: str | None) -> str:
        """Return ``probabilities``, or what older versions used with ``config.loss``."""
        old = "sigmoid" if loss == "binary_cross_entropy" else "softmax"
        return self.probabilities or old

    def has_several_labels(self, task: str | None) -> bool:
        """Return ``several_labels``, or what it was in older versions with ``config.task``."""
        return task == "multi_label" if self.several_labels is None else self.several_labels


def _preprocessing(**fields: Any) -> Preprocessing:
    sizes = (height_and_width(fields[name]) for name in ("resize", "image_size"))
    if any(resized < crop for resized, crop in zip(*sizes, strict=True)):
        raise ValueError(f"resize, {fields['resize']}, is less than image_size")
    if len(fields["mean"]) != len(fields["std"]):
        raise ValueError("mean and std have different lengths")
    return Preprocessing(**fields | {"bits": fields["bits"] or 8})


def _size(high: int) -> Schema:
    """Accept a side of a square, or height and width."""
    side = integer(1, high)

    def check(value: Any, field: str) -> Size:
        return sequence(side, 2, 2)(value, field) if isinstance(value, list) else side(value, field)

    return check


def _bits(value: Any, field: str) -> int:
    if value not in (8, 16):
        raise SchemaError(f"{field} must be 8 or 16, not {reprlib.repr(value)}")
    return value


def _probabilities(value: Any, field: str) -> str:
    if value not in ("softmax", "sigmoid"):  # as of own losses of older versions
        raise SchemaError(
            f"{field} must be 'softmax' or 'sigmoid', not {reprlib.repr(value)}; correct those of"
            " the run's own loss or task"
        )
    return value


# The limits are those of the configuration keys.
_MAX_IMAGE_SIZE = 4096
PREPROCESSING = record(
    _preprocessing,
    resize=_size(20 * _MAX_IMAGE_SIZE),
    image_size=_size(_MAX_IMAGE_SIZE),
    interpolation=text(choices=("bilinear", "bicubic")),
    mean=sequence(number(-1000, 1000), 1, MAX_CHANNELS),
    std=sequence(number(1e-6, 1000), 1, MAX_CHANNELS),
    bits=optional(_bits),
)
RUN_INFO = record(
    lambda own_parts, records, best_by, **fields: RunInfo(
        own_parts=own_parts or (), records=records or {}, best_by=best_by or BY_TOP1, **fields
    ),
    model=text(),
    class_names=sequence(text(10_000), 1, 1_000_000),
    preprocessing=PREPROCESSING,
    images=mapping(integer()),
    versions=mapping(text()),
    own_parts=optional(sequence(text())),
    recipe=optional(RECIPE_INFO),
    probabilities=optional(_probabilities),
    records=optional(mapping(text())),
    early_end=optional(text()),
    best_by=optional(record(BestBy, metric=text(), larger_is_better=boolean)),
    several_labels=optional(boolean),
    kind=optional(text(100)),
)
_RATE = optional(number(0, 1))
_KEYS = {
    "model.name": text(),
    "model.num_classes": optional(integer(0, 10_000_000)),
    "model.dtype": optional(text(choices=("float32", "bfloat16"))),
    "model.stage_sizes": optional(sequence(integer(1, 1000), 0, 10)),
    "model.width": optional(integer(0, 65536)),
    **dict.fromkeys(
        (
            f"model.{name}"
            for name in (
                *("block", "norm", "activation", "stem", "shortcut"),
                *("backbone", "head_norm"),
            )
        ),
        optional(text()),
    ),
    **dict.fromkeys(
        (f"model.{name}" for name in ("output_stride", "head_channels", "pyramid_channels")),
        optional(integer(0, 65536)),
    ),
    **dict.fromkeys(
        (f"model.{name}" for name in ("zero_init_last", "aux_head", "freeze_batch_norm")),
        optional(boolean),
    ),
    **dict.fromkeys(("model.drop_path", "model.block_dropout"), _RATE),
    "model.dropout": optional(number(-1, 1)),
    "ema.decay": _RATE,
    "eval.use_ema": optional(boolean),
    "loss": optional(text()),
}


def _value(value: Any, field: str) -> Any:
    """Accept the value of any key."""
    if isinstance(value, list):
        return list(sequence(_value, 0, 1000)(value, field))
    if isinstance(value, str):
        return text(100_000, any_path=True)(value, field)
    return value if isinstance(value, bool) else number(-_MAX_FLOAT, _MAX_FLOAT)(value, field)


def config(value: Any, field: str) -> dict[str, Any]:
    """Check ``config.json``, as a schema; in detail only the keys that :class:`Run` uses."""
    used = record(**_KEYS)(value, field)
    return mapping(_value)(value, field) | {k: v for k, v in used.items() if v is not None}


def read_run_info(path: str | os.PathLike[str]) -> RunInfo | None:
    """Return ``run.json`` of the workdir that ``path`` is or belongs to; None if there is none.

    Args:
      path: a workdir, its checkpoint folder, a step or the step's tree.

    Raises:
      WeightsError: it cannot be read.
    """
    path = Path(os.path.abspath(path))
    for folder in (path, *list(path.parents)[:3]):  # WORKDIR/checkpoints/STEP/default
        try:
            return read_json(folder / FILE, RUN_INFO)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, SchemaError) as error:
            if (folder / "checkpoints").is_dir():  # otherwise it may be another program's file
                raise WeightsError(read_error(folder / FILE, error)) from error
    return None
