"""The weights that a run begins with."""

from __future__ import annotations

import os
from typing import Any

import ml_collections

from flax_resnet import ResNet
from flax_resnet.weights import WeightsError, hub, read_weights
from train.errors import RunError, UsageError


def initial_variables(
    config: ml_collections.ConfigDict, model: ResNet, image_shape: tuple[int, int, int]
) -> dict[str, Any] | None:
    """The model's collections from ``config.init_from``; None where it names nothing.

    Where the head has another number of classes than the weights', it is drawn afresh, from
    ``config.seed``. Prints what was taken. Raises UsageError or RunError, in one line, where
    there are no such weights or they are another network's.
    """
    source = config.init_from
    if not source:
        return None
    path = os.path.expanduser(source)
    try:
        if not os.path.exists(path):
            if _looks_like_a_path(source):
                raise UsageError(f"config.init_from: there is no file or folder {source!r}")
            path = hub.fetch(source)
        variables, report = read_weights(model, path, seed=config.seed)
    except WeightsError as error:
        raise RunError(f"config.init_from={source!r}: {error}") from error
    print(f"weights: {report}", flush=True)
    return variables


def _looks_like_a_path(source: str) -> bool:
    """Whether it is meant as one, and not as ``NAME.TAG`` or ``OWNER/NAME`` of the hub."""
    ending = os.path.splitext(source)[1]
    known = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".npz")
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or ending in known
