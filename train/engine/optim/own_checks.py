"""Checks of a user's schedules and optimizers, without computing a step."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.runtime.errors import UsageError
from train.runtime.formatting import format_array
from train.runtime.own_code import FAILURES, describe


def check_schedule(name: str, schedule: Any, num_steps: int, warmup: int = 0) -> None:
    """Raise UsageError unless a schedule has a learning rate for the steps of a run.

    Args:
      name: its registered name.
      schedule: what the registered function returned.
      num_steps: length of the run.
      warmup: length of the warm-up in steps.
    """
    must = f"the schedule {name!r} must return a function of the step that returns one number"
    if not callable(schedule):
        raise UsageError(f"{must}, not {schedule!r:.80}")
    try:
        result = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))
    except FAILURES as error:
        raise UsageError(
            f"the schedule {name!r} cannot be computed for a step that is an array: it fails with"
            f" {describe(error)}"
        ) from error
    if getattr(result, "shape", None) != () or result.dtype.kind not in "fiuV":  # V: bfloat16
        raise UsageError(f"{must}, not {format_array(result)}")
    for step in sorted({0, min(1, num_steps - 1), min(warmup, num_steps - 1), num_steps // 2}):
        _check_rate(name, schedule, step)
    _check_rate(name, schedule, num_steps - 1)


def _check_rate(name: str, schedule: optax.Schedule, step: int) -> None:
    rate = float(schedule(jnp.int32(step)))
    if not (math.isfinite(rate) and rate >= 0):
        raise UsageError(
            f"the schedule {name!r} has the learning rate {rate:g} for step {step}; it must be"
            " finite and 0 or more"
        )


def check_optimizer(name: str, optimizer: optax.GradientTransformation, params: Any) -> None:
    """Raise UsageError unless an optimizer can update parameters, and keeps the form of its state.

    Args:
      name: its registered name.
      optimizer: the optimizer.
      params: the parameters, or their shapes and dtypes.
    """
    leaves: list[Any] = []

    def init(params: Any) -> Any:
        state = optimizer.init(params)
        leaves.extend(jax.tree.leaves(state))
        is_array = all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
        return state if is_array else None

    state = _shapes(name, init, params)
    if wrong := [leaf for leaf in leaves if not isinstance(leaf, (jax.Array, np.ndarray))]:
        raise UsageError(
            f"the state of the optimizer {name!r} must consist of arrays, not {wrong[0]!r:.80}"
        )
    updates, new_state = _shapes(name, optimizer.update, params, state, params)
    for what, before, after in (("updates", params, updates), ("state", state, new_state)):
        if problem := _difference(before, after, what == "state"):
            form = "those of the parameters" if what == "updates" else "those before the update"
            raise UsageError(
                f"the optimizer {name!r} returned {what} with other arrays than {form}: {problem}"
            )


def _shapes(name: str, function: Any, *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except FAILURES as error:
        raise UsageError(f"the optimizer {name!r} cannot be computed: {describe(error)}") from error


def _difference(before: Any, after: Any, same_dtypes: bool) -> str:
    """Return the first difference of two trees of arrays; empty if there is none."""
    old, new = (dict(jax.tree_util.tree_flatten_with_path(tree)[0]) for tree in (before, after))
    if jax.tree.structure(before) != jax.tree.structure(after):
        missing = [*old.keys() - new.keys(), *new.keys() - old.keys()]
        place = f", such as {jax.tree_util.keystr(missing[0])}" if missing else ""
        return f"the structure differs{place}"
    for path, leaf in old.items():
        other = new[path]
        if leaf.shape != other.shape or (same_dtypes and leaf.dtype != other.dtype):
            where = jax.tree_util.keystr(path)
            return f"{where} is {format_array(other)} instead of {format_array(leaf)}"
    return ""
