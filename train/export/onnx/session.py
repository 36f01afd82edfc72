"""ONNX Runtime in place of JAX: a run's logits, computed on the processor."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import onnxruntime

from flax_resnet.runs import Run
from flax_resnet.text import error_reason
from train.export.onnx.builder import UnsupportedNetworkError
from train.export.onnx.writing import make_model
from train.runtime.errors import RunError, UsageError
from train.runtime.host import core_count

VERSION: str = onnxruntime.__version__


def onnx_logits(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of prepared images ``(N, H, W, C)`` to logits ``(N, classes)``.

    It computes in float32, with batch norm folded into the convolutions, what
    ``run.logits(images, prepared=True)`` does, on all cores of this process.

    Raises:
      RunError: ONNX cannot express the network, or ONNX Runtime does not run it.
    """
    run = dataclasses.replace(run, model=run.model.clone(dtype=jnp.float32, axis_name=None))
    try:
        model = make_model(run, logits=True).SerializeToString()
    except (UnsupportedNetworkError, UsageError) as error:
        raise RunError(f"{error_reason(error)}; omit --engine onnxruntime") from error
    session = open_session(model)

    def logits(images: np.ndarray) -> np.ndarray:
        return session.run(None, {"images": images})[0]

    return logits


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Return a session of a model in ONNX's format, on all cores of this process."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = core_count()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise RunError(
            f"ONNX Runtime {VERSION} cannot run the network: {error_reason(error)}; omit --engine"
        ) from error
