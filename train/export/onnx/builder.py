"""Builder of an ONNX graph, with tensors whose axes may be stored in another order than in JAX.

JAX's networks have maps NHWC, ONNX's convolutions NCHW. A tensor therefore records which of JAX's
axes each stored axis is, and only an operation that needs a certain order adds a transpose. In a
ResNet that leaves one, of the images.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from train.runtime.errors import UsageError

Shape = tuple[Any, ...]  # integers and JAX's symbolic dimensions

DTYPES = ("float16", "float32", "float64", "bool")
DTYPES += ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class UnsupportedNetworkError(UsageError):
    """The network computes something that the export does not convert."""

    def __init__(self, reason: str):
        super().__init__(f"{reason}; use --format stablehlo")


@dataclasses.dataclass(frozen=True)
class Operand:
    """A constant, or a tensor of the graph.

    Attributes:
      shape: JAX's shape.
      dtype: its dtype.
      name: of the tensor in the graph; "" for a constant.
      array: a constant's value, axes in JAX's order; None for a tensor.
      order: JAX's axis of each stored axis of a tensor.
      stretched: axes that have length 1 in ``array`` or the graph, and that broadcasting stretches
        to those of ``shape``.
    """

    shape: Shape
    dtype: np.dtype
    name: str = ""
    array: np.ndarray | None = None
    order: tuple[int, ...] = ()
    stretched: frozenset[int] = frozenset()

    @property
    def is_constant(self) -> bool:
        """Whether the value is known."""
        return self.array is not None

    def length(self, axis: int) -> Any:
        """Return the stored length of one of JAX's axes."""
        return 1 if axis in self.stretched else self.shape[axis]

    @property
    def stored_shape(self) -> Shape:
        """Lengths of the stored axes, in their order."""
        return tuple(self.length(axis) for axis in self.order)


def constant(array: Any, shape: Shape | None = None, stretched: Iterable[int] = ()) -> Operand:
    """Return a constant operand."""
    array = np.asarray(array)
    shape = array.shape if shape is None else shape
    order = tuple(range(array.ndim))
    return Operand(shape, array.dtype, "", array, order, frozenset(stretched))


