"""Memory usage of a compiled step, in bytes."""

from typing import Any, NamedTuple

import jax

from train.runtime.errors import RunError


class StepMemory(NamedTuple):
    """Memory of a compiled step on each device in bytes; donated arguments count once.

    Attributes:
      arguments: state, data and batch.
      other: results and temporary arrays.
    """

    arguments: int
    other: int

    @property
    def total(self) -> int:
        """All memory of the step."""
        return self.arguments + self.other


def step_memory(compiled: Any) -> StepMemory:
    """Return the memory of a compiled step.

    Raises:
      RunError: the compiler does not report it.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise RunError("the compiler does not report the memory usage of the step")
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return StepMemory(analysis.argument_size_in_bytes, results + analysis.temp_size_in_bytes)


def tree_bytes(tree: Any) -> int:
    """Return the size of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
