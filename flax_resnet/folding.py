"""Batch norm folded into the convolutions, for evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flax_resnet.layers import STANDARDIZE_EPSILON
from flax_resnet.resnet import ResNet


def fold_batch_norm(
    model: ResNet, variables: Mapping[str, Any]
) -> tuple[ResNet, dict[str, dict[str, Any]]]:
    """A net that computes in evaluation what ``model`` does, without batch norm, and its variables.

    In evaluation a batch norm multiplies and adds (arXiv:1502.03167, section 3.1), which the
    convolution before it can do with other weights and a bias. A norm that no convolution stands
    before, as the first one of a pre-activation block, becomes a scale and a shift. Where
    kernels are standardized the standardized ones are put in. Group norm depends on the image:
    a net that has it is given back as it is.

    Args:
      model: the network.
      variables: its ``{"params", "batch_stats"}``.

    The new variables are ``{"params"}``, all float32 NumPy arrays, and logits differ by rounding;
    only those that are given back are as they were. Not for training: nothing is normalized any
    more.
    """
    if model.norm != "batch":
        return model, dict(variables)
    folded = _folded(model, dict(variables["params"]), dict(variables["batch_stats"]))
    new = model.clone(norm="folded", conv_bias="all", weight_standardization=False)
    return new, {"params": folded}


def _folded(model: ResNet, params: dict[str, Any], statistics: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the net, of a block, or of a shortcut, with what is in them."""
    found: dict[str, Any] = {}
    for name, module in params.items():
        if re.fullmatch(r"(stem_)?norm\d*", name) and _conv_before(model, name, params):
            continue
        if re.fullmatch(r"(stem_)?conv\d*", name):
            norm = _norm_after(model, name)
            found[name] = _convolution(model, module, params.get(norm), statistics.get(norm))
        elif "scale" in module:
            scale, shift = _line(model, module, statistics[name])
            found[name] = _float32(scale=scale, bias=shift)
        elif name.startswith("stage") or name == "shortcut":
            found[name] = _folded(model, dict(module), dict(statistics.get(name, {})))
        else:  # the head, squeeze-and-excitation
            found[name] = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), dict(module))
    return found


def _norm_after(model: ResNet, conv: str) -> str:
    """The name of the norm that takes a convolution's output, where there is one."""
    kind, number = re.fullmatch(r"((?:stem_)?)conv(\d*)", conv).groups()
    if model.preactivation and number and not kind:
        number = str(int(number) + 1)
    return f"{kind}norm{number}"


def _conv_before(model: ResNet, norm: str, params: Mapping[str, Any]) -> bool:
    return any("conv" in name and _norm_after(model, name) == norm for name in params)


def _convolution(model: ResNet, conv: Any, norm: Any, statistics: Any) -> dict[str, np.ndarray]:
    kernel = np.asarray(conv["kernel"], np.float64)
    bias = np.asarray(conv.get("bias", np.zeros(kernel.shape[-1])), np.float64)
    if model.weight_standardization:
        spread = np.sqrt(kernel.var((0, 1, 2)) + STANDARDIZE_EPSILON)
        kernel = (kernel - kernel.mean((0, 1, 2))) / spread
    if norm is not None:
        scale, shift = _line(model, norm, statistics)
        kernel, bias = kernel * scale, bias * scale + shift
    return _float32(kernel=kernel, bias=bias)


def _line(model: ResNet, norm: Any, statistics: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of a batch norm in evaluation, float64."""
    mean, var = (np.asarray(statistics[name], np.float64) for name in ("mean", "var"))
    scale = np.asarray(norm["scale"], np.float64) / np.sqrt(var + model.norm_epsilon)
    return scale, np.asarray(norm["bias"], np.float64) - mean * scale


def _float32(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) for name, array in arrays.items()}
