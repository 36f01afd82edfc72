"""The trainer's own step on random images in device memory.

Imports JAX, so import it only after settings that must precede JAX.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flax_resnet import ResNet, create_model
from train.data.augment.pipeline import Augment
from train.engine import step
from train.engine.devices import Devices, Pmap
from train.tasks.classification import mixed_cross_entropy, top1, top5
from train.tasks.task import Task

TASK = Task(mixed_cross_entropy, mixed_cross_entropy, {"top1": top1, "top5": top5})
SCHEDULE = optax.constant_schedule(0.01)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_model(flags) -> ResNet:
    """Build the network of the flags ``--model``, ``--dtype`` and, if given, ``--stem``."""
    fields = {"stem": flags.stem} if flags.stem else {}
    return create_model(flags.model, dtype=jnp.dtype(flags.dtype), **fields)


def make_step_config(model: ResNet, **fields) -> step.StepConfig:
    """Build a configuration: momentum SGD, cross-entropy, no augmentation; or as in ``fields``."""
    settings = dict(
        model=model,
        optimizer=optax.sgd(SCHEDULE, 0.9),
        schedule=SCHEDULE,
        augment=Augment(),
        task=TASK,
        mean=MEAN,
        std=STD,
        seed=0,
    )
    return step.StepConfig(**settings | fields)


def random_batch(count: int, size: int) -> dict[str, np.ndarray]:
    """Return fixed random ``image`` uint8 ``(count, size, size, 3)`` and ``label`` 0 to 9."""
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return {"image": images, "label": np.arange(count, dtype=np.int32) % 10}


class Step:
    """A training step with its own state and batch, on ``devices`` or by pmap on one.

    A call runs one step, waits for it and returns its metrics. The first call compiles.
    """

    def __init__(
        self,
        step_config: step.StepConfig,
        batch: dict[str, np.ndarray],
        devices: Devices | None = None,
    ):
        self.devices = devices or Pmap(jax.local_devices()[:1])
        self.state = self.devices.replicate(
            step.create_state(step_config, batch["image"].shape[1:])
        )
        self._batch = self.devices.split(batch)
        self._train = self.devices.train(
            lambda state, _, batch: step.train_step(step_config, state, batch)
        )

    def __call__(self) -> dict[str, jax.Array]:
        self.state, metrics = self._train(self.state, {}, self._batch)
        jax.block_until_ready((self.state, metrics))
        return metrics
