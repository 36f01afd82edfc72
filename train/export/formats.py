"""The formats that a run's network is written in."""

from __future__ import annotations

import json
import os

import jax
import numpy as np
from jax import export

from flax_resnet import fold_batch_norm, ops, save_weights
from flax_resnet.resnet import ResNet
from flax_resnet.runs import Run

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(run: Run, path: str) -> None:
    """The network for any number of images: uint8 ``(N, S, S, 3)`` in, probabilities out.

    With normalisation in it and batch norm folded away; for cpu, cuda and tpu.
    """
    model, variables = fold_batch_norm(run.model, jax.device_get(run.variables))

    def predict(images: jax.Array) -> jax.Array:
        return run.probabilities(model.apply(variables, run.preprocessing.normalize(images)))

    size = run.preprocessing.image_size
    shape = (*export.symbolic_shape("N"), size, size, 3)
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    with ops.use_xla_ops():  # what suits the CPU it is written on may not suit where it runs
        exported = export.export(jax.jit(predict), platforms=PLATFORMS)(images)
    with open(path, "wb") as file:
        file.write(exported.serialize())
        file.flush()
        os.fsync(file.fileno())


def write_torchvision(run: Run, path: str) -> None:
    """Weights, see :func:`flax_resnet.save_weights`; likewise below."""
    save_weights(run.variables, path, model=run.model, layout="torchvision")


def write_timm(run: Run, path: str) -> None:
    save_weights(run.variables, path, model=run.model, layout="timm")


def write_huggingface(run: Run, path: str) -> None:
    """With the ``config.json`` that transformers makes the network of, where it has it."""
    save_weights(run.variables, path, model=run.model, layout="huggingface")
    if is_transformers(run.model):
        place = os.path.join(os.path.dirname(path), "config.json")
        with open(place, "w", encoding="utf-8") as file:
            json.dump(transformers_config(run), file, indent=2, ensure_ascii=False)


def is_transformers(model: ResNet) -> bool:
    """Whether transformers' ResNetForImageClassification computes what this network does."""
    fields = {
        "stem": "imagenet",
        "shortcut": "projection",
        "stride_block": "first",
        "preactivation": False,
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "conv_bias": "none",
        "weight_standardization": False,
        "se_ratio": 0.0,
        "groups": 1,
        "width_multiplier": 1,
        "output_stride": None,
    }
    widths = model.stem_width in (None, model.width)
    return widths and all(getattr(model, name) == value for name, value in fields.items())


def transformers_config(run: Run) -> dict:
    """The fields of transformers' ResNetConfig."""
    model = run.model
    names = {index: run.class_name(index) for index in range(model.num_classes)}
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "embedding_size": model.width,
        "hidden_sizes": [feature.channels for feature in model.feature_info.values()][1:],
        "depths": list(model.stage_sizes),
        "layer_type": "basic" if model.block == "residual" else "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": model.stride_conv == "1x1",
        "num_channels": 3,
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
    }


WRITERS = {
    "stablehlo": write_stablehlo,
    "torchvision": write_torchvision,
    "timm": write_timm,
    "huggingface": write_huggingface,
}
