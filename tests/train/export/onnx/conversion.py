"""Conversion of functions and networks, and their outputs in ONNX Runtime."""

import jax
import numpy as np
import onnxruntime
from jax import export
from onnx import helper

from flax_resnet import ops
from train.export.onnx.builder import BATCH
from train.export.onnx.converter import convert
from train.export.onnx.writing import IR_VERSION, OPSET, check_model

BATCHES = (1, 2, 7)


def to_onnx(function, shape, dtype=np.float32):
    """Return the checked model of a function of images ``(N, *shape)``."""
    images = jax.ShapeDtypeStruct((*export.symbolic_shape(BATCH), *shape), dtype)
    with ops.use_xla_ops():
        graph = convert(function, images, "outputs")
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    check_model(model)
    return model


def run(model, images):
    """Return the outputs for the images in batches of 1, 2 and 7, and then the rest."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    parts = [part for part in np.split(images, np.cumsum(BATCHES)) if len(part)]
    return np.concatenate([session.run(None, {"images": part})[0] for part in parts])


def kinds(model):
    """Return the sorted types of the nodes."""
    return sorted(node.op_type for node in model.graph.node)
