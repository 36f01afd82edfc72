"""Conversion of indexing with constant indices.

With a symbolic batch JAX makes ``x[:, ::2, ::2]`` a gather with constant indices: a grid of the
chosen rows and columns.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import lax

from train.export.onnx.builder import GraphBuilder, Operand, UnsupportedNetworkError
from train.export.onnx.shapes import sliced, squeeze

FILL = lax.GatherScatterMode.FILL_OR_DROP


def gather(graph: GraphBuilder, params: Any, out: Any, x: Operand, indices: Operand) -> Operand:
    """Return ``lax.gather`` if its indices are a constant grid."""
    numbers = params["dimension_numbers"]
    if not indices.is_constant or numbers.operand_batching_dims:
        raise UnsupportedNetworkError("the network gathers elements at computed indices")
    grid = np.broadcast_to(indices.array, indices.shape)
    collapsed = numbers.collapsed_slice_dims
    batch_axes = [axis for axis in range(len(out.shape)) if axis not in numbers.offset_dims]
    windowed = [axis for axis in range(len(x.shape)) if axis not in collapsed]
    # The axis of x that each of the result's axes is.
    source = dict(zip(numbers.offset_dims, windowed, strict=True))
    chosen, dropped = {}, []
    for axis, starts in zip(numbers.start_index_map, np.moveaxis(grid, -1, 0), strict=True):
        fitting = _clamped(starts, x.shape[axis], params["slice_sizes"][axis])
        if params["mode"] == FILL and (fitting != starts).any():
            raise UnsupportedNetworkError("the network gathers elements out of bounds")
        along, line = _line(fitting)
        if axis not in collapsed:
            if along is not None:
                raise UnsupportedNetworkError("the network gathers overlapping windows")
            line = list(range(line[0], line[0] + params["slice_sizes"][axis]))
        elif along is None:
            dropped.append(axis)
        elif batch_axes[along] in source:
            raise UnsupportedNetworkError("the network gathers elements that are not a grid")
        else:
            source[batch_axes[along]] = axis
        chosen[axis] = line
    for axis in (axis for axis in batch_axes if axis not in source):
        if out.shape[axis] != 1 or not dropped:
            raise UnsupportedNetworkError("the network gathers elements several times")
        source[axis] = dropped.pop()
    return _rearranged(graph, _take(graph, x, chosen), dropped, source, out)


def _rearranged(
    graph: GraphBuilder, x: Operand, dropped: list[int], source: dict[int, int], out: Any
) -> Operand:
    """Drop axes, and give the others the places that ``source`` lists."""
    kept = [axis for axis in range(len(x.shape)) if axis not in dropped]
    if dropped:
        squeezed = jax.ShapeDtypeStruct(tuple(x.shape[axis] for axis in kept), x.dtype)
        x = squeeze(graph, {"dimensions": dropped}, squeezed, x)
    place = {kept.index(axis): new for new, axis in source.items()}
    order = tuple(place[axis] for axis in x.order)
    return graph.operand(out, x.name, order)


def _line(starts: np.ndarray) -> tuple[int | None, list[int]]:
    """Return the only axis along which indices vary, None if there is none, and those along it."""
    if (starts == starts.flat[0]).all():
        return None, [int(starts.flat[0])]
    for axis in range(starts.ndim):
        along = np.moveaxis(starts, axis, 0)
        first = along.reshape(len(along), -1)[:, :1]
        if (along.reshape(len(along), -1) == first).all():
            return axis, first.ravel().tolist()
    raise UnsupportedNetworkError("the network gathers elements that are not a grid")


def _take(graph: GraphBuilder, x: Operand, chosen: dict[int, list[int]]) -> Operand:
    """Return some entries of axes; regularly spaced ones by one slice."""
    bounds = {axis: bound for axis, line in chosen.items() if (bound := _as_slice(line))}
    x = sliced(graph, x, bounds)
    for axis in chosen.keys() - bounds.keys():
        indices = graph.integers(chosen[axis])
        name = graph.node("Gather", x.name, indices, axis=x.order.index(axis))
        shape = (*x.shape[:axis], len(chosen[axis]), *x.shape[axis + 1 :])
        x = dataclasses.replace(x, name=name, shape=shape)
    return x


def _as_slice(line: list[int]) -> tuple[int, int, int] | None:
    """Return start, stop and step of increasing, regularly spaced numbers."""
    step = line[1] - line[0] if len(line) > 1 else 1
    regular = step > 0 and line == list(range(line[0], line[-1] + 1, step))
    return (line[0], line[-1] + 1, step) if regular else None


def dynamic_slice(
    graph: GraphBuilder, params: Any, out: Any, x: Operand, *starts: Operand
) -> Operand:
    """Return ``lax.dynamic_slice`` with constant indices."""
    if not all(start.is_constant for start in starts):
        raise UnsupportedNetworkError("the network slices at computed indices")
    bounds = {}
    for axis, (start, size) in enumerate(zip(starts, params["slice_sizes"], strict=True)):
        first = int(_clamped(start.array, x.shape[axis], size))
        bounds[axis] = (first, first + size if first else size, 1)
    return sliced(graph, x, bounds)


def _clamped(starts: np.ndarray, length: Any, size: Any) -> np.ndarray:
    """Return the starts of slices in an axis, moved as XLA does to where a slice fits."""
    last = length - size
    if isinstance(last, int):
        return np.clip(starts, 0, last)
    if (starts != 0).any():  # the axis is the batch, whose length is not known
        raise UnsupportedNetworkError("the network slices the batch")
    return starts


INDEXING = {"gather": gather, "dynamic_slice": dynamic_slice}
