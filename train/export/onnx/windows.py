"""Conversion of convolutions and of pooling."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.export.onnx.builder import GraphBuilder, Operand, UnsupportedNetworkError


def convolution(
    graph: GraphBuilder, params: Any, out: Any, images: Operand, kernel: Operand
) -> Operand:
    """Return ``conv_general_dilated`` of any number of spatial axes."""
    numbers = params["dimension_numbers"]
    if set(params["lhs_dilation"]) - {1} or params["batch_group_count"] != 1:
        raise UnsupportedNetworkError("the network has a transposed convolution")
    _check_padding(params["padding"])
    name = graph.node(
        "Conv",
        graph.stored(images, numbers.lhs_spec),
        graph.stored(kernel, numbers.rhs_spec),
        group=params["feature_group_count"],
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        pads=_pads(params["padding"]),
    )
    return graph.operand(out, name, numbers.out_spec)


def max_pool(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return ``reduce_window_max``."""
    order, window = _window(params, x)
    if not _is_narrow(window):
        raise UnsupportedNetworkError("the network has a max-pooling of windows without pixels")
    name = graph.node(
        "MaxPool",
        graph.stored(x, order),
        kernel_shape=window["size"],
        strides=window["strides"],
        dilations=window["dilation"],
        pads=_pads(window["padding"]),
    )
    return graph.operand(out, name, order)


def sum_pool(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return ``reduce_window_sum``: an average pooling times the number of pixels.

    ONNX has dilated average pooling only since operator set 19; it is a depthwise convolution here.
    """
    order, window = _window(params, x)
    padding, size = window["padding"], window["size"]
    stored = graph.stored(x, order)
    fields = dict(strides=window["strides"], pads=_pads(padding))
    if _is_narrow(window) and set(window["dilation"]) == {1}:
        fields |= dict(kernel_shape=size, count_include_pad=1)
        mean = graph.node("AveragePool", stored, **fields)
        pixels = math.prod(size)
        name = graph.node("Mul", mean, graph.constant(np.asarray(pixels, x.dtype)))
        graph.multiples[name] = lambda: mean, pixels
        return graph.operand(out, name, order)
    channels = x.shape[order[1]]
    ones = graph.constant(np.ones((channels, 1, *size), x.dtype), "kernel")
    fields |= dict(dilations=window["dilation"], group=channels)
    return graph.operand(out, graph.node("Conv", stored, ones, **fields), order)


def _window(params: Any, x: Operand) -> tuple[tuple[int, ...], dict[str, list]]:
    """Return an order with the axes of the windows last, and the windows' fields for these."""
    if set(params["base_dilation"]) - {1}:
        raise UnsupportedNetworkError("the network pools a map with gaps between the pixels")
    _check_padding(params["padding"])
    fields = {
        "size": params["window_dimensions"],
        "strides": params["window_strides"],
        "dilation": params["window_dilation"],
        "padding": params["padding"],
    }
    trivial = [
        axis
        for axis in x.order
        if (fields["size"][axis], fields["strides"][axis], *fields["padding"][axis]) == (1, 1, 0, 0)
    ]
    if len(x.shape) < 3 or len(trivial) < 2:
        raise UnsupportedNetworkError(
            f"the network pools {len(x.shape) - len(trivial)} axes of a tensor of {len(x.shape)}"
        )
    leading = trivial[:2]
    order = (*leading, *(axis for axis in x.order if axis not in leading))
    return order, {name: [values[axis] for axis in order[2:]] for name, values in fields.items()}


def _is_narrow(window: Mapping[str, list]) -> bool:
    """Return whether the padding is narrower than the windows, as ONNX's poolings require."""
    pairs = zip(window["padding"], window["size"], strict=True)
    return all(max(sides) < size for sides, size in pairs)


def _check_padding(padding: Sequence[tuple[int, int]]) -> None:
    if any(pad < 0 for sides in padding for pad in sides):
        raise UnsupportedNetworkError("the network has a window with negative padding")


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return ONNX's order: all the beginnings, then all the ends."""
    return [before for before, _ in padding] + [after for _, after in padding]


WINDOWS = {
    "conv_general_dilated": convolution,
    "reduce_window_max": max_pool,
    "reduce_window_sum": sum_pool,
}
