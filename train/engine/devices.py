"""The devices of a run: placement of state, data and batches, and ``pmap`` or ``shard_map``.

Steps are written for one device and the mapped axis ``step.AXIS``. Two ways to map them have the
same interface, and the same results up to rounding, since the compiler fuses them differently;
the loop does not know which one it uses.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.engine.step import AXIS
from train.runtime.errors import UsageError


class DispatchThrottle:
    """Limit on the number of steps in flight, for a loop that is faster than the devices.

    Four steps keep the devices busy without filling the memory with their batches. Many more hang
    on virtual CPU devices: with 32 steps in flight on two of them, XLA's threads all wait in the
    collectives of different steps, and none is left to finish one.
    """

    STEPS = 4

    def __init__(self):
        self._results: deque[Any] = deque()

    def add(self, result: Any) -> Any:
        """Add the result of a step; if too many are in flight, wait for the oldest.

        Returns:
          The result that was waited for, or None.
        """
        self._results.append(result)
        if len(self._results) <= self.STEPS:
            return None
        return jax.block_until_ready(self._results.popleft())

    def idle(self) -> bool:
        """Return whether the devices have finished all steps."""
        last = jax.tree.leaves(self._results[-1]) if self._results else []
        return all(leaf.is_ready() for leaf in last if hasattr(leaf, "is_ready"))


class Devices:
    """The devices of a run along ``AXIS``; by default all devices of all processes.

    They are ordered by process, as the processes' shares of a batch are. Host arrays are placed
    on and fetched from ``local``, the devices of this process.
    """

    replicated: NamedSharding  # how copies of an array are placed
    stacked = False  # whether copies are stacked along a leading axis of this process's devices

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        by_process = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        self.devices = list(devices or by_process)
        process = jax.process_index()
        self.local = [device for device in self.devices if device.process_index == process]

    def __len__(self) -> int:
        return len(self.devices)

    @property
    def platform(self) -> str:
        """``"cpu"``, ``"gpu"`` or ``"tpu"``."""
        return self.devices[0].platform

    def describe(self) -> str:
        """Return a description, for example ``4 cpu devices``."""
        plural = "s" if len(self) > 1 else ""
        processes = len({device.process_index for device in self.devices})
        of_processes = f" of {processes} processes" if processes > 1 else ""
        return f"{len(self)} {self.platform} device{plural}{of_processes}"

    def check_batch(self, batch_size: int, grad_accum_steps: int) -> None:
        """Raise UsageError unless the batch divides among devices and their micro-batches."""
        divisor = len(self) * grad_accum_steps
        if batch_size % divisor:
            nearest = max(1, round(batch_size / divisor)) * divisor
            micro_batches = (
                f" with {grad_accum_steps} micro-batches each (config.grad_accum_steps)"
                if grad_accum_steps > 1
                else ""
            )
            raise UsageError(
                f"config.batch_size={batch_size} does not divide among {len(self)} devices"
                f"{micro_batches}; the nearest that does is {nearest}"
            )

    def replicate(self, tree: Any) -> Any:
        """Place a copy of each array on every device."""

        def place(leaf: Any) -> jax.Array:
            host = np.asarray(leaf)
            copy, shape = host, host.shape
            if self.stacked:
                copy, shape = host[None], (len(self.local), *host.shape)
            copies = [jax.device_put(copy, device) for device in self.local]
            return jax.make_array_from_single_device_arrays(shape, self.replicated, copies)

        return jax.tree.map(place, tree)

    def fetch(self, tree: Any) -> Any:
        """Return one copy of replicated arrays as NumPy arrays on the host."""
        shards = jax.device_get(jax.tree.map(lambda leaf: leaf.addressable_data(0), tree))
        # Copies, since on CPU a shard may be the device's own memory, which the next step
        # reuses. Indexed on the host, since the device would compile that for each shape.
        return jax.tree.map(lambda shard: np.array(shard[0] if self.stacked else shard), shards)


class Pmap(Devices):
    """Mapping by ``jax.pmap``: every array has a leading axis of this process's devices."""

    stacked = True

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        super().__init__(devices)
        self.replicated = NamedSharding(Mesh(np.array(self.local), (AXIS,)), PartitionSpec(AXIS))

    def train(self, step: Callable) -> Callable:
        """Compile ``(state, data, batch[, stop]) -> (state, metrics)``, donating the state."""
        return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=self.devices)

    def evaluate(self, step: Callable) -> Callable:
        """Compile ``(state, data, batch[, stop]) -> sums``."""
        return jax.pmap(step, axis_name=AXIS, devices=self.devices)

    def split(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Split this process's batch among its devices, in order."""
        count = len(self.local)
        return {
            name: jax.device_put(array.reshape(count, -1, *array.shape[1:]), self.replicated)
            for name, array in batch.items()
        }


class ShardMap(Devices):
    """Mapping by ``jax.jit`` of ``jax.shard_map``, which JAX documents instead of pmap."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        super().__init__(devices)
        self._mesh = Mesh(np.array(self.devices), (AXIS,))
        self._split = NamedSharding(self._mesh, PartitionSpec(AXIS))
        self.replicated = NamedSharding(self._mesh, PartitionSpec())

    def train(self, step: Callable) -> Callable:
        """Compile ``(state, data, batch[, stop]) -> (state, metrics)``, donating the state."""
        return jax.jit(self._map(step, (PartitionSpec(), PartitionSpec())), donate_argnums=0)

    def evaluate(self, step: Callable) -> Callable:
        """Compile ``(state, data, batch[, stop]) -> sums``."""
        return jax.jit(self._map(step, PartitionSpec()))

    def _map(self, step: Callable, out_specs: Any) -> Callable:
        def call(state: Any, data: Any, *split: Any) -> Any:
            specs = (PartitionSpec(), PartitionSpec(), *(PartitionSpec(AXIS) for _ in split))
            # Steps pmean their results, which the replication check cannot prove for every
            # optimizer.
            return jax.shard_map(
                step, mesh=self._mesh, in_specs=specs, out_specs=out_specs, check_vma=False
            )(state, data, *split)

        return call

    def split(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Split this process's batch among its devices, in order."""
        return {
            name: jax.make_array_from_process_local_data(self._split, array)
            for name, array in batch.items()
        }


def make_devices(parallel: str) -> Pmap | ShardMap:
    """Return the devices of ``config.parallel``, ``"pmap"`` or ``"shard_map"``."""
    return {"pmap": Pmap, "shard_map": ShardMap}[parallel]()
