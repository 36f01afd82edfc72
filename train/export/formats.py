"""Writers of the export formats."""

import json
import os
from functools import partial

import jax
from jax import export

from flax_resnet import fold_batch_norm, ops, save_weights
from flax_resnet.resnet import ResNet
from flax_resnet.runs import Run

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(run: Run, path: str) -> None:
    """Write the network as StableHLO for cpu, cuda and tpu and any batch size.

    The program takes images ``(N, H, W, C)``, uint8 or uint16, and returns probabilities; it
    includes the normalization, and batch norm is folded into the convolutions.
    """
    model, variables = run.model, jax.device_get(run.variables)
    if getattr(model, "norm", None) == "batch":
        model, variables = fold_batch_norm(model, variables)

    def predict(images: jax.Array) -> jax.Array:
        return run.probabilities(model.apply(variables, run.preprocessing.normalize(images)))

    shape = (*export.symbolic_shape("N"), *run.preprocessing.shape)
    images = jax.ShapeDtypeStruct(shape, run.preprocessing.pixels.dtype)
    with ops.use_xla_ops():  # the forms for this CPU may not suit the target
        exported = export.export(jax.jit(predict), platforms=PLATFORMS)(images)
    with open(path, "wb") as file:
        file.write(exported.serialize())
        file.flush()
        os.fsync(file.fileno())


def write_onnx(run: Run, path: str, raw: bool = False) -> None:
    """Write the network as ONNX; see :func:`train.export.onnx.writing.write_onnx`."""
    from train.export.onnx import writing  # needs the extra onnx

    writing.write_onnx(run, path, raw)


def write_weights(run: Run, path: str, layout: str) -> None:
    """Write the weights in another library's layout; see :func:`flax_resnet.save_weights`."""
    save_weights(run.model, run.variables, path, layout=layout)


def write_huggingface(run: Run, path: str) -> None:
    """Write the weights, and ``config.json`` if transformers has the network."""
    write_weights(run, path, "huggingface")
    if matches_transformers(run.model):
        config_path = os.path.join(os.path.dirname(path), "config.json")
        with open(config_path, "w", encoding="utf-8") as file:
            json.dump(transformers_config(run), file, indent=2, ensure_ascii=False)


def matches_transformers(model: ResNet) -> bool:
    """Return whether transformers' ResNetForImageClassification can represent the network."""
    fields = {
        "conv": None,
        "activation": "relu",
        "stem": "imagenet",
        "shortcut": "projection",
        "stride_block": "first",
        "preactivation": False,
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "conv_bias": "none",
        "weight_standardization": False,
        "se_ratio": 0.0,
        "eca": False,
        "antialias": None,
        "reduce_first": 1,
        "groups": 1,
        "width_multiplier": 1,
        "output_stride": None,
    }
    widths = model.stem_width in (None, model.width)
    return (
        isinstance(model.block, str)
        and widths
        and all(getattr(model, name) == value for name, value in fields.items())
    )


def transformers_config(run: Run) -> dict:
    """Return the fields of transformers' ResNetConfig."""
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
        "num_channels": run.preprocessing.pixels.channels,
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
    }


WRITERS = {
    "stablehlo": write_stablehlo,
    "onnx": write_onnx,
    "torchvision": partial(write_weights, layout="torchvision"),
    "timm": partial(write_weights, layout="timm"),
    "huggingface": write_huggingface,
}
