"""Fields of a network that its tensors do not show, from ``config.json`` beside its weights."""

import os
from typing import Any

from flax_resnet import schema
from flax_resnet.variants import TIMM_NAMES, VARIANTS
from flax_resnet.weights.naming.parts import split_part
from flax_resnet.weights.tensors import REPOSITORY_STEMS, WeightsError

FILE = "config.json"
MAX_BYTES = 2**24  # it may have the names of 21,000 classes


def fields_beside(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields in the configuration of timm or transformers; none if there is none.

    Args:
      path: a weight file, or a folder, as for :func:`flax_resnet.load_weights`. Only a file with a
        name of the hub's belongs to the configuration beside it.

    Raises:
      WeightsError: the configuration is of a network that this library does not have.
    """
    path, _ = split_part(path)
    if not path.is_dir() and path.name.partition(".")[0] not in REPOSITORY_STEMS:
        return {}
    folder = path if path.is_dir() else path.parent
    try:
        config = schema.read_json(folder / FILE, lambda value, _: value, MAX_BYTES)
    except (OSError, schema.SchemaError):
        return {}  # find_preprocessing() reports it
    if not isinstance(config, dict):
        return {}
    architecture = config.get("architecture")
    if isinstance(architecture, str) and architecture in TIMM_NAMES:
        return {"antialias": VARIANTS[architecture].get("antialias")}
    if config.get("model_type") == "resnet":
        if config.get("downsample_in_first_stage") is True:
            raise WeightsError(
                f"{folder / FILE}: downsample_in_first_stage=true gives the first stage stride 2,"
                " which no network of this library has"
            )
        in_1x1 = config.get("downsample_in_bottleneck") is True
        activation = config.get("hidden_act")
        fields = {"stride_conv": "1x1" if in_1x1 else "3x3", "antialias": None}
        return fields | ({"activation": activation} if isinstance(activation, str) else {})
    return {}
