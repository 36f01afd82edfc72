"""Everything that knows devices: how state, data and batches lie on them, and pmap.

Steps are written for one device and the axis ``steps.AXIS``. Two ways of spreading them
have the same interface and learn the same, up to rounding, since the compiler fuses them
differently; the loop does not know which it uses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.engine.step import AXIS
from train.runtime.errors import UsageError


class DispatchThrottle:
    """Holds back a loop that sends steps to the devices faster than they finish them.

    Four are enough to keep devices busy and few enough that their batches do not fill the
    memory. Many more hang on virtual CPU devices: with 32 steps in flight on two of them,
    XLA's threads all wait in different steps' collectives, and none is left to finish one.
    """

    STEPS = 4

    def __init__(self):
        self._results: deque[Any] = deque()

    def add(self, result: Any) -> Any:
        """Takes a step's result; where there are too many waits for the oldest and gives it."""
        self._results.append(result)
        if len(self._results) <= self.STEPS:
            return None
        return jax.block_until_ready(self._results.popleft())

    def idle(self) -> bool:
        """Whether the devices have finished all that was sent."""
        last = jax.tree.leaves(self._results[-1]) if self._results else []
        return all(leaf.is_ready() for leaf in last if hasattr(leaf, "is_ready"))


class Devices:
    """The devices of this run, in a row along ``AXIS``; by default all of all processes.

    The processes' devices come one process after another, as their shares of a batch do.
    ``local`` are this process's; host arrays are put on these, and fetched from them.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        everywhere = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        self.devices = list(devices or everywhere)
        own = jax.process_index()
        self.local = [device for device in self.devices if device.process_index == own]

    def __len__(self) -> int:
        return len(self.devices)

    @property
    def platform(self) -> str:
        """``"cpu"``, ``"gpu"`` or ``"tpu"``."""
        return self.devices[0].platform

    def describe(self) -> str:
        """Such as ``4 cpu devices``."""
        plural = "s" if len(self) > 1 else ""
        processes = len({device.process_index for device in self.devices})
        of = f" of {processes} processes" if processes > 1 else ""
        return f"{len(self)} {self.platform} device{plural}{of}"

    def check_batch(self, batch_size: int, parts: int) -> None:
        """Raises UsageError unless the batch divides among devices, and there into parts."""
        total = len(self) * parts
        if batch_size % total:
            near = max(1, round(batch_size / total)) * total
            into = f" in {parts} parts each (config.grad_accum_steps)" if parts > 1 else ""
            raise UsageError(
                f"config.batch_size={batch_size} does not divide among {len(self)} devices{into};"
                f" the nearest that does is {near}"
            )


class Pmap(Devices):
    """``jax.pmap``: every array has a leading axis of this process's devices."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        super().__init__(devices)
        self._sharding = NamedSharding(Mesh(np.array(self.local), (AXIS,)), PartitionSpec(AXIS))

    def train(self, step: Callable) -> Callable:
        """Compiles ``(state, data, batch[, stop]) -> (state, metrics)``, donating the state."""
        return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=self.devices)

    def evaluate(self, step: Callable) -> Callable:
        """Compiles ``(state, data, batch[, stop]) -> sums``."""
        return jax.pmap(step, axis_name=AXIS, devices=self.devices)

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of each array on every device."""
        return jax.tree.map(self._replicate, tree)

    def _replicate(self, leaf: Any) -> jax.Array:
        host = np.asarray(leaf)[None]
        copies = [jax.device_put(host, device) for device in self.local]
        shape = (len(copies), *host.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self._sharding, copies)

    def split(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Gives each of this process's devices its share of the process's batch, in order."""
        parts = len(self.local)
        return {
            name: jax.device_put(array.reshape(parts, -1, *array.shape[1:]), self._sharding)
            for name, array in batch.items()
        }

    def fetch(self, tree: Any) -> Any:
        """One copy of replicated arrays, as NumPy arrays on the host."""
        shards = jax.device_get(jax.tree.map(lambda leaf: leaf.addressable_data(0), tree))
        # A copy, since on CPUs the shard may be the device's own memory, which the next
        # step takes over. Sliced on the host: on the device each shape would be compiled.
        return jax.tree.map(lambda shard: np.array(shard[0]), shards)


class ShardMap(Devices):
    """``jax.jit`` of ``jax.shard_map``: the way that JAX documents in place of pmap."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        super().__init__(devices)
        self._mesh = Mesh(np.array(self.devices), (AXIS,))
        self._split = NamedSharding(self._mesh, PartitionSpec(AXIS))
        self._whole = NamedSharding(self._mesh, PartitionSpec())

    def _map(self, step: Callable, out_specs: Any) -> Callable:
        def call(state: Any, data: Any, *split: Any) -> Any:
            specs = (PartitionSpec(), PartitionSpec(), *(PartitionSpec(AXIS) for _ in split))
            # The steps pmean what they return, which the checker of replication cannot see
            # through every optimiser.
            return jax.shard_map(
                step, mesh=self._mesh, in_specs=specs, out_specs=out_specs, check_vma=False
            )(state, data, *split)

        return call

    def train(self, step: Callable) -> Callable:
        return jax.jit(self._map(step, (PartitionSpec(), PartitionSpec())), donate_argnums=0)

    def evaluate(self, step: Callable) -> Callable:
        return jax.jit(self._map(step, PartitionSpec()))

    def replicate(self, tree: Any) -> Any:
        return jax.tree.map(self._replicate, tree)

    def _replicate(self, leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        copies = [jax.device_put(host, device) for device in self.local]
        return jax.make_array_from_single_device_arrays(host.shape, self._whole, copies)

    def split(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return {
            name: jax.make_array_from_process_local_data(self._split, array)
            for name, array in batch.items()
        }

    def fetch(self, tree: Any) -> Any:
        shards = jax.device_get(jax.tree.map(lambda leaf: leaf.addressable_data(0), tree))
        return jax.tree.map(np.array, shards)  # copies, as above


def make_devices(parallel: str) -> Pmap | ShardMap:
    """The devices under ``config.parallel``: ``"pmap"`` or ``"shard_map"``."""
    return {"pmap": Pmap, "shard_map": ShardMap}[parallel]()
