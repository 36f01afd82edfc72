"""A small network and its training step, for the tests of steps."""

import dataclasses

import jax
import numpy as np
import optax

from benchmarks import trainer
from flax_resnet import ResNet
from train.engine.devices import Pmap
from train.engine.step import create_state, train_step

TASK_FIELDS = [field.name for field in dataclasses.fields(trainer.TASK)]
MODEL = ResNet((1, 1), block="residual", width=8, stem="cifar", num_classes=7)


def make_step_config(**fields):
    """Return a configuration with the fields of ``StepConfig``, and of its task."""
    of_task = {name: fields.pop(name) for name in {*TASK_FIELDS} & {*fields}}
    schedule = optax.constant_schedule(0.1)
    settings = dict(
        model=MODEL,
        optimizer=optax.sgd(schedule, 0.9),
        schedule=schedule,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        task=dataclasses.replace(trainer.TASK, **of_task),
    )
    return trainer.make_step_config(**settings | fields)


def run_step(step_config, batch, devices=1, kind=Pmap, count=1, start=0):
    """Train ``count`` steps; return the states before and after, and the last metrics."""
    devices = kind(jax.local_devices()[:devices])
    before = create_state(step_config, (12, 12, 3)).replace(step=np.int32(start))
    step = devices.train(lambda state, data, batch: train_step(step_config, state, batch))
    state = devices.replicate(before)
    for _ in range(count):
        state, metrics = step(state, {}, devices.split(batch))
    return before, devices.fetch(state), devices.fetch(metrics)
