"""The configuration file that timm loads an export with."""

import math
from typing import Any

from flax_resnet.preprocessing import Preprocessing, height_and_width
from flax_resnet.runs import Run
from flax_resnet.weights.naming.layouts import TIMM


def network_config(run: Run) -> dict[str, Any]:
    """Return ``config.json``, for ``timm.create_model("local-dir:FOLDER", pretrained=True)``.

    It has the run's preprocessing and class names. The names of the first convolution and of the
    head let timm adapt the weights to other channels and classes.
    """
    height, width, channels = run.preprocessing.shape
    classes = run.model.num_classes
    config = {
        "architecture": run.config["model.name"],
        "num_classes": classes,
        "num_features": list(run.model.feature_info.values())[-1].channels,
        "label_names": [run.class_name(index) for index in range(classes)],
        "pretrained_cfg": {
            "num_classes": classes,
            "input_size": [channels, height, width],
            "fixed_input_size": False,
            "interpolation": run.preprocessing.interpolation,
            "crop_pct": crop_fraction(run.preprocessing),
            "crop_mode": "center",
            "mean": list(run.preprocessing.mean),
            "std": list(run.preprocessing.std),
            "first_conv": _module(run, "stem_conv", "stem_conv1"),
            "classifier": _module(run, "head"),
        },
    }
    return config | ({"model_args": {"in_chans": channels}} if channels != 3 else {})


def crop_fraction(preprocessing: Preprocessing) -> float | None:
    """Return the crop fraction from which timm computes the run's ``resize``, or None.

    timm resizes to ``floor(size / fraction)``; a height and width that were rounded separately may
    have no common fraction.
    """
    sizes = height_and_width(preprocessing.image_size)
    resized = height_and_width(preprocessing.resize)
    pairs = list(zip(sizes, resized, strict=True))
    highest = min(size / to for size, to in pairs)
    lowest = max(size / (to + 1) for size, to in pairs)
    for fraction in (highest, (lowest + highest) / 2):
        if all(math.floor(size / fraction) == to for size, to in pairs):
            return fraction
    return None


def _module(run: Run, *names: str) -> str:
    """Return timm's name of the first of our modules that the network has."""
    [name, *_] = (name for name in names if name in run.variables["params"])
    return str(TIMM.tensor_name(run.model, ("params", name, "kernel"))).removesuffix(".weight")
