"""Folding of batch norm into the convolutions, for evaluation."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.init import trace_modules
from flax_resnet.layers import STANDARDIZE_EPSILON
from flax_resnet.own_layers import folds_norms, label
from flax_resnet.registry import BLOCKS
from flax_resnet.resnet import ResNet


def fold_batch_norm(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, dict[str, Any]]]:
    """Return an equivalent network without batch norm, for evaluation, and its variables.

    In evaluation batch norm is a scale and a shift (arXiv:1502.03167, section 3.1), which the
    preceding convolution can apply by other weights and a bias. A norm without a preceding
    convolution, such as the first one of a pre-activation block, becomes an explicit scale and
    shift. Standardized kernels replace those of a network with weight standardization.

    In a block with an own ``__call__``, and with an own ``conv``, each batch norm becomes such a
    scale and shift: nothing shows which convolution it follows.

    Args:
      model: the network.
      variables: its ``{"params", "batch_stats"}``.

    Returns:
      The network and its ``{"params"}`` as float32 NumPy arrays. Logits differ by rounding. The
      network cannot be trained, since nothing normalizes its maps.

    Raises:
      ValueError: the network has other norms, which depend on the image, or no field ``norm``.
    """
    if find_backbone(model)[1]:
        return _fold_dense(model, variables)
    if not hasattr(model, "norm"):
        raise ValueError(f"{type(model).__name__} has no field norm, so nothing can be folded")
    if model.norm != "batch":
        raise ValueError(
            f"norm {label(model.norm)!r} cannot be folded into the convolutions; only 'batch' can"
        )
    params, statistics = dict(variables["params"]), dict(variables["batch_stats"])
    block = BLOCKS[model.block] if isinstance(model.block, str) else model.block
    own = {
        name: params.pop(name)
        for name in list(params)
        if name != "head" and not folds_norms(model, block if name.startswith("stage") else None)
    }
    folded = _folded(model, params, statistics)
    if own:
        folded |= _with_explicit_norms(model, variables, own)
    return model.clone(norm="folded"), {"params": folded}


def _fold_dense(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, dict[str, Any]]]:
    """Fold the backbone and, if they have batch norm, the heads of a network."""
    inside = {name: collection["backbone"] for name, collection in variables.items()}
    backbone, folded = fold_batch_norm(model.backbone, inside)
    heads = {name: dict(head) for name, head in variables["params"].items() if name != "backbone"}
    norm = model.norm
    if norm == "batch":
        plain = model.backbone.clone(preactivation=False, weight_standardization=False)
        heads = {
            name: _fold_head(plain, head, variables["batch_stats"][name])
            for name, head in heads.items()
        }
        norm = "folded"
    elif any(name in variables["batch_stats"] for name in heads):
        raise ValueError(f"norm {label(norm)!r} of the heads cannot be folded; only 'batch' can")
    params = {"backbone": folded["params"]} | heads
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    return model.clone(backbone=backbone, head_norm=norm), {"params": params}


def _fold_head(model: ResNet, params: Mapping[str, Any], statistics: Any) -> dict[str, Any]:
    """Fold the parameters of a head or of a module in it, recursively.

    Args:
      model: a network with the norm's epsilon.
      params: of the module.
      statistics: of the module.
    """
    if "norm" in params:  # ConvNorm
        conv, norm = params["conv"], params["norm"]
        return {"conv": _fold_conv(model, conv, norm, statistics["norm"])}
    return {
        name: _fold_head(model, module, statistics.get(name, {}))
        if isinstance(module, Mapping)
        else module
        for name, module in params.items()
    }


def _with_explicit_norms(
    model: ResNet, variables: Mapping[str, Any], own: dict[str, Any]
) -> dict[str, Any]:
    """Return parameters of modules with each batch norm as an explicit scale and shift."""
    stem = min(name for name in variables["params"] if name.startswith("stem_conv"))
    images = jax.ShapeDtypeStruct(
        (1, 64, 64, variables["params"][stem]["kernel"].shape[-2]), jnp.float32
    )
    modules, _ = trace_modules(model, images)
    expected, _ = trace_modules(model.clone(norm="folded"), images)
    params, statistics = flatten_dict(own), flatten_dict(dict(variables["batch_stats"]))
    for path in {path[:-1] for path in params if (*path[:-1], "mean") in statistics}:
        norm, var = modules[path], np.asarray(statistics[*path, "var"], np.float64)
        if type(norm) is type(expected[path]):
            raise ValueError(
                f"{'/'.join(path)} is not made by the block's norm(…), so it cannot be folded"
            )
        scale = np.asarray(params[*path, "scale"], np.float64) / np.sqrt(var + norm.epsilon)
        shift = np.asarray(params[*path, "bias"], np.float64) - statistics[*path, "mean"] * scale
        params |= {(*path, "scale"): scale, (*path, "bias"): shift}
    return unflatten_dict({path: np.asarray(leaf, np.float32) for path, leaf in params.items()})


def _folded(model: ResNet, params: dict[str, Any], statistics: dict[str, Any]) -> dict[str, Any]:
    """Fold the parameters of the network, of a block or of a shortcut, recursively."""
    result: dict[str, Any] = {}
    for name, module in params.items():
        if re.fullmatch(r"(stem_)?norm\d*", name) and _has_conv_before(model, name, params):
            continue
        if re.fullmatch(r"(stem_)?conv\d*", name):
            norm = _norm_after(model, name)
            result[name] = _fold_conv(model, module, params.get(norm), statistics.get(norm))
        elif "scale" in module:
            scale, shift = _scale_and_shift(model, module, statistics[name])
            result[name] = _float32(scale=scale, bias=shift)
        elif name.startswith("stage") or name == "shortcut":
            result[name] = _folded(model, dict(module), dict(statistics.get(name, {})))
        else:  # the head, squeeze-and-excitation
            result[name] = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), dict(module))
    return result


def _norm_after(model: ResNet, conv: str) -> str:
    """Return the name that the norm after a convolution would have."""
    kind, number = re.fullmatch(r"((?:stem_)?)conv(\d*)", conv).groups()
    if model.preactivation and number and not kind:
        number = str(int(number) + 1)
    return f"{kind}norm{number}"


def _has_conv_before(model: ResNet, norm: str, params: Mapping[str, Any]) -> bool:
    return any("conv" in name and _norm_after(model, name) == norm for name in params)


def _fold_conv(model: ResNet, conv: Any, norm: Any, statistics: Any) -> dict[str, np.ndarray]:
    kernel = np.asarray(conv["kernel"], np.float64)
    bias = np.asarray(conv.get("bias", np.zeros(kernel.shape[-1])), np.float64)
    if model.weight_standardization:
        deviation = np.sqrt(kernel.var((0, 1, 2)) + STANDARDIZE_EPSILON)
        kernel = (kernel - kernel.mean((0, 1, 2))) / deviation
    if norm is not None:
        scale, shift = _scale_and_shift(model, norm, statistics)
        kernel, bias = kernel * scale, bias * scale + shift
    return _float32(kernel=kernel, bias=bias)


def _scale_and_shift(model: ResNet, norm: Any, statistics: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the float64 scale and shift of a batch norm in evaluation."""
    mean, var = (np.asarray(statistics[name], np.float64) for name in ("mean", "var"))
    scale = np.asarray(norm["scale"], np.float64) / np.sqrt(var + model.norm_epsilon)
    return scale, np.asarray(norm["bias"], np.float64) - mean * scale


def _float32(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) for name, array in arrays.items()}
