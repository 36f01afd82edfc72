"""Conversion of operations that move elements: reshape, slice, pad, concatenation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from train.export.onnx.builder import (
    GraphBuilder,
    Operand,
    Shape,
    UnsupportedNetworkError,
    constant,
    size,
)


def broadcast_in_dim(graph: GraphBuilder, params: Any, out: Any, x: Operand, *_: Any) -> Operand:
    """Return a tensor with new axes; what is broadcast is stretched only where that is needed."""
    axes = params["broadcast_dimensions"]
    lengths = [1] * len(out.shape)
    for old, new in enumerate(axes):
        lengths[new] = x.length(old)
    stretched = frozenset(
        axis
        for axis, length in enumerate(lengths)
        if isinstance(length, int) and length == 1 and not _equal(out.shape[axis], 1)
    )
    if x.is_constant:
        return constant(x.array.reshape(lengths), tuple(out.shape), stretched)
    old_order = iter([axes[axis] for axis in x.order])
    order = tuple(next(old_order) if axis in axes else axis for axis in range(len(out.shape)))
    name = graph.reshape(x.name, x.stored_shape, tuple(lengths[axis] for axis in order))
    return graph.operand(out, name, order, stretched=stretched)


def reshape(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return a reshaped tensor, without a transpose if only adjacent stored axes are combined."""
    if params.get("dimensions") is not None:
        raise UnsupportedNetworkError("the network reshapes with an order of dimensions")
    x = graph.expanded(x)
    shape = tuple(out.shape)
    order = _reshaped_order(x, shape)
    if order is None:
        x = graph.reordered(x, range(len(x.shape)))
        order = tuple(range(len(shape)))
    name = graph.reshape(x.name, x.stored_shape, tuple(shape[axis] for axis in order))
    return graph.operand(out, name, order)


def _reshaped_order(x: Operand, shape: Shape) -> tuple[int, ...] | None:
    """Return the order in which the stored elements of ``x`` have another shape, if there is one.

    Axes are divided into groups of equal size before and after. Each group's axes, except those of
    length 1, must be stored one after the other.
    """
    groups = _groups(x.shape, shape)
    order: list[int] = []
    stored = [axis for axis in x.order if not _equal(x.shape[axis], 1)]
    while stored:
        old, new = next(group for group in groups if stored[0] in group[0])
        long = [axis for axis in old if not _equal(x.shape[axis], 1)]
        if stored[: len(long)] != long:
            return None
        order += new
        stored = stored[len(long) :]
    return (*order, *(axis for axis in range(len(shape)) if axis not in order))


