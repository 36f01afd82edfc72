"""Keys that an own loss or task does not use, found by its computation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.config.keys import KEYS
from train.config.registries import LOSSES, TASKS
from train.data.augment.mixup import Targets
from train.runtime.config_dict import ConfigDict
from train.runtime.own_code import build
from train.tasks.base import Loss
from train.tasks.task import Task

_LOSS_KEYS = ("label_smoothing", "bce_target_threshold", "focal_gamma")


def own_loss_warnings(config: ConfigDict, outputs: int) -> list[str]:
    """Return warnings about keys that are set, but have no effect on the own loss or task.

    A key has none if the training loss is the same computation without it.

    Args:
      config: a valid configuration.
      outputs: number of logits.
    """
    own_task = TASKS.owner(config.task) is not None
    if not own_task and LOSSES.owner(config.loss) is None:
        return []
    part = f"task={config.task!r}" if own_task else f"loss={config.loss!r}"
    task = build(TASKS, config.task, config)
    if not isinstance(task, Task):
        return []
    several = task.several_labels
    computation = _computation(task.loss, outputs, several)
    warnings = []
    for name in (*_LOSS_KEYS, "loss") if own_task else _LOSS_KEYS:
        if config[name] != KEYS[name].default:
            without = config.copy_and_resolve_references()
            without[name] = KEYS[name].default
            other = build(TASKS, config.task, without).loss
            if _computation(other, outputs, several) == computation:
                warnings.append(f"{name}={config[name]!r} has no effect on {part}")
    if missing := [name for name in config.eval.metrics if name not in task.metrics]:
        warnings.append(f"eval.metrics={', '.join(missing)} has no effect on {part}")
    return warnings


def _computation(loss: Loss, outputs: int, several_labels: bool) -> tuple[Any, ...]:
    """Return the program of a loss for images with and without mixing, and results of it."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, outputs)), jnp.float32)
    shape, values = ((4, outputs), 2) if several_labels else ((4,), outputs)
    label, other = (jnp.asarray(rng.integers(values, size=shape)) for _ in range(2))
    results = []
    for targets in (Targets(label), Targets(label, other, jnp.full(4, 0.75))):
        # The program shows values that differ only for some logits, the results long constants.
        results += [str(jax.make_jaxpr(loss)(logits, targets))]
        results += [np.asarray(jax.jit(loss)(logits, targets)).tobytes()]
    return tuple(results)
