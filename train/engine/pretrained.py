"""The weights that a run begins with."""

from __future__ import annotations

import json
import os
from typing import Any

import ml_collections

from flax_resnet import ResNet, init_variables
from flax_resnet.weights import WeightsError, hub, read_weights
from train.runtime.errors import RunError, UsageError


def initial_variables(
    config: ml_collections.ConfigDict,
    model: ResNet,
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...],
) -> dict[str, Any] | None:
    """The model's collections from ``config.init_from``; None where it names nothing.

    The head is drawn afresh, from ``config.seed``, where the weights' has another number of
    classes, or is a run's that learned other ones than ``class_names``, or
    ``config.init_head`` says so. Prints what was taken. Raises RunError, in one line, where
    there are no such weights, or they are damaged or another network's, and UsageError where
    their head cannot be kept.
    """
    source = config.init_from
    if not source:
        return None
    path = os.path.expanduser(source)
    try:
        if not os.path.exists(path):
            path = _fetched(source)
        variables, report = read_weights(model, path, seed=config.seed)
    except WeightsError as error:
        raise RunError(f"config.init_from={source!r}: {error}") from error
    lost = [name for name, *_ in report.mismatched] + list(report.missing)
    if config.init_head == "keep" and any("/head/" in name for name in lost):
        raise UsageError(
            f"config.init_head='keep', but {source!r} has no head of {model.num_classes} classes;"
            " 'auto' draws a new one"
        )
    _check_channels(variables["params"], image_shape[-1], source)
    print(f"weights: {report}", flush=True)
    fresh = config.init_head == "fresh"
    if config.init_head == "auto" and _learned(path) not in (None, list(class_names)):
        fresh = True
    if fresh and "head" in variables["params"]:
        drawn = init_variables(model, config.seed, image_shape)
        variables["params"]["head"] = drawn["params"]["head"]
        print("  the head is drawn afresh", flush=True)
    return variables


def _check_channels(params: Any, channels: int, source: str) -> None:
    first = min(name for name in params if name.startswith("stem_conv"))  # of three, or the one
    found = params[first]["kernel"].shape[-2]
    if found != channels:
        raise RunError(
            f"config.init_from={source!r} is of a net for images of {found} channels; the images"
            f" here have {channels}"
        )


def _fetched(source: str) -> str | os.PathLike[str]:
    ending = os.path.splitext(source)[1]
    files = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".npz")
    is_path = source.startswith((".", "/", "~")) or source.count("/") > 1 or ending in files
    if is_path or os.path.isdir(source.partition("/")[0]):
        raise RunError(f"config.init_from: there is no file or folder {source!r}")
    try:
        return hub.fetch(source)
    except WeightsError as error:
        raise WeightsError(f"there is no such file or folder; as a hub's id: {error}") from error


def _learned(path: str | os.PathLike[str]) -> list[str] | None:
    """The classes of the run whose workdir this is, or is in; None where that is not known."""
    folder = os.path.abspath(path)
    for _ in range(4):  # WORKDIR/checkpoints/STEP/default
        try:
            with open(os.path.join(folder, "run.json"), encoding="utf-8") as file:
                return json.load(file)["class_names"]
        except (OSError, ValueError, KeyError, TypeError):
            folder = os.path.dirname(folder)
    return None
