"""Several training steps per dispatch, so that short steps do not wait for Python.

Only for data cached on the device, whose batches are record numbers. On a CPU this gains
nothing, since a step takes longer than its dispatch, and costs much: XLA:CPU runs the gradients
of convolutions inside a loop many times slower.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.data.sampler import EpochSampler, ProcessShard

AUTOMATIC = 32  # steps per dispatch on GPU and TPU


def steps_per_execution(chosen: int, platform: str, cached_on_device: bool) -> int:
    """Return ``config.steps_per_execution``, or the platform's default if ``chosen`` is 0."""
    if not cached_on_device:
        return 1
    return chosen or (1 if platform == "cpu" else AUTOMATIC)


def stack_batches(
    sampler: EpochSampler, calls: Iterable[range], shard: ProcessShard, width: int, devices: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the record numbers of the steps of each call.

    Args:
      sampler: source of the record numbers of a step.
      calls: the steps of each dispatch, at most ``width`` of them.
      shard: this process's share of every batch.
      width: number of columns of ``record``.
      devices: number of this process's devices.

    Yields:
      ``record`` int32 ``(B, width)``, one column per step, and ``steps`` int32 ``(devices,)``,
      the number of columns used.
    """
    positions = shard.positions(sampler.batch_size)
    for call in calls:
        record = np.zeros((len(positions), width), np.int32)
        for column, step in enumerate(call):
            record[:, column] = sampler[step][positions]
        yield {"record": record, "steps": np.full(devices, len(call), np.int32)}


def run_steps(step: Callable) -> Callable:
    """Repeat a step for the batches of :func:`stack_batches`.

    Args:
      step: ``(state, data, batch) -> (state, metrics)``.

    Returns:
      ``(state, data, batches) -> (state, metrics)`` with the mean of the metrics, except for
      ``learning_rate``, which is that of the last step.
    """

    def call(state: Any, data: Any, batches: dict[str, jax.Array]) -> tuple[Any, Any]:
        record, count = batches["record"], batches["steps"][0]

        def one(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, total = carry
            state, metrics = step(state, data, {"record": record[:, i]})
            rate = metrics["learning_rate"]
            total = jax.tree.map(jnp.add, total, metrics | {"learning_rate": jnp.zeros_like(rate)})
            return state, total | {"learning_rate": rate}

        shapes = jax.eval_shape(step, state, data, {"record": record[:, 0]})[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        state, total = jax.lax.fori_loop(0, count, one, (state, zeros))
        means = jax.tree.map(lambda leaf: leaf / count, total)
        return state, means | {"learning_rate": total["learning_rate"]}

    return call
