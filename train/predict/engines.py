"""What computes the outputs of a run for prepared images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from train.runtime.errors import UsageError, note

if TYPE_CHECKING:  # importing JAX takes a second
    import argparse

    import numpy as np

    from flax_resnet.runs import Run

    # Prepared images (N, H, W, C) → logits (N, classes), and features (N, D) or N times None.
    Forward = Callable[[np.ndarray], tuple[np.ndarray, Sequence[Any]]]

ENGINES = ("jax", "onnxruntime")
# Flags whose results come from inside the network.
_ONLY_JAX = ("features", "similar", "explain")


def check_engine(flags: argparse.Namespace) -> None:
    """Raise UsageError if ONNX Runtime is requested and cannot do what the flags say."""
    if flags.engine != "onnxruntime":
        return
    for name in _ONLY_JAX:
        if getattr(flags, name) is not None:
            raise UsageError(f"--{name} needs --engine jax, not onnxruntime")
    if missing := [each for each in ("onnx", "onnxruntime") if find_spec(each) is None]:
        raise UsageError(
            f"--engine onnxruntime needs {' and '.join(missing)}: pip install 'flax-resnet[onnx]'"
        )


def make_forward(run: Run, engine: str | None, with_features: bool) -> Forward:
    """Return the forward pass of a run.

    Args:
      run: the run.
      engine: one of ``ENGINES``; None for JAX.
      with_features: whether it returns features, which only JAX does.

    Raises:
      RunError: ONNX Runtime does not run the network.
    """
    if with_features:
        return lambda images: run.logits_and_features(images, prepared=True)
    logits = _onnx_logits(run) if engine == "onnxruntime" else _jax_logits(run)
    return lambda images: (logits(images), [None] * len(images))


def _jax_logits(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    return lambda images: run.logits(images, prepared=True)


def _onnx_logits(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    from train.export.onnx.session import VERSION, onnx_logits

    logits = onnx_logits(run)
    note(f"computed by ONNX Runtime {VERSION} in float32")
    return logits
