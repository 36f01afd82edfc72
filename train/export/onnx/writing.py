"""The ONNX file of a run."""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import onnx
from jax import export
from onnx import helper

from flax_resnet import __version__, ops
from flax_resnet.runs import Run
from flax_resnet.text import error_reason
from train.export.metadata import file_metadata
from train.export.onnx.builder import BATCH, UnsupportedNetworkError
from train.export.onnx.converter import convert
from train.export.outputs import exported_output, folded

OPSET, IR_VERSION = 18, 8  # of ONNX 1.13 and ONNX Runtime 1.14, both of early 2023
MAX_BYTES = 2**31 - 2**24  # of the weights: a protocol buffer holds 2 GiB


def write_onnx(run: Run, path: str, raw: bool = False) -> None:
    """Write the network as an ONNX model of any batch size.

    Its input ``images`` and its output:

    * by default images ``(N, H, W, C)``, uint8 or uint16, and ``probabilities`` ``(N, classes)``;
      normalization and temperature are included; for segmentation ``logits`` ``(N, H, W, classes)``
      of every pixel;
    * with ``raw`` normalized images, float32, and ``logits``.

    Batch norm is folded into the convolutions.

    Args:
      run: the run, computing in float32.
      path: file to write.
      raw: see above.

    Raises:
      UnsupportedNetworkError: the network cannot be converted, or is too large.
    """
    model = make_model(run, normalized=raw, logits=raw)
    with open(path, "wb") as file:
        file.write(model.SerializeToString())
        file.flush()
        os.fsync(file.fileno())


def make_model(run: Run, normalized: bool = False, logits: bool = False) -> onnx.ModelProto:
    """Return a run's network, checked by ONNX's own checker.

    Args:
      run: the run, computing in float32.
      normalized: whether the input are normalized images instead of pixels.
      logits: whether the output are logits instead of the output of the run's kind.
    """
    check_size(run.variables["params"])
    model, variables = folded(run)
    exported = exported_output(run)

    def outputs(images: jax.Array) -> jax.Array:
        images = images if normalized else run.preprocessing.normalize(images)
        output = model.apply(variables, images)
        return output if logits else exported.compute(run, output)

    shape = (*export.symbolic_shape(BATCH), *run.preprocessing.shape)
    dtype = jnp.float32 if normalized else run.preprocessing.pixels.dtype
    name = "logits" if logits else exported.name
    with ops.use_xla_ops():
        graph = convert(outputs, jax.ShapeDtypeStruct(shape, dtype), name)
    made = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="flax-resnet",
        producer_version=__version__,
        doc_string=f"{run.config['model.name']} after step {run.step:,}",
    )
    helper.set_model_props(made, model_metadata(run, normalized))
    check_model(made)
    return made


def check_model(model: onnx.ModelProto) -> None:
    """Raise UnsupportedNetworkError if ONNX's own checker refuses a converted network."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedNetworkError(
            f"the network does not convert to a valid ONNX model: {error_reason(error)}"
        ) from error


def check_size(params: Mapping[str, Any]) -> None:
    """Raise UnsupportedNetworkError if the weights do not fit into one file."""
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    if size > MAX_BYTES:
        raise UnsupportedNetworkError(
            f"the network has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB"
        )


def model_metadata(run: Run, normalized: bool) -> dict[str, str]:
    """Return the model's properties, each as JSON."""
    facts = file_metadata(run) | {
        "activation": run.activation,
        "includes_preprocessing": not normalized,
        "model": run.config["model.name"],
        "step": run.step,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
