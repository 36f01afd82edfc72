"""The temperature of an exported run: in the program, in the head, or in the code of the card."""

import dataclasses
from typing import Any

import numpy as np

from flax_resnet.runs import Run
from train.export.loaders import Loader

# Other weights are unchanged, and the code of the model card divides the logits.
_IN_HEAD = ("huggingface", "timm")


def with_temperature_in_head(run: Run, format: str) -> Run:
    """Return the run with the head's parameters divided by its temperature, if the format needs it.

    Its logits are then those that the probabilities are computed from, so that a library without
    temperatures computes calibrated ones.
    """
    if format not in _IN_HEAD or run.calibration is None or run.temperature is None:
        return run
    params = run.variables["params"]
    head = {name: np.asarray(leaf) / run.temperature for name, leaf in params["head"].items()}
    variables = run.variables | {"params": params | {"head": head}}
    calibration = dataclasses.replace(run.calibration, temperature=None)
    return dataclasses.replace(run, variables=variables, calibration=calibration)


def temperature_place(format: str, loader: Loader) -> str:
    """Return where the logits are divided by the temperature, for the model card."""
    if loader.normalizes:
        return "the logits are divided by it in the exported file"
    if format in _IN_HEAD:
        return "the weights and the bias of the head in the exported file are divided by it"
    return "the logits are divided by it by the code below, not by the exported file"


def temperature_metadata(run: Run, format: str, loader: Loader) -> dict[str, Any]:
    """Return whether the exported file applies the temperature itself, if there is one."""
    if run.temperature is None:
        return {}
    return {"temperature_in_file": loader.normalizes or format in _IN_HEAD}
