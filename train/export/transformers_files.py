"""The configuration files that transformers loads an export with."""

from typing import Any

from flax_resnet.preprocessing import Preprocessing
from flax_resnet.runs import Run
from train.export.loaders import is_binary

_PILLOW_FILTERS = {"bilinear": 2, "bicubic": 3}  # Image.Resampling


def network_config(run: Run) -> dict[str, Any]:
    """Return ``config.json``: the fields of transformers' ResNetConfig or BitConfig.

    Their pipeline computes probabilities by the sigmoid if there are several labels.
    """
    model = run.model
    names = {index: run.class_name(index) for index in range(model.num_classes)}
    if model.preactivation:
        network: dict[str, Any] = {
            "architectures": ["BitForImageClassification"],
            "model_type": "bit",
            "layer_type": "preactivation",
        }
    else:
        network = {
            "architectures": ["ResNetForImageClassification"],
            "model_type": "resnet",
            "layer_type": "basic" if model.block == "residual" else "bottleneck",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": model.stride_conv == "1x1",
        }
    kind = "multi_label_classification" if is_binary(run) else "single_label_classification"
    return network | {
        "embedding_size": model.width,
        "hidden_sizes": [feature.channels for feature in model.feature_info.values()][1:],
        "depths": list(model.stage_sizes),
        "hidden_act": "relu",
        "num_channels": run.preprocessing.pixels.channels,
        "problem_type": kind,
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
    }


def processor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return ``preprocessor_config.json``, which has the run's sizes, filter, mean and std.

    It is BiT's processor, the one of transformers that resizes the shorter side and crops at any
    size; that of its ResNet squeezes images instead of cropping them from 384 pixels on.
    """
    height, width, channels = preprocessing.shape
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.resize},
        "resample": _PILLOW_FILTERS[preprocessing.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / preprocessing.pixels.max_value,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