def _groups(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """Return pairs of ranges of axes that have the same number of elements."""
    groups, first, start = [], 0, 0
    for end in range(1, len(old) + 1):
        total = size(old[first:end])
        stops = range(start + 1, len(new) + 1)
        stop = next((stop for stop in stops if _equal(size(new[start:stop]), total)), None)
        stop = len(new) if end == len(old) else stop
        if stop is not None:
            groups.append((range(first, end), range(start, stop)))
            first, start = end, stop
    return groups


def transpose(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return the same tensor with JAX's axes in another order."""
    permutation = params["permutation"]
    order = tuple(permutation.index(axis) for axis in x.order)
    stretched = frozenset(permutation.index(axis) for axis in x.stretched)
    return graph.operand(out, x.name, order, stretched=stretched)


def squeeze(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return a tensor without some axes of length 1."""
    kept = [axis for axis in range(len(x.shape)) if axis not in params["dimensions"]]
    stored = [axis for axis in x.order if axis in kept]
    name = graph.reshape(x.name, x.stored_shape, tuple(x.length(axis) for axis in stored))
    stretched = frozenset(kept.index(axis) for axis in x.stretched & set(kept))
    order = [kept.index(axis) for axis in stored]
    return graph.operand(out, name, order, stretched=stretched)


def pad(graph: GraphBuilder, params: Any, out: Any, x: Operand, value: Operand) -> Operand:
    """Return a padded, or with negative padding cropped, tensor."""
    before, after, interior = zip(*params["padding_config"], strict=True)
    if any(interior):
        raise UnsupportedNetworkError("the network pads between the elements of a tensor")
    order = x.order if not x.is_constant else range(len(x.shape))
    pads = [before[axis] for axis in order] + [after[axis] for axis in order]
    name = graph.stored(x, order)
    if any(pads):
        name = graph.node("Pad", name, graph.integers(pads), graph.stored(value))
    return graph.operand(out, name, order)


def concatenate(graph: GraphBuilder, params: Any, out: Any, *parts: Operand) -> Operand:
    """Return tensors joined along an axis."""
    order = next(part.order for part in parts if not part.is_constant)
    names = [graph.stored(part, order) for part in parts]
    axis = order.index(params["dimension"])
    return graph.operand(out, graph.node("Concat", *names, axis=axis), order)


def stack(graph: GraphBuilder, params: Any, out: Any, *parts: Operand) -> Operand:
    """Return tensors joined along a new axis."""
    axis, rank = params["axis"], len(out.shape)
    axes = {"broadcast_dimensions": tuple(a for a in range(rank) if a != axis)}
    shape = tuple(1 if a == axis else length for a, length in enumerate(out.shape))
    single = jax.ShapeDtypeStruct(shape, out.dtype)
    parts = [broadcast_in_dim(graph, axes, single, part) for part in parts]
    return concatenate(graph, {"dimension": axis}, out, *parts)


def tile(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return a tensor repeated along its axes."""
    x = graph.expanded(x)
    repeats = graph.integers(params["reps"][axis] for axis in x.order)
    return graph.operand(out, graph.node("Tile", x.name, repeats), x.order)


def slice_(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return ``lax.slice``."""
    steps = params["strides"] or (1,) * len(x.shape)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return dataclasses.replace(sliced(graph, x, dict(enumerate(bounds))), shape=tuple(out.shape))


def sliced(graph: GraphBuilder, x: Operand, bounds: dict[int, tuple[Any, Any, int]]) -> Operand:
    """Return ``x[start:stop:step]`` along some axes, given as ``{axis: (start, stop, step)}``."""
    bounds = {
        axis: (start, stop, step)
        for axis, (start, stop, step) in bounds.items()
        if not (start == 0 and step == 1 and _equal(stop, x.shape[axis]))
    }
    x = graph.expanded(x)
    if not bounds:
        return x
    axes = sorted(bounds)
    columns = zip(*(bounds[axis] for axis in axes), strict=True)
    if not all(isinstance(number, int) for axis in axes for number in bounds[axis]):
        raise UnsupportedNetworkError("the network slices the batch")
    starts, stops, steps = (graph.integers(column) for column in columns)
    stored_axes = graph.integers(x.order.index(axis) for axis in axes)
    name = graph.node("Slice", x.name, starts, stops, stored_axes, steps)
    shape = list(x.shape)
    for axis in axes:
        shape[axis] = len(range(shape[axis])[slice(*bounds[axis])])
    return dataclasses.replace(x, name=name, shape=tuple(shape))


def rev(graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return a tensor with some axes reversed."""
    x = graph.expanded(x)
    axes = params["dimensions"]
    # A start beyond the end is the last element, and the smallest stop is before the first one.
    starts, stops = ([bound] * len(axes) for bound in (np.iinfo(np.int32).max, -(2**31)))
    stored_axes = graph.integers(x.order.index(axis) for axis in axes)
    bounds = graph.integers(starts), graph.integers(stops)
    name = graph.node("Slice", x.name, *bounds, stored_axes, graph.integers([-1] * len(axes)))
    return dataclasses.replace(x, name=name)


def split(graph: GraphBuilder, params: Any, out: Sequence[Any], x: Operand) -> list[Operand]:
    """Return the parts of a tensor along an axis."""
    axis, start, parts = params["axis"], 0, []
    for length in map(int, params["sizes"]):
        parts.append(sliced(graph, x, {axis: (start, start + length, 1)}))
        start += length
    return parts


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b)


SHAPES = {
    "broadcast_in_dim": broadcast_in_dim,
    "concatenate": concatenate,
    "pad": pad,
    "reshape": reshape,
    "rev": rev,
    "slice": slice_,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}