def onnx_dtype(dtype: np.dtype) -> int:
    """Return ONNX's number of a dtype.

    Raises:
      UnsupportedNetworkError: ONNX Runtime does not compute with it.
    """
    if np.dtype(dtype).name not in DTYPES:
        raise UnsupportedNetworkError(
            f"the network computes with {dtype}, and the export to ONNX converts"
            f" {', '.join(DTYPES)}"
        )
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class GraphBuilder:
    """Nodes and constants of a graph under construction.

    Attributes:
      nodes: in the order of the computation.
      constants: ``{name: array}``.
      scope: prefix of the names of new nodes, such as ``"stage1_block1/conv1/"``.
      batch_input: an input whose first stored axis is the batch.
      multiples: tensors that are a multiple of another one, as a function that returns the name of
        the other one, and the factor. A sum is a multiple of a mean.
    """

    def __init__(self, batch_input: str):
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.scope = ""
        self.batch_input = batch_input
        self.multiples: dict[str, tuple[Callable[[], str], int]] = {}
        self._producers: dict[str, NodeProto] = {}
        self._prefixes: dict[str, str] = {}  # of names, without their numbers
        self._numbers: dict[str, itertools.count] = {}
        self._constant_names: dict[tuple, str] = {}
        self._reordered: dict[tuple[str, tuple[int, ...]], Operand] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        name = self._unique(f"{self.scope}{kind}")
        node = helper.make_node(kind, inputs, [name], name, **attributes)
        self.nodes.append(node)
        self._producers[name] = node
        return name

    def biased(self, name: str, bias: np.ndarray) -> str | None:
        """Return ``name`` plus a value per channel, if that is part of the node that computes it.

        Args:
          name: of the tensor.
          bias: ``(C,)``.
        """
        node = self._producers.get(name)
        if node is None or node.op_type not in ("Conv", "Gemm") or len(node.input) > 2:
            return None
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        return self.node(node.op_type, *node.input, self.constant(bias, "bias"), **attributes)

    def finish(self, output: str, name: str) -> tuple[list[NodeProto], list[TensorProto]]:
        """Return the nodes and constants that a tensor depends on, which is called ``name``."""
        needed, nodes = {output}, []
        for node in reversed(self.nodes):
            if node.output[0] in needed:
                needed.update(node.input)
                nodes.append(node)
        nodes.reverse()
        self._numbers.clear()  # without gaps
        names = {
            each: self._unique(self._prefixes[each]) for each in self.constants if each in needed
        }
        names |= {node.output[0]: self._unique(self._prefixes[node.name]) for node in nodes}
        for node in nodes:
            node.name = names[node.name]
        names[output] = name
        for node in nodes:
            for each in (node.input, node.output):
                each[:] = [names.get(old, old) for old in each]
        arrays = {new: self.constants[old] for old, new in names.items() if old in self.constants}
        return nodes, [numpy_helper.from_array(array, new) for new, array in arrays.items()]

    def constant(self, array: np.ndarray, kind: str = "constant") -> str:
        """Add a constant unless there is an equal one, and return its name."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constant_names:
            name = self._unique(f"{self.scope}{kind}")
            self._constant_names[key], self.constants[name] = name, array
        return self._constant_names[key]

    def integers(self, values: Iterable[int]) -> str:
        """Add a constant of int64, as the arguments of ONNX's operations are."""
        return self.constant(np.asarray(list(values), np.int64), "integers")

    def _unique(self, prefix: str) -> str:
        number = next(self._numbers.setdefault(prefix, itertools.count()))
        name = f"{prefix}_{number}" if number else prefix
        self._prefixes[name] = prefix
        return name

    # Operands -------------------------------------------------------------------------------

    def operand(self, out: Any, name: str, order: Sequence[int] | None = None, **fields) -> Operand:
        """Return the tensor ``name`` as the value of JAX's abstract value ``out``."""
        order = range(len(out.shape)) if order is None else order
        return Operand(tuple(out.shape), np.dtype(out.dtype), name, None, tuple(order), **fields)

    def stored(self, operand: Operand, order: Sequence[int] | None = None) -> str:
        """Return the name of an operand stored in the given order, by default JAX's."""
        order = tuple(range(len(operand.shape)) if order is None else order)
        if operand.is_constant and is_static(operand.shape):
            full = np.broadcast_to(operand.array, operand.shape)
            return self.constant(full.transpose(order))
        if operand.is_constant:  # one value for every image
            axes = tuple(range(operand.array.ndim))
            name = self.constant(operand.array)
            operand = dataclasses.replace(operand, name=name, array=None, order=axes)
        return self.reordered(self.expanded(operand), order).name

    def reordered(self, operand: Operand, order: Sequence[int]) -> Operand:
        """Return a tensor with its axes stored in another order."""
        order = tuple(order)
        if operand.order == order:
            return operand
        key = (operand.name, order)
        if key not in self._reordered:
            self._reordered[key] = self._reorder(operand, order)
        return self._reordered[key]

    def _reorder(self, operand: Operand, order: tuple[int, ...]) -> Operand:
        moved = dataclasses.replace(operand, order=order)
        long = [axis for axis in operand.order if _is_long(operand.length(axis))]
        if long == [axis for axis in order if axis in long]:  # only axes of length 1 move
            name = self.reshape(operand.name, operand.stored_shape, moved.stored_shape)
        else:
            permutation = [operand.order.index(axis) for axis in order]
            name = self.node("Transpose", operand.name, perm=permutation)
        return dataclasses.replace(moved, name=name)

    def expanded(self, operand: Operand) -> Operand:
        """Return a tensor without stretched axes."""
        if not operand.stretched:
            return operand
        plain = dataclasses.replace(operand, stretched=frozenset())
        # 1 keeps the length of an axis.
        lengths = [plain.shape[a] if a in operand.stretched else 1 for a in operand.order]
        name = self.node("Expand", operand.name, self.lengths(lengths))
        return dataclasses.replace(plain, name=name)

    def lengths(self, shape: Sequence[Any]) -> str:
        """Return a tensor with the lengths of a shape in which the batch may be symbolic."""
        if is_static(shape):
            return self.integers(shape)
        batch = self.node("Shape", self.batch_input, start=0, end=1)
        parts = []
        for length in shape:
            if not isinstance(length, int) and str(length) != BATCH:
                raise UnsupportedNetworkError(f"the network has an axis of length {length}")
            parts.append(self.integers([length]) if isinstance(length, int) else batch)
        return self.node("Concat", *parts, axis=0)

    def reshape(self, name: str, old: Shape, new: Shape) -> str:
        """Return a tensor reshaped from a stored shape to another one."""
        if old == new:
            return name
        symbolic = [i for i, length in enumerate(new) if not isinstance(length, int)]
        if len(symbolic) > 1:
            raise UnsupportedNetworkError(f"the network has a tensor of shape {tuple(new)}")
        target = [-1 if i in symbolic else length for i, length in enumerate(new)]
        reshaped = self.node("Reshape", name, self.integers(target))
        if name in self.multiples:
            base, factor = self.multiples[name]
            self.multiples[reshaped] = (lambda: self.reshape(base(), old, new)), factor
        return reshaped


BATCH = "N"  # the symbolic dimension


def _is_long(length: Any) -> bool:
    return not (isinstance(length, int) and length == 1)


def is_static(shape: Shape) -> bool:
    """Return whether a shape does not depend on the batch size."""
    return all(isinstance(length, int) for length in shape)


def size(shape: Shape) -> Any:
    """Return the number of elements, which may be symbolic."""
    return math.prod(shape)


def value_info(name: str, shape: Shape, dtype: np.dtype) -> ValueInfoProto:
    """Return ONNX's type of an input or an output; symbolic lengths keep their names."""
    lengths = [length if isinstance(length, int) else str(length) for length in shape]
    return helper.make_tensor_value_info(name, onnx_dtype(dtype), lengths)
