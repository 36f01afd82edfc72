"""The initial weights of a run, from ``config.init_from``."""

import os
from typing import Any

from flax_resnet import ResNet, init_variables
from flax_resnet.weights import WeightsError, hub, read_weights
from flax_resnet.weights.parts import split_part
from flax_resnet.weights.run_info import read_run_info
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError


def initial_variables(
    config: ConfigDict,
    model: ResNet,
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...],
) -> dict[str, Any] | None:
    """Load the model's variables from ``config.init_from`` and print the report.

    The head is newly initialized, from ``config.seed``, if the weights have another number of
    classes, if they are from a run with other classes than ``class_names``, or if
    ``config.init_head`` requires it.

    Returns:
      The variables, or None if ``config.init_from`` is empty.

    Raises:
      RunError: the weights do not exist, are corrupt or belong to another network.
      UsageError: ``config.init_head`` is ``"keep"``, but the head does not match.
    """
    source = config.init_from
    if not source:
        return None
    path = os.path.expanduser(source)
    try:
        if not os.path.exists(split_part(path)[0]):
            path = _download(source)
        variables, report = read_weights(model, path, seed=config.seed, channels=image_shape[-1])
        info = read_run_info(split_part(path)[0])
    except WeightsError as error:
        raise RunError(f"config.init_from={source!r}: {error}") from error
    initialized = [name for name, *_ in report.mismatched] + list(report.missing)
    if config.init_head == "keep" and any("/head/" in name for name in initialized):
        raise UsageError(
            f"config.init_head='keep', but {source!r} has no head with {model.num_classes} classes;"
            " 'auto' initializes a new one"
        )
    print(f"weights: {report}", flush=True)
    fresh = config.init_head == "fresh"
    if config.init_head == "auto":
        fresh = info is not None and info.class_names != tuple(class_names)
    if fresh and "head" in variables["params"]:
        initial = init_variables(model, config.seed, image_shape)
        variables["params"]["head"] = initial["params"]["head"]
        print("  the head is newly initialized", flush=True)
    return variables


def _download(source: str) -> str | os.PathLike[str]:
    if hub.is_path(source):
        raise RunError(f"config.init_from: there is no file or folder {source!r}")
    try:
        return hub.download(source)
    except WeightsError as error:
        raise WeightsError(f"there is no such file or folder; as a hub id: {error}") from error
