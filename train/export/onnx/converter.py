"""Conversion of a traced JAX function to an ONNX graph.

The function's jaxpr is walked with the weights as constants. What depends only on constants is
computed by JAX at once; every other primitive has a small function that adds ONNX's nodes for it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from onnx import GraphProto, helper

from flax_resnet.text import error_reason
from train.export.onnx import builder
from train.export.onnx.builder import GraphBuilder, Operand, UnsupportedNetworkError, constant
from train.export.onnx.elementwise import ELEMENTWISE
from train.export.onnx.indexing import INDEXING
from train.export.onnx.reductions import REDUCTIONS
from train.export.onnx.shapes import SHAPES
from train.export.onnx.windows import WINDOWS
from train.runtime.errors import UsageError
from train.runtime.own_code import FAILURES

CONVERTERS: dict[str, Callable[..., Any]] = {
    **ELEMENTWISE,
    **INDEXING,
    **REDUCTIONS,
    **SHAPES,
    **WINDOWS,
}
# Primitives that call a function, and the parameter with its jaxpr.
CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
}
# Not computed by JAX if the operand is a constant, whose broadcast copy may be large.
LAZY = ("broadcast_in_dim",)


def convert(function: Callable, images: jax.ShapeDtypeStruct, output: str) -> GraphProto:
    """Return the graph of ``function(images)``.

    Args:
      function: a function of one array ``(N, …)`` that returns one array ``(N, …)``.
      images: its shape, with the symbolic batch size ``N``, and dtype.
      output: name of the output; that of the input is ``images``.

    Raises:
      UnsupportedNetworkError: the function uses an operation without a conversion.
      UsageError: it cannot be traced with a symbolic batch size.
    """
    try:
        closed = jax.make_jaxpr(function)(images)
    except FAILURES as error:  # such as of len(images) in an own network
        raise UsageError(  # StableHLO needs the same
            f"the network cannot be traced for a batch of any size: {error_reason(error)}"
        ) from error
    graph = GraphBuilder("images")
    entered = graph.operand(images, "images")
    if len(images.shape) == 4:  # channels first, which convolutions need
        entered = graph.reordered(entered, (0, 3, 1, 2))
    [result] = _Walk(graph).run(closed, [entered])
    name = graph.stored(result)
    nodes, constants = graph.finish(name, output)
    return helper.make_graph(
        nodes,
        "flax_resnet",
        [builder.value_info("images", images.shape, images.dtype)],
        [builder.value_info(output, result.shape, result.dtype)],
        constants,
    )


class _Walk:
    """The walk through a jaxpr and those that it calls."""

    def __init__(self, graph: GraphBuilder):
        self.graph = graph

    def run(self, closed: ClosedJaxpr, arguments: Sequence[Operand]) -> list[Operand]:
        return self._run(closed.jaxpr, [constant(leaf) for leaf in closed.consts], arguments)

    def _run(
        self, jaxpr: Jaxpr, constants: Sequence[Operand], arguments: Sequence[Operand]
    ) -> list[Operand]:
        """Add the nodes of a jaxpr; return its results."""
        values: dict[Any, Operand] = {}

        def read(variable: Any) -> Operand:
            if isinstance(variable, Literal):
                return constant(np.asarray(variable.val, variable.aval.dtype))
            return values[variable]

        values.update(zip(jaxpr.constvars, constants, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        outer = self.graph.scope
        for equation in jaxpr.eqns:
            self.graph.scope = outer + _scope(equation)
            results = self._equation(equation, [read(v) for v in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        self.graph.scope = outer
        return [read(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, operands: list[Operand]) -> Sequence[Operand]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            called = params[CALLS[name]]
            if isinstance(called, Jaxpr):
                return self._run(called, [], operands)
            return self.run(called, operands)
        if name == "platform_index":  # the implementation for platforms that are not named
            index = next(i for i, names in enumerate(params["platforms"]) if names is None)
            return [constant(np.int32(index))]
        if name == "cond" and operands[0].is_constant:
            branch = params["branches"][int(operands[0].array)]
            return self.run(branch, operands[1:])
        if name == "optimization_barrier":
            return operands
        if name == "dim_as_value":
            raise UnsupportedNetworkError(
                "the network computes with the number of images in the batch, which the export to"
                " ONNX does not convert"
            )
        if name not in LAZY and _is_computable(equation, operands):
            return _computed(equation, operands)
        if name not in CONVERTERS:
            raise UnsupportedNetworkError(
                f"the network uses JAX's operation {name!r}"
                + (f" in {self.graph.scope.rstrip('/')}" if self.graph.scope else "")
                + ", which the export to ONNX does not convert"
            )
        outs = [variable.aval for variable in equation.outvars]
        if equation.primitive.multiple_results:
            return CONVERTERS[name](self.graph, params, outs, *operands)
        return [CONVERTERS[name](self.graph, params, outs[0], *operands)]


def _scope(equation: Any) -> str:
    """Return the modules in which an equation is, as a prefix."""
    names = str(equation.source_info.name_stack).split("/")
    return "".join(f"{name}/" for name in names if name and "(" not in name)


def _is_computable(equation: Any, operands: Sequence[Operand]) -> bool:
    """Return whether an equation depends on constants only, and not on the batch size."""
    shapes = [variable.aval.shape for variable in equation.outvars]
    shapes += [operand.shape for operand in operands]
    return all(map(builder.is_static, shapes)) and all(each.is_constant for each in operands)


def _computed(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """Return the result of an equation of constants."""
    arrays = [np.broadcast_to(operand.array, operand.shape) for operand in operands]
    if equation.primitive.name == "reshape":  # without compiling a program for every shape
        return [constant(arrays[0].reshape(equation.outvars[0].aval.shape))]
    results = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **equation.params)
    many = equation.primitive.multiple_results
    return [constant(np.asarray(each)) for each in (results if many else [results])]
