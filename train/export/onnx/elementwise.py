"""Conversion of JAX's elementwise operations."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jax import lax

from train.export.onnx.builder import (
    GraphBuilder,
    Operand,
    UnsupportedNetworkError,
    onnx_dtype,
    size,
)

UNARY = {
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "neg": "Neg",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
BINARY = {
    "add_any": "Add",
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
    "min": "Min",
    "mul": "Mul",
    "pow": "Pow",
    "sub": "Sub",
}
LOGICAL = {"and": "And", "not": "Not", "or": "Or", "xor": "Xor"}


def elementwise(
    emit: Callable[..., str], graph: GraphBuilder, params: Any, out: Any, *operands: Operand
) -> Operand:
    """Return an elementwise operation on operands of one shape, or scalars.

    Args:
      emit: ``(graph, params, *names) -> name``, which adds the nodes.
      graph: the graph.
      params: of JAX's operation.
      out: JAX's abstract value of the result.
      *operands: the operands, not all of them constants.
    """
    full = [operand for operand in operands if len(operand.shape) == len(out.shape)]
    order = _common_order([operand for operand in full if not operand.is_constant], out)
    names = [_aligned(graph, operand, order) for operand in operands]
    stretched = frozenset.intersection(*(operand.stretched for operand in full))
    return graph.operand(out, emit(graph, params, *names), order, stretched=stretched)


def _common_order(tensors: list[Operand], out: Any) -> tuple[int, ...]:
    """Return the order of the largest tensor, so that only smaller ones are transposed."""
    if not tensors:
        return tuple(range(len(out.shape)))

    def static_size(tensor: Operand) -> int:
        return size([n for n in tensor.stored_shape if isinstance(n, int)])

    return max(tensors, key=static_size).order


def _aligned(graph: GraphBuilder, operand: Operand, order: tuple[int, ...]) -> str:
    """Return the name of an operand that broadcasts with tensors stored in ``order``."""
    if not operand.is_constant:
        return operand.name if not operand.shape else graph.reordered(operand, order).name
    array = operand.array
    if array.ndim:
        array = array.transpose(order)
        leading = next((i for i, length in enumerate(array.shape) if length != 1), array.ndim)
        array = array.reshape(array.shape[leading:])
    return graph.constant(array)


def _node(kind: str, graph: GraphBuilder, params: Any, *names: str) -> str:
    return graph.node(kind, *names)


def _logical(kind: str, graph: GraphBuilder, params: Any, out: Any, *operands: Operand) -> Operand:
    if out.dtype != bool:
        raise UnsupportedNetworkError(f"the network has a bitwise {kind.lower()} of {out.dtype}")
    return elementwise(partial(_node, kind), graph, params, out, *operands)


def _max(graph: GraphBuilder, params: Any, out: Any, *operands: Operand) -> Operand:
    """Return the maximum; with zero it is the ReLU, and with -inf the other operand."""
    for constant, other in (operands, operands[::-1]):
        if constant.is_constant and not other.stretched and other.shape == tuple(out.shape):
            if (constant.array == -np.inf).all():
                return other
            if not constant.array.any() and out.dtype.kind == "f":
                return elementwise(partial(_node, "Relu"), graph, params, out, other)
    return elementwise(partial(_node, "Max"), graph, params, out, *operands)


def _add(graph: GraphBuilder, params: Any, out: Any, *operands: Operand) -> Operand:
    """Return a sum; a value per channel is the bias of the convolution or product before it."""
    for x, y in (operands, operands[::-1]):
        if x.name and x.shape == tuple(out.shape) and y.is_constant and y.shape:
            lengths = [y.length(axis) for axis in x.order]
            channels = x.length(x.order[1]) if len(lengths) > 1 else 0
            if [1, *lengths[2:]] == [lengths[0], *[1] * len(lengths[2:])] and channels:
                name = graph.biased(x.name, np.broadcast_to(y.array.ravel(), (channels,)))
                if name is not None:
                    return graph.operand(out, name, x.order)
    return elementwise(partial(_node, "Add"), graph, params, out, *operands)


def _div(graph: GraphBuilder, params: Any, out: Any, x: Operand, y: Operand) -> Operand:
    """Return a quotient; a sum divided by the number of its terms is a mean."""
    if x.name in graph.multiples and y.is_constant and out.dtype.kind == "f":
        base, factor = graph.multiples[x.name]
        mean = dataclasses.replace(x, name=base())
        if (y.array == factor).all():
            return mean
        share = dataclasses.replace(y, array=(factor / y.array).astype(y.dtype))
        return elementwise(partial(_node, "Mul"), graph, params, out, mean, share)
    return elementwise(partial(_node, "Div"), graph, params, out, x, y)


def _cast(graph: GraphBuilder, params: Any, out: Any, operand: Operand) -> Operand:
    if operand.dtype == out.dtype:
        return operand
    emit = partial(_cast_node, onnx_dtype(out.dtype))
    return elementwise(emit, graph, params, out, operand)


def _cast_node(to: int, graph: GraphBuilder, params: Any, name: str) -> str:
    return graph.node("Cast", name, to=to)


def _identity(graph: GraphBuilder, params: Any, out: Any, operand: Operand) -> Operand:
    return operand


def _not_equal(graph: GraphBuilder, params: Any, x: str, y: str) -> str:
    return graph.node("Not", graph.node("Equal", x, y))


def _rsqrt(graph: GraphBuilder, params: Any, x: str) -> str:
    return graph.node("Reciprocal", graph.node("Sqrt", x))


def _square(graph: GraphBuilder, params: Any, x: str) -> str:
    return graph.node("Mul", x, x)


def _float32(graph: GraphBuilder, number: float) -> str:
    return graph.constant(np.float32(number))


def _log1p(graph: GraphBuilder, params: Any, x: str) -> str:
    """Return log(1 + x); near 0, where the sum would round x away, as 2 atanh(x / (2 + x))."""
    log = graph.node("Log", graph.node("Add", x, _float32(graph, 1)))
    ratio = graph.node("Div", x, graph.node("Add", x, _float32(graph, 2)))
    near = graph.node("Mul", graph.node("Atanh", ratio), _float32(graph, 2))
    is_near = graph.node("Less", graph.node("Abs", x), _float32(graph, 1))
    return graph.node("Where", is_near, near, log)


def _expm1(graph: GraphBuilder, params: Any, x: str) -> str:
    """Return exp(x) - 1 as tanh(x / 2) (exp(x) + 1), which keeps the digits of small x."""
    half = graph.node("Tanh", graph.node("Mul", x, _float32(graph, 0.5)))
    return graph.node("Mul", half, graph.node("Add", graph.node("Exp", x), _float32(graph, 1)))


def _erfc(graph: GraphBuilder, params: Any, x: str) -> str:
    return graph.node("Sub", _float32(graph, 1), graph.node("Erf", x))


def _integer_pow(graph: GraphBuilder, params: Any, x: str) -> str:
    if params["y"] == 2:
        return graph.node("Mul", x, x)
    if params["y"] == 3:  # Pow takes many times as long
        return graph.node("Mul", graph.node("Mul", x, x), x)
    return graph.node("Pow", x, graph.constant(np.float32(params["y"])))


def _is_finite(graph: GraphBuilder, params: Any, x: str) -> str:
    return graph.node("Not", graph.node("Or", graph.node("IsNaN", x), graph.node("IsInf", x)))


def _clamp(graph: GraphBuilder, params: Any, low: str, x: str, high: str) -> str:
    return graph.node("Min", graph.node("Max", x, low), high)


def _remainder(graph: GraphBuilder, params: Any, x: str, y: str) -> str:
    return graph.node("Mod", x, y, fmod=1)  # with the sign of x


def _round(graph: GraphBuilder, params: Any, x: str) -> str:
    if params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise UnsupportedNetworkError("the network rounds halves away from zero")
    return graph.node("Round", x)


def _select(graph: GraphBuilder, params: Any, out: Any, which: Operand, *cases: Operand) -> Operand:
    if which.dtype != bool or len(cases) != 2:
        raise UnsupportedNetworkError("the network selects among other than two cases")
    emit = partial(_node, "Where")
    return elementwise(emit, graph, params, out, which, cases[1], cases[0])


_EMITTERS = {
    "clamp": _clamp,
    "erfc": _erfc,
    "expm1": _expm1,
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "log1p": _log1p,
    "ne": _not_equal,
    "rem": _remainder,
    "round": _round,
    "rsqrt": _rsqrt,
    "square": _square,
}
ELEMENTWISE = {
    **{name: partial(elementwise, partial(_node, kind)) for name, kind in UNARY.items()},
    **{name: partial(elementwise, partial(_node, kind)) for name, kind in BINARY.items()},
    **{name: partial(elementwise, emit) for name, emit in _EMITTERS.items()},
    **{name: partial(_logical, kind) for name, kind in LOGICAL.items()},
    **{name: _identity for name in ("copy", "copy_p", "stop_gradient")},
    "add": _add,
    "convert_element_type": _cast,
    "div": _div,
    "max": _max,
    "select_n": _select,
}
