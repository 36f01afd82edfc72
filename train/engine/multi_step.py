"""Several training steps in one dispatch, so that small ones do not wait for Python.

For data in device memory alone, whose batches are but record numbers. On a CPU nothing is
gained, since a step takes longer than its dispatch, and lost much: XLA runs the gradients of
convolutions inside a loop many times slower there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.data.sampler import EpochSampler, ProcessShard

MOST = 32


def steps_per_execution(chosen: int, platform: str, is_resident: bool) -> int:
    """``config.steps_per_execution``, or for 0 what suits the platform."""
    if not is_resident:
        return 1
    return chosen or (1 if platform == "cpu" else MOST)


def stack_batches(
    order: EpochSampler, calls: Iterable[range], share: ProcessShard, most: int, devices: int
) -> Iterator[dict[str, np.ndarray]]:
    """The record numbers of the calls' steps: ``record`` int32 ``(B, most)``, of which the first
    ``steps`` columns count; that is repeated for each of the process's ``devices``."""
    places = share.places(order.batch_size)
    for call in calls:
        record = np.zeros((len(places), most), np.int32)
        for column, step in enumerate(call):
            record[:, column] = order[step][places]
        yield {"record": record, "steps": np.full(devices, len(call), np.int32)}


def run_steps(step: Callable) -> Callable:
    """``(state, data, batches) -> (state, metrics)`` from one batch's ``step``; mean metrics."""

    def call(state: Any, data: Any, batches: dict[str, jax.Array]) -> tuple[Any, Any]:
        record, count = batches["record"], batches["steps"][0]

        def one(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, total = carry
            state, metrics = step(state, data, {"record": record[:, i]})
            # The learning rate is told of the last step, as it is without this.
            rate = metrics["learning_rate"]
            total = jax.tree.map(jnp.add, total, metrics | {"learning_rate": jnp.zeros_like(rate)})
            return state, total | {"learning_rate": rate}

        shapes = jax.eval_shape(step, state, data, {"record": record[:, 0]})[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        state, total = jax.lax.fori_loop(0, count, one, (state, zeros))
        means = jax.tree.map(lambda leaf: leaf / count, total)
        return state, means | {"learning_rate": total["learning_rate"]}

    return call
