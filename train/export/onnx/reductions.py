"""Conversion of reductions and of matrix products."""

from functools import partial
from typing import Any

import numpy as np

from train.export.onnx.builder import GraphBuilder, Operand, UnsupportedNetworkError, size

KINDS = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}


def reduction(kind: str, graph: GraphBuilder, params: Any, out: Any, x: Operand) -> Operand:
    """Return a reduction over some axes, which it removes."""
    x = graph.expanded(x)
    axes = params["axes"]
    if not axes:
        return x
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    stored_axes = graph.integers(sorted(x.order.index(axis) for axis in axes))
    name = graph.node(kind, x.name, stored_axes, keepdims=0)
    count = size(tuple(x.shape[axis] for axis in axes))
    if kind == "ReduceSum" and isinstance(count, int):
        mean = partial(graph.node, "ReduceMean", x.name, stored_axes, keepdims=0)
        graph.multiples[name] = mean, count
    return graph.operand(out, name, [kept.index(axis) for axis in x.order if axis in kept])


def dot_general(graph: GraphBuilder, params: Any, out: Any, x: Operand, y: Operand) -> Operand:
    """Return a matrix product, with batch axes in front if there are any."""
    (x_axes, y_axes), (x_batch, y_batch) = params["dimension_numbers"]
    x_free = [a for a in range(len(x.shape)) if a not in (*x_axes, *x_batch)]
    y_free = [a for a in range(len(y.shape)) if a not in (*y_axes, *y_batch)]
    several = len(x_free) != 1 if x_batch else False
    if len(x_axes) != 1 or several or 1 not in (len(x_free), len(y_free)):
        raise UnsupportedNetworkError(
            f"the network has a product of tensors of {x.shape} and {y.shape} that is no matrix"
            " product"
        )
    if x.is_constant and len(x.shape) == 2 and y_axes[0] in _last_two(y):
        order = {axis: 1 + y_free.index(axis) for axis in y_free} | {y_axes[0]: 0}
        return _matrix_product(graph, out, y, x.array, x_axes[0], y_axes[0], order)
    if y.is_constant and len(y.shape) == 2 and x_axes[0] in _last_two(x):
        order = {axis: x_free.index(axis) for axis in x_free} | {x_axes[0]: len(x_free)}
        return _matrix_product(graph, out, x, y.array, y_axes[0], x_axes[0], order)
    kind = "Gemm" if len(x.shape) == len(y.shape) == 2 else "MatMul"
    if len(y_free) == 1:
        left = graph.stored(x, (*x_batch, *x_free, *x_axes))
        right = graph.stored(y, (*y_batch, *y_axes, *y_free))
        return graph.operand(out, graph.node(kind, left, right))
    if y_batch:
        raise UnsupportedNetworkError(
            "the network has a product of batches that is no matrix product"
        )
    left, right = graph.stored(y, (*y_free, *y_axes)), graph.stored(x, (*x_axes, *x_free))
    return graph.operand(out, graph.node(kind, left, right), (*range(1, len(out.shape)), 0))


def _last_two(tensor: Operand) -> tuple[int, ...]:
    """Return the axes of a map that are stored last; none of a tensor with fewer axes."""
    return tensor.order[-2:] if len(tensor.order) > 2 else ()


def _matrix_product(
    graph: GraphBuilder,
    out: Any,
    tensor: Operand,
    matrix: np.ndarray,
    contracted: int,
    axis: int,
    order: dict[int, int],
) -> Operand:
    """Return a tensor with one of its last two stored axes multiplied by a constant matrix.

    Resizing is such a product. The other axes stay where they are, so nothing is transposed.

    Args:
      graph: the graph.
      out: JAX's abstract value of the product.
      tensor: the tensor.
      matrix: the matrix.
      contracted: the matrix's axis that is summed over.
      axis: the tensor's axis that is summed over, which the matrix's other axis replaces.
      order: axis of the product for each axis of the tensor.
    """
    tensor = graph.expanded(tensor)
    right = np.moveaxis(matrix, contracted, 0)
    if tensor.order[-1] == axis:
        name = graph.node("MatMul", tensor.name, graph.constant(right))
    else:
        name = graph.node("MatMul", graph.constant(right.T), tensor.name)
    return graph.operand(out, name, [order[each] for each in tensor.order])


REDUCTIONS = {
    **{name: partial(reduction, kind) for name, kind in KINDS.items()},
    "dot_general": dot_general,
}
